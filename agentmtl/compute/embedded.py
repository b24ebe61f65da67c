"""The embedded pipeline as a compute problem: search over hops, then read, with no language model.

    stage     models                                       samples
    search    plain, one-hop, two-hop, three-hop           width of the beam
    rerank    reranker                                     passages reranked (0: none)
    read      reader                                       passages read

They are the agent's own stages of those names, so that `ask --allocation` obeys what a search recommends. The
metric is the F1 of the short answer, the cost measured seconds. The stages interact: what search and reranker
leave low in the list is read only where many passages are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from agentmtl.compute.live import Call, Live, Output, digest_of
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.space import Floats
from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import f1
from agentmtl.evaluate.datasets import Question, answered, read_set
from agentmtl.evaluate.indexes import index_for
from agentmtl.experts.reader import ReaderExpert
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.hops.evidence import EVIDENCE, PASSAGES, SEARCHES, evidence_of
from agentmtl.retrieval.hops.search import search_hops
from agentmtl.retrieval.rerank import Reranker, load_reranker
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Evidence, Usage
from agentmtl.trunk.head_network import HeadNetwork, open_head
from agentmtl.trunk.heads import shipped_head

PILOT = 4  # questions on which the costs are measured first
PIPELINE = Pipeline("embedded", EVIDENCE, unit="seconds", combine="end", metric="f1")


def embedded(
    data: Path, index_root: Path, limit: int | None = None, seed: int = 0, backend: str = "auto"
) -> Live:
    """The pipeline over a multi-hop or reading set with answers. `limit` questions are drawn by `seed`.

    Raises UsageError for a set without answers, and what the index and the reader raise.
    """
    head = shipped_head("reader")
    if head is None:
        raise UsageError("This installation has no reader.", "Make one: agentmtl train reader")
    found = read_set(data)
    questions = answered(found, limit, seed)
    retriever = index_for(found, index_root, backend=backend).retriever
    stages = calls(retriever, load_reranker(backend=backend), open_head(head, backend))
    return Live(PIPELINE, questions, stages, quality, pilot(PIPELINE, stages, questions[:PILOT]))


def calls(retriever: Retriever, reranker: Reranker, network: HeadNetwork) -> dict[str, Call]:
    """The stages as callables."""
    _, reranking, reading = EVIDENCE
    most, reader = max(reranking.samples), ReaderExpert(network)
    readers = {n: reader.reading(n) for n in reading.samples}

    def search(question: Question, value: None, model: str, width: int) -> Output:
        started = perf_counter()
        settings = replace(SEARCHES[model], width=width)
        found = search_hops(
            retriever, question.question, k=most, where=question.where, settings=settings
        ).hits
        list(found)  # texts are read here, and not later
        return _output(found, found.ids, started)

    def rerank(question: Question, value: Hits, model: str, depth: int) -> Output:
        started = perf_counter()
        hits = reranker.rerank(question.question, value, depth=depth) if depth else value
        return _output(evidence_of(question.question, hits), hits.ids[:PASSAGES], started)

    def read(question: Question, value: Evidence, model: str, passages: int) -> Output:
        started = perf_counter()
        said = readers[passages].propose(question.question, value)
        return _output(said[0].text if said else "", None, started)

    return {"search": search, "rerank": rerank, "read": read}


def _output(value: object, named: object, started: float) -> Output:
    """What a stage gave since `started`; `named` tells it from other values where it does not itself."""
    spent = Usage(calls=1, seconds=perf_counter() - started)
    return Output(value, spent, digest_of(value if named is None else named))


def quality(question: Question, said: str) -> float:
    return f1(said, question.answers)


def pilot(pipeline: Pipeline, stages: Mapping[str, Call], items: Sequence[object]) -> tuple[Floats, ...]:
    """The median seconds of every option on a few items, the stages before at their last option; after
    one call of each model for warmth."""
    costs: list[Floats] = []
    values: list[object] = [None] * len(items)
    for stage in pipeline.stages:
        call = stages[stage.name]
        for model in stage.models:
            call(items[0], values[0], model, stage.samples[-1])
        measured = np.zeros((len(stage.models), len(stage.samples)))
        for row, model in enumerate(stage.models):
            for column, number in enumerate(stage.samples):
                outputs = [call(item, values[n], model, number) for n, item in enumerate(items)]
                measured[row, column] = float(np.median([o.usage.seconds for o in outputs]))
        costs.append(np.maximum.accumulate(measured, axis=1))
        values = [output.value for output in outputs]
    return tuple(costs)
