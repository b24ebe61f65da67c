"""Searches that need no model: every configuration, chance, the same everywhere, an equal share each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.search.base import Archive, Recommendation, Setup
from agentmtl.compute.space import Choice, Space
from agentmtl.errors import UsageError

MOST = 1_000_000  # configurations that brute force takes on


class TrialSearch:
    """Trials of a fixed or a random list of choices."""

    def __init__(self, setup: Setup, choices: Iterator[Choice]) -> None:
        self.archive = Archive(setup.space, setup.questions)
        self._choices = choices

    def ask(self, left: float) -> Trial | None:
        choice = next(self._choices, None)
        return None if choice is None else Trial(choice)

    def tell(self, result: Result) -> None:
        self.archive.add(result)

    def recommend(self, budget: float) -> Recommendation:
        return self.archive.recommend(budget)


def brute_force(setup: Setup) -> TrialSearch:
    """Every configuration within the largest budget, the cheapest first. Raises UsageError for more than a
    million."""
    if setup.space.pipeline.size > MOST:
        raise UsageError(
            f"{setup.space.pipeline.size:,} configurations are too many to try.", "Use --method racing."
        )
    every = product(*(range(cost.size) for cost in setup.space.costs))
    inside = [c for c in every if setup.space.cost(c) <= max(setup.budgets)]
    return TrialSearch(setup, iter(sorted(inside, key=setup.space.cost)))


def random_search(setup: Setup) -> TrialSearch:
    """Feasible configurations, each as likely as any other, for the budgets in turn."""
    rng = setup.rng

    def draws() -> Iterator[Choice]:
        while True:
            for budget in setup.budgets:
                yield setup.space.feasible(rng, budget)

    return TrialSearch(setup, draws())


def best_uniform(setup: Setup) -> TrialSearch:
    """The same model and samples in every stage, where they all have them."""
    space, stages = setup.space, setup.space.stages
    models = [m for m in stages[0].models if all(m in s.models for s in stages)]
    samples = [n for n in stages[0].samples if all(n in s.samples for s in stages)]
    if not models or not samples:
        raise UsageError("The stages have no model and number of samples in common.", "Use another method.")
    choices = [
        tuple(s.models.index(m) * len(s.samples) + s.samples.index(n) for s in stages)
        for m, n in product(models, samples)
    ]
    inside = [c for c in choices if space.cost(c) <= max(setup.budgets)]
    return TrialSearch(setup, iter(sorted(inside, key=space.cost)))


class EqualSplit:
    """An equal share of the budget a stage: the largest model that it affords, filled with samples. Nothing
    is measured."""

    def __init__(self, setup: Setup) -> None:
        self._space = setup.space

    def ask(self, left: float) -> None:
        return None

    def tell(self, result: Result) -> None:
        raise UsageError("An equal split measures nothing.", "Do not tell it anything.")

    def recommend(self, budget: float) -> Recommendation:
        self._space.check_budget(budget)
        choice = equal_split(self._space, budget)
        return Recommendation(choice, 0.5, 0.0, 1.0, (choice,))


def equal_split(space: Space, budget: float) -> Choice:
    """What `EqualSplit` recommends; models are as large as their first sample is dear."""
    share, numbers = budget / len(space.costs), []
    for cost in space.costs:
        affordable = [m for m in range(len(cost)) if cost[m, 0] <= share]
        model = max(affordable, key=lambda m: cost[m, 0]) if affordable else int(cost[:, 0].argmin())
        place = max(int(np.searchsorted(cost[model], share, "right")) - 1, 0)
        numbers.append(model * cost.shape[1] + place)
    return space.repaired(tuple(numbers), budget)
