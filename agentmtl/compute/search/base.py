"""What all searchers share: ask, tell, recommend.

    searcher = RacingSearch(Setup(space, questions, budgets=(3e14,), seed=0))
    run_search(searcher, Bench(environment, limit=1.8e17))
    searcher.recommend(3e14)

A searcher is deterministic: told the same, with the same seed, it asks and recommends the same. That is what
makes a search resumable from its journal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from typing import Protocol

import numpy as np

from agentmtl.compute.environment import Bench, Proposal, Result, Trial
from agentmtl.compute.space import Choice, Space
from agentmtl.errors import UsageError
from agentmtl.schema import Usage

CONFIDENCE = 0.9
Z = 1.6448536269514722  # of a normal interval of that confidence
REFUSALS = 25  # proposals in a row that are too dear end a search
RESERVE = 0.03  # what a proposal may cost more than expected, a share of that


@dataclass(frozen=True, slots=True)
class Setup:
    """What a searcher is made from: the space, how many questions there are, the budgets a question that
    are asked for, a seed. Raises UsageError for a budget that allows nothing."""

    space: Space
    questions: int
    budgets: tuple[float, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budgets:
            raise UsageError("For which budget?", "Give at least one: --budget.")
        for budget in self.budgets:
            self.space.check_budget(budget)

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`quality` as estimated, with its 90 % interval. `tied`: choices that are as good for all that is
    known, of which `choice` is the cheapest; it is one of them."""

    choice: Choice
    quality: float
    low: float
    high: float
    tied: tuple[Choice, ...] = ()


class Searcher(Protocol):
    def ask(self, left: float) -> Proposal | None:
        """What to measure next, with so much left to spend; None: nothing more."""
        ...

    def tell(self, result: Result) -> None: ...

    def recommend(self, budget: float) -> Recommendation:
        """For a budget a question. Raises UsageError where nothing within it was measured."""
        ...


def run_search(
    searcher: Searcher,
    bench: Bench,
    told: Callable[[Result, Bench], None] = lambda result, bench: None,
    most: int = 1000,
) -> int:
    """Until the searcher asks no more, what it asks costs more than is left, or `most` proposals were
    measured (samples that are there cost nothing again, so that cost alone may not end it). `told` hears
    every result. The number of proposals that were measured."""
    refused = measured = 0
    while refused < REFUSALS and measured < most:
        proposal = searcher.ask(bench.left / (1 + RESERVE))
        bench.charge(proposing(searcher))
        if proposal is None:
            break
        if bench.expected(proposal) * (1 + RESERVE) > bench.left:
            refused += 1
            continue
        refused, measured = 0, measured + 1
        result = bench.measure(proposal)
        searcher.tell(result)
        told(result, bench)
    return measured


def proposing(searcher: Searcher) -> Usage:
    """What the model that a searcher asks has cost; nothing for one that asks none."""
    usage: Usage = getattr(searcher, "usage", Usage())
    return usage


@dataclass(slots=True)
class Archive:
    """Trials as they were measured; recommends the best raw score, the cheaper of two alike."""

    space: Space
    questions: int
    results: dict[Choice, Result] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """A trial that the limit ended on some of the questions does not compare with the others; it counts
        where there is no other."""
        if isinstance(result.proposal, Trial) and (result.proposal.questions is None or not self.results):
            self.results[result.proposal.choice] = result

    def within(self, budget: float) -> list[tuple[float, float, Choice]]:
        """(score, −cost, choice) of what the budget allows, best first."""
        costs = {choice: self.space.cost(choice) for choice in self.results}
        inside = [c for c, cost in costs.items() if cost <= budget * (1 + 1e-9)]
        return sorted(((self.results[c].score, -costs[c], c) for c in inside), reverse=True)

    def recommend(self, budget: float) -> Recommendation:
        found = self.within(budget)
        if not found:
            raise UsageError(
                "The search measured nothing within the budget.", "Let it cost more: --search-budget."
            )
        score, _, choice = found[0]
        spread = Z * self._deviation(self.results[choice])
        return Recommendation(choice, score, max(score - spread, 0.0), min(score + spread, 1.0), (choice,))

    def _deviation(self, result: Result) -> float:
        """Of the mean over questions."""
        if result.scores:
            return float(np.std(result.scores) / sqrt(len(result.scores)))
        stages = [max(s, 1e-9) for s in result.stages]
        relative = sum((1 - s) / s for s in stages) / self.questions
        share = 1.0 if self.space.pipeline.combine == "product" else 1 / len(stages)
        return result.score * sqrt(relative) * share
