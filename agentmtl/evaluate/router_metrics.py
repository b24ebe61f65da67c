"""Metrics of choosing between a weak and a strong expert.

    pgr@c   (r_router(c) − r_weak) / (r_strong − r_weak), the strong expert answering the share c of the
    queries apgr    the mean of it over ten shares                        RouteLLM: Ong et al., arXiv
    2406.18665 cpt@x   the least share of the strong expert with pgr ≥ x     the same

Queries are sent to the strong expert in the order of the router's score; of equal scores every order is as
likely, so their gain is taken by its expectation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SHARES = 10  # thresholds of the area


def gain_curve(scores: Floats, weak: Floats, strong: Floats) -> tuple[Floats, Floats]:
    """(n + 1,) shares of the strong expert, and the share of the gap between the two that is recovered there.

    `scores` (n,): the higher, the sooner the strong one; `weak` and `strong` (n,): 1 where it answers
    rightly.
    """
    order = np.argsort(-scores, kind="stable")
    gain = _expected((strong - weak)[order], scores[order])
    total = float((strong - weak).sum())
    curve = np.concatenate([[0.0], np.cumsum(gain)]) / (total or 1.0)
    return np.linspace(0.0, 1.0, len(scores) + 1), curve


def _expected(gain: Floats, scores: Floats) -> Floats:
    """Within equal scores every query gets their mean gain."""
    _, starts, counts = np.unique(-scores, return_index=True, return_counts=True)
    return np.repeat(np.add.reduceat(gain, starts) / counts, counts)


def apgr(scores: Floats, weak: Floats, strong: Floats, shares: int = SHARES) -> float:
    """The area under the recovered gap, by trapezoids over evenly spaced shares of the strong expert."""
    at, curve = gain_curve(scores, weak, strong)
    points = np.linspace(0.0, 1.0, shares + 1)
    return float(np.trapezoid(np.interp(points, at, curve), points))


def cpt(scores: Floats, weak: Floats, strong: Floats, wanted: float) -> float:
    """The least share of the strong expert that recovers `wanted` of the gap; interpolated."""
    at, curve = gain_curve(scores, weak, strong)
    reached = np.flatnonzero(curve >= wanted)
    if not len(reached):
        return 1.0
    n = int(reached[0])
    if n == 0:
        return 0.0
    return float(np.interp(wanted, [curve[n - 1], curve[n]], [at[n - 1], at[n]]))


def folds_of_groups(groups: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) the fold of each row; rows of one group are in one."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[i]: at % folds for at, i in enumerate(order.tolist())}
    return np.array([fold[group] for group in groups], np.int64)
