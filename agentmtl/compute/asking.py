"""Whoever answers questions as a pipeline: an agent, asked under one allocation after the other.

    asked = Asked(pipeline, questions, ask, costs=piloted(pipeline, questions[:4], ask))

`ask` is called with a question and an `Allocation` and gives an `Answer`; what an answer cost is its usage.
Nothing is known of the stages but their names, so a run is paid for as a whole; the searches for whole
pipelines look at few questions first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from agentmtl.compute.cost import amount
from agentmtl.compute.environment import Run, Samples, not_apart
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.errors import AgentmtlError, UsageError
from agentmtl.evaluate.answer_metrics import em, f1
from agentmtl.evaluate.datasets import Question
from agentmtl.experts.answers import without_marks
from agentmtl.schema import Allocation, Answer, Share

Ask: TypeAlias = Callable[[Question, Allocation], Answer]
METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"f1": f1, "em": em}
_LEAST = 1e-3  # an option costs at least this share of the whole: nothing is free


@dataclass(slots=True)
class Asked:
    """An environment of a pipeline that combines by "end" and is judged by "f1" or "em" of the answer's
    text. A question on which `ask` raises an AgentmtlError scores 0 and counts as failed. Safe to use from
    several threads if `ask` is.

    `costs`: what every stage's options are expected to cost, a (models, samples) array a stage. Raises
    UsageError for another metric.
    """

    pipeline: Pipeline
    items: Sequence[Question]
    ask: Ask
    costs: tuple[Floats, ...]
    space: Space = field(init=False)

    def __post_init__(self) -> None:
        if self.pipeline.combine != "end" or self.pipeline.metric not in METRICS:
            raise UsageError(
                f"Answers are judged as a whole, by {' or '.join(METRICS)}; {self.pipeline.name!r} combines "
                f"by {self.pipeline.combine!r} and is judged by {self.pipeline.metric!r}.",
                'Write combine = "end" and metric = "f1".',
            )
        self.space = Space(self.pipeline, self.costs)

    @property
    def questions(self) -> int:
        return len(self.items)

    def sample(self, stage: int, model: int, question: int, first: int, last: int) -> Samples:
        raise not_apart(self.space)

    def run(self, choice: Choice, question: int) -> Run:
        """One question, asked and judged. Raises what `ask` raises that is no AgentmtlError."""
        item = self.items[question]
        try:
            answer = self.ask(item, self.space.allocation(choice))
        except AgentmtlError:
            return Run(0.0, 0.0, True)
        score = METRICS[self.pipeline.metric](without_marks(answer.text), item.answers)
        return Run(score, amount(answer.usage, self.pipeline.unit))


def piloted(pipeline: Pipeline, items: Sequence[Question], ask: Ask) -> tuple[Floats, ...]:
    """What each option costs, as the median over a few questions of what it adds to the whole where the other
    stages have their first option; a stage's first option has an equal part of the cheapest whole.

    Raises what `ask` raises: a pipeline that fails at once is not worth a search.
    """
    first = {stage.name: pipeline.share(place, 0, 0) for place, stage in enumerate(pipeline.stages)}

    def cost(shares: dict[str, Share]) -> float:
        asked = [ask(item, Allocation(shares)) for item in items]
        return float(np.median([amount(answer.usage, pipeline.unit) for answer in asked]))

    cost(first)  # for warmth: the first call loads what later ones do not
    whole = cost(first)
    part, least = whole / len(pipeline.stages), max(whole * _LEAST, 1e-12)
    found = []
    for place, stage in enumerate(pipeline.stages):
        table = np.full((len(stage.models), len(stage.samples)), part)
        for model, samples in np.ndindex(*table.shape):
            if model or samples:
                more = cost({**first, stage.name: pipeline.share(place, model, samples)}) - whole
                table[model, samples] = max(part + more, least)
        found.append(np.maximum.accumulate(table, axis=1))
    return tuple(found)
