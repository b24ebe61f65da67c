"""The whole cost/quality frontier that a search found, and the allocation file.

`resolve` answers "what for this budget?" at run time by bisection, with no search. The file is TOML: the
recommended allocation first, in the form that the agent obeys, and the frontier below it.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from agentmtl.compute.knapsack import SLACK
from agentmtl.errors import UsageError
from agentmtl.schema import Allocation, Share

FORMAT = 1
METRICS = ("quality", "cost")


@dataclass(frozen=True, slots=True)
class Point:
    """An allocation with what it costs a query and its quality: the estimate and its 90 % interval."""

    cost: float
    quality: float
    low: float
    high: float
    allocation: Allocation

    def to_json(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in ("cost", "quality", "low", "high")}
        return {**numbers, "allocation": self.allocation.to_json()}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Point:
        """Raises KeyError, TypeError and ValueError where it is none."""
        numbers = [float(told[name]) for name in ("cost", "quality", "low", "high")]
        if not all(map(isfinite, numbers)):
            raise ValueError("not finite")
        return cls(numbers[0], numbers[1], numbers[2], numbers[3], parse_allocation(told["allocation"]))


@dataclass(frozen=True, slots=True)
class Frontier:
    """Points by cost, each better than all cheaper ones. Raises UsageError where they are not."""

    points: tuple[Point, ...]
    unit: str = "flops"
    _costs: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _best: dict[tuple[float, float], list[int]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        rising = all(a.cost < b.cost and a.quality < b.quality for a, b in pairwise(self.points))
        if not self.points or not rising:
            raise UsageError(
                "A frontier needs points of rising cost and quality.", "Search again: agentmtl tune."
            )
        object.__setattr__(self, "_costs", tuple(point.cost for point in self.points))

    def resolve(self, budget: float, preference: Mapping[str, float] | None = None) -> Point:
        """The point of the frontier to use within a budget a query.

        Without a preference that of the best quality. With one that of the highest
        weight["quality"] · quality / best quality − weight["cost"] · cost / highest cost, so that a weight on
        cost gives up quality that is dear. Cost and quality never fall as the budget rises. Raises UsageError
        for a budget below the cheapest point, or a preference for something else.
        """
        last = bisect_right(self._costs, budget * (1 + SLACK)) - 1
        if last < 0:
            raise UsageError(
                f"A budget of {budget:g} {self.unit} a query allows nothing: the cheapest point costs "
                f"{self.points[0].cost:g}.",
                f"Give at least {self.points[0].cost:g}.",
            )
        return self.points[last] if preference is None else self.points[self._preferred(preference)[last]]

    def _preferred(self, preference: Mapping[str, float]) -> list[int]:
        """For every place the best one up to there, worked out once a preference."""
        wrong = [name for name, w in preference.items() if name not in METRICS or not isfinite(w) or w < 0]
        if wrong or not preference:
            raise UsageError(
                f"A preference cannot weigh {', '.join(wrong) or 'nothing'}.",
                f"Give weights of 0 or more to: {', '.join(METRICS)}.",
            )
        weights = preference.get("quality", 0.0), preference.get("cost", 0.0)
        if weights not in self._best:
            top, dearest = self.points[-1].quality or 1.0, self.points[-1].cost or 1.0
            worth = [weights[0] * p.quality / top - weights[1] * p.cost / dearest for p in self.points]
            best = 0
            self._best[weights] = [best := n if worth[n] > worth[best] else best for n in range(len(worth))]
        return self._best[weights]

    def to_json(self) -> list[dict[str, Any]]:
        return [point.to_json() for point in self.points]


def write_allocation(
    path: Path,
    allocation: Allocation,
    frontier: Frontier | None = None,
    difficulty: Mapping[str, Any] | None = None,
) -> None:
    """The allocation file, with the frontier and allocations by difficulty (`ByDifficulty.to_json`) where
    there are any."""
    import tomli_w

    told: dict[str, Any] = {"format": FORMAT, "stages": allocation.to_json()}
    if frontier is not None:
        told |= {"unit": frontier.unit, "frontier": frontier.to_json()}
    if difficulty is not None:
        told |= {"difficulty": dict(difficulty)}
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(tomli_w.dumps(told), "utf-8")
    fresh.replace(path)


def read_allocation(path: Path) -> tuple[Allocation, Frontier | None]:
    """What `write_allocation` wrote, but for allocations by difficulty (`difficulty.read_by_difficulty`).
    Raises UsageError for a file that is not there or something else."""
    told = read_table(path)
    try:
        allocation = parse_allocation(told["stages"])
        points = tuple(Point.from_json(one) for one in told.get("frontier", []))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is no allocation: {error}.", "Make one: agentmtl tune.") from None
    return allocation, Frontier(points, str(told.get("unit", "flops"))) if points else None


def read_table(path: Path) -> dict[str, Any]:
    """An allocation file as it is written. Raises UsageError for one that is not there or something else."""
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Make one: agentmtl tune.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}.", "Make one: agentmtl tune.") from None
    if told.get("format") != FORMAT:
        raise UsageError(f"{path} is no allocation file of format {FORMAT}.", "Make one: agentmtl tune.")
    return told


def parse_allocation(table: Mapping[str, Any]) -> Allocation:
    """{stage: {model, samples, aggregator}}. Raises UsageError for a share that is none."""
    shares = {}
    for stage, share in table.items():
        unknown = set(share) - set(Share.__slots__)
        samples = share.get("samples", 1)
        if unknown or not isinstance(samples, int) or isinstance(samples, bool) or samples < 0:
            raise UsageError(
                f"Stage {stage!r} cannot be given {dict(share)}.",
                "Write model, samples (a whole number) and aggregator.",
            )
        shares[str(stage)] = Share(
            str(share.get("model", "")), samples, str(share.get("aggregator", "majority"))
        )
    return Allocation(shares)
