"""Coordinate ascent as in LLMSelector (arXiv 2502.14815): one stage at a time, the option that most questions
prefer with the others fixed.

The paper chooses models only; here an option is a model with a number of samples, and those that the budget
does not allow are left out. Where stages are only measured as means, the best mean takes the mode's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.search.base import Archive, Recommendation, Setup
from agentmtl.compute.search.simple import equal_split
from agentmtl.compute.space import Choice


class CoordinateAscent:
    """Begins at the equal split of the largest budget; stops when a round over all stages changes nothing."""

    def __init__(self, setup: Setup) -> None:
        self._space, self._budget = setup.space, max(setup.budgets)
        self.archive = Archive(setup.space, setup.questions)
        self._walk = self._steps(equal_split(setup.space, self._budget))

    def ask(self, left: float) -> Trial | None:
        choice = next(self._walk, None)
        return None if choice is None else Trial(choice)

    def tell(self, result: Result) -> None:
        self.archive.add(result)

    def recommend(self, budget: float) -> Recommendation:
        return self.archive.recommend(budget)

    def _steps(self, now: Choice) -> Iterator[Choice]:
        unchanged, place = 0, 0
        while unchanged <= len(now):
            others = [(*now[:place], n, *now[place + 1 :]) for n in range(self._space.costs[place].size)]
            inside = [c for c in others if self._space.cost(c) <= self._budget]
            yield from (c for c in inside if c not in self.archive.results)
            best = self._preferred([c for c in inside if c in self.archive.results] or [now])
            unchanged = unchanged + 1 if best == now else 0
            now, place = best, (place + 1) % len(now)

    def _preferred(self, choices: list[Choice]) -> Choice:
        """What is best for most questions; of those alike, the best mean, then the cheapest."""
        results = [self.archive.results.get(c) for c in choices]
        votes: Counter[Choice] = Counter()
        if all(r is not None and r.scores for r in results):
            for scores in zip(*(r.scores for r in results if r is not None), strict=True):
                votes.update(c for c, s in zip(choices, scores, strict=True) if s == max(scores))

        def worth(choice: Choice) -> tuple[float, float, float]:
            result = self.archive.results.get(choice)
            return votes[choice], result.score if result else 0.0, -self._space.cost(choice)

        return max(choices, key=worth)
