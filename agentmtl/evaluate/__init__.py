"""Measuring: metrics with ties by expectation, bootstrap intervals, data set readers, benchmarks, reports."""

from agentmtl.evaluate.answers import AskAgent, evaluate_answers
from agentmtl.evaluate.bootstrap import Interval, interval, paired_difference
from agentmtl.evaluate.datasets import DataSet, Question, documents, find_sets, read_multihop, read_reading
from agentmtl.evaluate.indexes import index_for
from agentmtl.evaluate.multihop import evaluate_multihop
from agentmtl.evaluate.report import AnyReport, Report, SetsReport

__all__ = [
    "AnyReport",
    "AskAgent",
    "DataSet",
    "Interval",
    "Question",
    "Report",
    "SetsReport",
    "documents",
    "evaluate_answers",
    "evaluate_multihop",
    "find_sets",
    "index_for",
    "interval",
    "paired_difference",
    "read_multihop",
    "read_reading",
]
