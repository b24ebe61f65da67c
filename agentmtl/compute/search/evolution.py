"""Evolution: parents by tournament, crossover by stage, mutation by one step, repair to what is feasible."""

from __future__ import annotations

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.search.base import Archive, Recommendation, Setup
from agentmtl.compute.space import Choice

FIRST = 8  # random configurations to begin with
TOURNAMENT = 3
MUTATION = 0.5  # the probability of a step, a child
TRIES = 20  # of finding a child that is new


class Evolution:
    """Steady state: each child is measured and joins its parents."""

    def __init__(self, setup: Setup) -> None:
        self._space, self._rng = setup.space, setup.rng
        self._budgets, self._asked = setup.budgets, 0
        self.archive = Archive(setup.space, setup.questions)

    def ask(self, left: float) -> Trial:
        budget = self._budgets[self._asked % len(self._budgets)]
        self._asked += 1
        known = self.archive.within(budget)
        if len(known) < FIRST:
            return Trial(self._space.feasible(self._rng, budget))
        for _ in range(TRIES):
            child = self._child(known, budget)
            if child not in self.archive.results:
                return Trial(child)
        return Trial(self._space.feasible(self._rng, budget))

    def tell(self, result: Result) -> None:
        self.archive.add(result)

    def recommend(self, budget: float) -> Recommendation:
        return self.archive.recommend(budget)

    def _child(self, known: list[tuple[float, float, Choice]], budget: float) -> Choice:
        rng = self._rng
        one, other = (known[int(rng.integers(len(known), size=TOURNAMENT).min())][2] for _ in range(2))
        child = tuple(a if rng.random() < 0.5 else b for a, b in zip(one, other, strict=True))
        if rng.random() < MUTATION or child in (one, other):
            steps = self._space.neighbours(child)
            child = steps[int(rng.integers(len(steps)))] if steps else child
        return self._space.repaired(child, budget)
