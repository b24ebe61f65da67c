"""The configurations of a pipeline with what each costs.

A choice is one option a stage: a tuple of numbers, where number `model · len(samples) + place` stands for a
model with the samples at that place of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.pipeline import Pipeline
from agentmtl.errors import UsageError
from agentmtl.schema import Allocation, Stage

Floats: TypeAlias = NDArray[np.float64]
Choice: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """`costs`: for every stage (models, samples), what an option is expected to cost a question.

    Raises UsageError where a cost is missing, negative or no number.
    """

    pipeline: Pipeline
    costs: tuple[Floats, ...]

    def __post_init__(self) -> None:
        for stage, cost in zip(self.pipeline.stages, self.costs, strict=True):
            if cost.shape != (len(stage.models), len(stage.samples)) or not (cost >= 0).all():
                raise UsageError(
                    f"The costs of stage {stage.name!r} are not one number of 0 or more an option.",
                    "Give its models parameters and tokens, or a recording.",
                )

    @classmethod
    def expected(cls, pipeline: Pipeline) -> Space:
        """With costs by the formulas, from what the pipeline says of its models."""
        costs = []
        for stage in pipeline.stages:
            unknown = [name for name in stage.models if name not in pipeline.models]
            if unknown:
                raise UsageError(
                    f"Nothing is known of what {', '.join(unknown)} costs.",
                    f"Add [models.{unknown[0]}] to the pipeline, or give a recording.",
                )
            costs.append(
                np.array(
                    [
                        [pipeline.models[m].expected(n, pipeline.unit) for n in stage.samples]
                        for m in stage.models
                    ]
                )
            )
        return cls(pipeline, tuple(costs))

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.pipeline.stages

    @property
    def cheapest(self) -> float:
        """What the cheapest configuration costs a question."""
        return float(sum(cost.min() for cost in self.costs))

    def check_budget(self, budget: float) -> None:
        """Raises UsageError for a budget that allows nothing."""
        if not np.isfinite(budget) or budget < self.cheapest:
            unit = self.pipeline.unit
            raise UsageError(
                f"A budget of {budget:g} {unit} a query allows no configuration: the cheapest costs "
                f"{self.cheapest:g}.",
                f"Give at least {self.cheapest:g} {unit}, or add cheaper models.",
            )

    def option(self, stage: int, number: int) -> tuple[int, int]:
        """The places of its model and of its number of samples."""
        return divmod(number, len(self.stages[stage].samples))

    def cost(self, choice: Choice) -> float:
        """Expected, a question."""
        return float(sum(cost.flat[n] for cost, n in zip(self.costs, choice, strict=True)))

    def allocation(self, choice: Choice) -> Allocation:
        return Allocation(
            {
                stage.name: self.pipeline.share(place, *self.option(place, number))
                for place, (stage, number) in enumerate(zip(self.stages, choice, strict=True))
            }
        )

    def choice(self, allocation: Allocation) -> Choice:
        """Raises UsageError for an allocation that is none of the space."""
        numbers = []
        for stage in self.stages:
            share = allocation.of(stage.name)
            if share.model not in stage.models or share.samples not in stage.samples:
                raise UsageError(
                    f"Stage {stage.name!r} cannot be given {share.model!r} with {share.samples} samples.",
                    f"Models: {', '.join(stage.models)}; samples: {', '.join(map(str, stage.samples))}.",
                )
            numbers.append(
                stage.models.index(share.model) * len(stage.samples) + stage.samples.index(share.samples)
            )
        return tuple(numbers)

    def neighbours(self, choice: Choice) -> list[Choice]:
        """One step away: another model in one stage, or the next number of samples."""
        found = []
        for place, number in enumerate(choice):
            model, samples = self.option(place, number)
            grid = len(self.stages[place].samples)
            others = [m * grid + samples for m in range(len(self.stages[place].models)) if m != model]
            others += [model * grid + s for s in (samples - 1, samples + 1) if 0 <= s < grid]
            found += [(*choice[:place], other, *choice[place + 1 :]) for other in others]
        return found

    def feasible(self, rng: np.random.Generator, budget: float) -> Choice:
        """One of the choices within the budget, each as likely as any other.

        The stages are drawn from the last back, each option weighed by how many ways the stages before it
        can be filled with what it leaves; the ways are counted on sorted costs.
        """
        self.check_budget(budget)
        sums = self._sums()
        left, numbers = budget, []
        for place in range(len(self.costs) - 1, -1, -1):
            costs = self.costs[place].ravel()
            ways = np.searchsorted(sums[place], left - costs + 1e-9 * budget, "right").astype(float)
            number = int(rng.choice(len(costs), p=ways / ways.sum()))
            numbers.append(number)
            left -= costs[number]
        return tuple(reversed(numbers))

    def _sums(self) -> list[Floats]:
        """For every stage, the sorted costs of all ways to fill those before it."""
        sums = [np.zeros(1)]
        for cost in self.costs[:-1]:
            sums.append(np.sort((sums[-1][:, None] + cost.ravel()).ravel()))
        return sums

    def repaired(self, choice: Choice, budget: float) -> Choice:
        """The choice with fewer samples, and then cheaper models, where it costs too much: always the step
        that saves most."""
        self.check_budget(budget)
        while self.cost(choice) > budget * (1 + 1e-12):
            options = self._cheaper(choice)
            choice = min(options, key=self.cost)
        return choice

    def _cheaper(self, choice: Choice) -> list[Choice]:
        now = self.cost(choice)
        steps = [c for c in self.neighbours(choice) if self.cost(c) < now]
        fewer = [
            c
            for c in steps
            if all(
                self._model(i, a) == self._model(i, b) for i, (a, b) in enumerate(zip(c, choice, strict=True))
            )
        ]
        return fewer or steps or [tuple(int(cost.argmin()) for cost in self.costs)]

    def _model(self, stage: int, number: int) -> int:
        return self.option(stage, number)[0]


def combined(combine: str, qualities: Sequence[Floats] | Sequence[float]) -> Floats:
    """The quality of the whole from those of its stages (stages first)."""
    stacked = np.asarray(qualities, np.float64)
    value: Floats = stacked.prod(axis=0) if combine == "product" else stacked.mean(axis=0)
    return value
