"""Nested samples and an exact knapsack, without a model of the curves.

Every stage and model gets the same number of samples; the accuracy of fewer is the mean over all subsets
(`votes.drawn`), and what was not drawn is not chosen.
"""

from __future__ import annotations

import numpy as np

from agentmtl.compute.environment import Draw, Result
from agentmtl.compute.knapsack import solve
from agentmtl.compute.search.base import Recommendation, Setup, Z
from agentmtl.compute.space import Floats
from agentmtl.compute.votes import Tally, drawn


class NestedKnapsack:
    """`samples` a question; None: as many as can be paid for."""

    def __init__(self, setup: Setup, samples: int | None = None) -> None:
        self._space, self._questions, self._samples = setup.space, setup.questions, samples
        self._order = [
            (stage, model) for stage, cost in enumerate(setup.space.costs) for model in range(len(cost))
        ]
        self._answers: dict[tuple[int, int], list[list[int]]] = {}
        self._asked = 0

    def ask(self, left: float) -> Draw | None:
        whole, place = divmod(self._asked, len(self._order))
        if self._samples is not None and whole >= self._samples:
            return None
        if place == 0 and self._round() > left:
            return None
        self._asked += 1
        return Draw(*self._order[place], whole + 1)

    def tell(self, result: Result) -> None:
        assert isinstance(result.proposal, Draw)
        key = result.proposal.stage, result.proposal.model
        known = self._answers.setdefault(key, [[] for _ in range(self._questions)])
        for question, one in zip(known, result.samples, strict=True):
            question.extend(one.answers)

    def recommend(self, budget: float) -> Recommendation:
        self._space.check_budget(budget)
        curves = [np.zeros_like(cost) for cost in self._space.costs]
        for stage, model in self._order:
            curves[stage][model] = self._curve(stage, model)
        choice = solve(self._space.costs, curves, self._space.pipeline.combine).choice(budget)
        assert choice is not None  # the budget was checked
        means = np.array([curve.flat[n] for curve, n in zip(curves, choice, strict=True)])
        product = self._space.pipeline.combine == "product"
        quality = float(means.prod() if product else means.mean())
        spread = Z * quality * float(np.sqrt(((1 - means) / np.maximum(means, 1e-9)).sum() / self._questions))
        return Recommendation(choice, quality, max(quality - spread, 0), min(quality + spread, 1), (choice,))

    def _curve(self, stage: int, model: int) -> Floats:
        """The accuracy on the grid as far as it was drawn, and 0 beyond."""
        answers = self._answers.get((stage, model), [])
        grid = self._space.stages[stage].samples
        most = len(answers[0]) if answers else 0
        if not most:
            return np.zeros(len(grid))
        known = np.mean([drawn(Tally.of(one), most) for one in answers], axis=0)
        return np.array([known[n - 1] if 0 < n <= most else 0.0 for n in grid])

    def _round(self) -> float:
        """What one sample of everything costs."""
        one = sum(float(cost[:, 0].sum()) for cost in self._space.costs)
        return one * self._questions
