"""A whole tuning: search, recommend, draw up the frontier, say what it cost.

tuned = tune(environment, budgets=(2e12,), limit=1e15)
tuned.recommendation, tuned.frontier.resolve(1e12)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentmtl.compute.environment import Bench, Environment, Result
from agentmtl.compute.frontier import Frontier, Point
from agentmtl.compute.journal import Journal
from agentmtl.compute.search.base import Recommendation, Searcher, Setup, proposing, run_search
from agentmtl.compute.search.ideas import Chat, WithIdeas
from agentmtl.compute.search.methods import default_method, make_searcher
from agentmtl.compute.search.racing import RacingSearch
from agentmtl.compute.space import Choice, Space
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION, Usage

MOST = 300  # proposals of a search: those that cost nothing do not end it
FRONTIER_POINTS = 40  # budgets at which a search without a frontier of its own is asked


@dataclass(frozen=True, slots=True)
class Step:
    """How a search stood after a proposal: what it had spent, and what it would recommend then."""

    spent: float
    quality: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found. `recommendations`: one a budget. `paid`: of what was spent, what was not in the
    journal already. `failed`: runs that failed. `proposer`: what a model's proposals cost, within `spent` as
    far as the pipeline's unit counts it. `scores`: of pipelines measured as a whole, by configuration and
    question."""

    method: str
    space: Space
    budgets: tuple[float, ...]
    recommendations: tuple[Recommendation, ...]
    frontier: Frontier
    spent: float
    paid: float
    measured: int
    failed: int
    proposer: Usage
    steps: tuple[Step, ...] = field(default=())
    scores: Mapping[tuple[Choice, int], float] = field(default_factory=dict, repr=False)

    @property
    def recommendation(self) -> Recommendation:
        """For the largest budget."""
        return self.recommendations[self.budgets.index(max(self.budgets))]

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl tune --json`)."""
        best = self.recommendation
        return {
            "schema": SCHEMA_VERSION,
            "method": self.method,
            "pipeline": self.space.pipeline.name,
            "metric": self.space.pipeline.metric,
            "unit": self.space.pipeline.unit,
            "budget": max(self.budgets),
            "recommended": self._told(best),
            "interval": [best.low, best.high],
            "tied": [self.space.allocation(c).to_json() for c in best.tied],
            "budgets": {
                f"{budget:g}": self._told(one)
                for budget, one in zip(self.budgets, self.recommendations, strict=True)
            },
            "frontier": self.frontier.to_json(),
            "spent": {
                "amount": self.spent, "paid now": self.paid, "unit": self.space.pipeline.unit,
                "measured": self.measured, "failed": self.failed, "proposer": self.proposer.to_json(),
            },
            "steps": [[one.spent, one.quality] for one in self.steps],
        }  # fmt: skip

    def _told(self, one: Recommendation) -> dict[str, Any]:
        return {
            "allocation": self.space.allocation(one.choice).to_json(), "cost": self.space.cost(one.choice),
            "quality": one.quality, "low": one.low, "high": one.high,
        }  # fmt: skip


def tune(
    environment: Environment,
    budgets: Sequence[float],
    limit: float,
    method: str = "",
    *,
    seed: int = 0,
    chat: Chat | None = None,
    journal: Journal | None = None,
    workers: Executor | None = None,
    told: Callable[[Step, Bench], None] = lambda step, bench: None,
) -> Tuned:
    """Search until `limit` is spent, in the pipeline's unit. `method` "": the one that suits the pipeline.

    `told` hears how the search stands. Raises UsageError for a budget that allows nothing, and what the
    method and the environment raise.
    """
    space, name = environment.space, method or default_method(environment.space.pipeline)
    searcher = make_searcher(name, Setup(space, environment.questions, tuple(budgets), seed), chat)
    bench = Bench(environment, limit, Journal() if journal is None else journal, workers)
    steps: list[Step] = []

    def heard(result: Result, bench: Bench) -> None:
        if not result.cost and steps:
            return  # what was there already: nothing to show
        step = Step(bench.spent, _standing(searcher, max(budgets)))
        steps.append(step)
        told(step, bench)

    measured = run_search(searcher, bench, heard, most=MOST)
    found = tuple(searcher.recommend(budget) for budget in budgets)
    frontier = frontier_of(searcher, space, max(budgets))
    return Tuned(
        name, space, tuple(budgets), found, frontier, bench.spent, bench.paid, measured, bench.failed,
        proposing(searcher), tuple(steps), bench.scores,
    )  # fmt: skip


def _standing(searcher: Searcher, budget: float) -> float:
    """What it would recommend now is worth; 0 where it has nothing to recommend."""
    try:
        return searcher.recommend(budget).quality
    except UsageError:
        return 0.0


def frontier_of(searcher: Searcher, space: Space, most: float) -> Frontier:
    """The frontier up to a budget, as the searcher sees it."""
    if isinstance(searcher, WithIdeas):
        return frontier_of(searcher.search, space, most)
    if isinstance(searcher, RacingSearch):
        points = [(choice, *searcher.interval(choice)) for choice in searcher.solutions().within(most)]
    else:
        points = []
        for budget in np.geomspace(space.cheapest, most, FRONTIER_POINTS):
            try:
                one = searcher.recommend(float(budget) * (1 + 1e-9))
            except UsageError:
                continue  # nothing so cheap was measured
            points.append((one.choice, one.quality, one.low, one.high))
    return Frontier(_rising(points, space), space.pipeline.unit)


def _rising(points: Sequence[tuple[tuple[int, ...], float, float, float]], space: Space) -> tuple[Point, ...]:
    """The points that no cheaper one beats."""
    kept: list[Point] = []
    for choice, quality, low, high in sorted(points, key=lambda p: (space.cost(p[0]), -p[1])):
        cost = space.cost(choice)
        if not kept or (quality > kept[-1].quality and cost > kept[-1].cost):
            kept.append(Point(cost, quality, low, high, space.allocation(choice)))
    return tuple(kept)
