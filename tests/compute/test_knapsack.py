"""The knapsack against every configuration, and the frontier that comes out of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from agentmtl.compute.frontier import Frontier, Point, read_allocation, write_allocation
from agentmtl.compute.knapsack import solve
from agentmtl.errors import UsageError
from agentmtl.schema import Allocation, Share


@pytest.mark.parametrize("combine", ["product", "mean"])
def test_equals_brute_force_at_every_budget(combine: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(500):
        sizes = rng.integers(1, 6, rng.integers(1, 5))
        whole = rng.random() < 0.5  # whole numbers tie
        costs = [np.round(rng.random(n) * 10) if whole else rng.random(n) for n in sizes]
        values = [np.round(rng.random(n), 1) if whole else rng.random(n) for n in sizes]
        found = solve(costs, values, combine)
        every = list(product(*map(range, sizes)))
        cost = np.array([sum(c[i] for c, i in zip(costs, one, strict=True)) for one in every])
        value = np.array([[v[i] for v, i in zip(values, one, strict=True)] for one in every])
        worth = value.prod(1) if combine == "product" else value.mean(1)
        for budget in [*cost, cost.min() - 1e-3, cost.max() + 1]:
            inside = cost <= budget * (1 + 1e-9)
            place = found.at(budget)
            assert (place >= 0) == inside.any()
            if place >= 0:
                assert found.values[place] == pytest.approx(worth[inside].max(), abs=1e-12)
                assert found.costs[place] <= budget * (1 + 1e-9)
                one = every.index(found.choice(budget))  # type: ignore[arg-type]
                assert worth[one] == pytest.approx(found.values[place])


def point(cost: float, quality: float, samples: int = 1) -> Point:
    return Point(cost, quality, quality - 0.1, quality + 0.1, Allocation({"s": Share("m", samples)}))


POINTS = (point(1, 0.2, 1), point(2, 0.5, 2), point(8, 0.6, 3), point(9, 0.9, 4))


def test_resolve_is_the_best_within_the_budget_and_monotone() -> None:
    frontier = Frontier(POINTS)
    assert [frontier.resolve(b).cost for b in (1, 1.9, 2, 8.5, 9, 100)] == [1, 1, 2, 8, 9, 9]
    with pytest.raises(UsageError, match="cheapest point costs 1"):
        frontier.resolve(0.5)
    for preference in (None, {"quality": 1.0, "cost": 0.5}, {"cost": 1.0}, {"quality": 1.0, "cost": 0.01}):
        chosen = [frontier.resolve(b, preference) for b in np.linspace(1, 10, 50)]
        assert all(a.cost <= b.cost and a.quality <= b.quality for a, b in zip(chosen, chosen[1:]))  # noqa: B905


def test_a_preference_gives_up_quality_that_is_dear() -> None:
    frontier = Frontier(POINTS)
    assert frontier.resolve(8, {"quality": 1, "cost": 0.5}).cost == 2
    assert frontier.resolve(9, {"quality": 1, "cost": 0.5}).cost == 9
    assert frontier.resolve(9, {"cost": 1}).cost == 1
    for bad in ({}, {"speed": 1.0}, {"quality": -1.0}, {"cost": float("nan")}):
        with pytest.raises(UsageError, match="preference"):
            frontier.resolve(9, bad)


def test_a_frontier_must_rise() -> None:
    for points in ((), (POINTS[1], POINTS[0]), (POINTS[0], point(3, 0.2))):
        with pytest.raises(UsageError, match="rising"):
            Frontier(points)


def test_the_allocation_file_holds_all(tmp_path: Path) -> None:
    path = tmp_path / "allocation.toml"
    given = Allocation({"read": Share("large", 3, "majority")})
    write_allocation(path, given, Frontier(POINTS, "tokens"))
    assert read_allocation(path) == (given, Frontier(POINTS, "tokens"))
    write_allocation(path, given)
    assert read_allocation(path) == (given, None)


@pytest.mark.parametrize(
    "text",
    [
        "x", "format = 2", "format = 1", "format = 1\n[stages.s]\nsamples = -1",
        "format = 1\n[stages.s]\nsize = 1", "format = 1\nfrontier = [{cost = nan}]\n[stages]",
    ],
)  # fmt: skip
def test_files_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "allocation.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_allocation(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_allocation(tmp_path / "none.toml")
