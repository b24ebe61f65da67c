"""Correlation by ranks (Spearman, 1904): Pearson's of the ranks, ties sharing their mean rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from agentmtl.evaluate.bootstrap import Floats


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Of (n,) and (n,); NaN where one of them has no spread."""
    x, y = mean_ranks(a), mean_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else float("nan")


def mean_ranks(values: ArrayLike) -> Floats:
    """(n,) from 0 for the least; equal values have the mean of their places."""
    _, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Floats = (ends - counts + ends - 1) / 2
    return means[places]
