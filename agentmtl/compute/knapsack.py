"""The best choice within every budget at once: a multiple-choice knapsack, solved exactly.

Stages are merged one after the other, and of the partial choices only those are kept that no other beats in
cost and value (Nemhauser & Ullmann, "Discrete Dynamic Programming and Capital Allocation", 1969). Costs are
not rounded. What is left, by cost, is the whole frontier.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.space import Choice, Floats

SLACK = 1e-9  # relative: what rounding may add to a cost


@dataclass(frozen=True, slots=True, eq=False)
class Solutions:
    """Non-dominated choices: (n,) ascending costs and values, (n, stages) numbers of options."""

    costs: Floats
    values: Floats
    choices: NDArray[np.int64]

    def at(self, budget: float) -> int:
        """The place of the best within a budget; −1 where even the cheapest costs more."""
        return bisect_right(self.costs, budget * (1 + SLACK)) - 1

    def choice(self, budget: float) -> Choice | None:
        place = self.at(budget)
        return None if place < 0 else tuple(self.choices[place].tolist())

    def within(self, budget: float) -> list[Choice]:
        """All within a budget, the cheapest first."""
        return [tuple(row) for row in self.choices[: self.at(budget) + 1].tolist()]


def solve(costs: Sequence[Floats], values: Sequence[Floats], combine: str = "product") -> Solutions:
    """For every stage the costs and values of its options, flat or (models, samples).

    A product of values is a sum of their logarithms; a stage of value 0 makes the whole 0. Where two choices
    cost the same, the better is kept; where they are as good, the cheaper.
    """
    product = combine == "product"
    found = Solutions(np.zeros(1), np.zeros(1), np.zeros((1, 0), np.int64))
    for cost, value in zip(costs, values, strict=True):
        flat = np.asarray(value, np.float64).ravel()
        with np.errstate(divide="ignore"):
            gained = np.log(flat) if product else flat / len(values)
        found = _merged(found, np.asarray(cost, np.float64).ravel(), gained)
    return Solutions(found.costs, np.exp(found.values) if product else found.values, found.choices)


def _merged(found: Solutions, cost: Floats, value: Floats) -> Solutions:
    costs = (found.costs[:, None] + cost).ravel()
    values = (found.values[:, None] + value).ravel()
    order = np.lexsort((-values, costs))
    kept = order[_rises(values[order])]
    before, option = np.divmod(kept, len(cost))
    return Solutions(costs[kept], values[kept], np.column_stack([found.choices[before], option]))


def _rises(values: Floats) -> NDArray[np.bool_]:
    """Where a sequence exceeds all that came before; the first always does."""
    best = np.maximum.accumulate(values)
    return np.concatenate([[True], values[1:] > best[:-1]])
