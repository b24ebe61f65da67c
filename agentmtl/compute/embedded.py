"""The embedded pipeline as a compute problem: search over hops, then read, with no language model.

    stage     models                                       samples
    search    plain, one-hop, two-hop, three-hop           width of the beam
    read      reader                                       passages read

`plain` looks once without names and identifiers. The metric is the F1 of the short answer, the cost measured
seconds. The stages interact: what the search leaves low in the list is read only where many passages are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from agentmtl.compute.live import SETTING, Call, Live, Output, digest_of
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.space import Floats
from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import f1
from agentmtl.evaluate.datasets import Question, read_set, sample
from agentmtl.evaluate.indexes import index_for
from agentmtl.experts.reader import ReaderExpert, ReaderSettings
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.retrieval.hops.search import HopSettings
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Evidence, Stage, Usage
from agentmtl.trunk.head_network import HeadNetwork, open_head
from agentmtl.trunk.heads import shipped_head

WIDTHS, PASSAGES = (3, 12, 24), (1, 2, 4, 8)
PILOT = 4  # questions on which the costs are measured first
SEARCHES: Mapping[str, HopSettings] = {
    "plain": HopSettings(hops=1, graph=False, identifiers=False),
    "one-hop": HopSettings(hops=1),
    "two-hop": HopSettings(hops=2),
    "three-hop": HopSettings(hops=3),
}
PIPELINE = Pipeline(
    "embedded",
    (
        Stage("search", tuple(SEARCHES), WIDTHS, SETTING),
        Stage("read", ("reader",), PASSAGES, SETTING),
    ),
    unit="seconds", combine="end", metric="f1",
)  # fmt: skip


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
    questions = sample([q for q in found.questions if q.answers and q.answerable], limit, seed)
    if not questions:
        raise UsageError(f"{data} has no questions with answers.", "Give a set such as hotpotqa.")
    retriever = index_for(found, index_root, backend=backend).retriever
    stages = calls(retriever, open_head(head, backend))
    return Live(PIPELINE, questions, stages, quality, pilot(PIPELINE, stages, questions[:PILOT]))


def calls(retriever: Retriever, network: HeadNetwork) -> dict[str, Call]:
    """The stages as callables."""
    readers = {n: ReaderExpert(network, ReaderSettings(passages=n)) for n in PASSAGES}

    def search(question: Question, value: None, model: str, width: int) -> Output:
        started = perf_counter()
        settings = replace(SEARCHES[model], width=width)
        found = gather_passages(retriever, question.question, settings, k=max(PASSAGES), where=question.where)
        spent = Usage(calls=1, seconds=perf_counter() - started)
        return Output(found, spent, digest_of([hit.id for hit in found.passages]))

    def read(question: Question, value: Evidence, model: str, passages: int) -> Output:
        started = perf_counter()
        said = readers[passages].propose(question.question, value)
        spent = Usage(calls=1, seconds=perf_counter() - started)
        return Output(said[0].text if said else "", spent)

    return {"search": search, "read": read}


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
