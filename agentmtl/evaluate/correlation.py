"""Correlation by ranks (Spearman, 1904): Pearson's of the ranks, ties sharing their mean rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentmtl.evaluate.bootstrap import Floats


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Of (n,) and (n,); NaN where one of them has no spread."""
    return of_codes(codes(a), codes(b))


def codes(values: ArrayLike) -> NDArray[np.int64]:
    """(n,) numbers 0, 1, … in the order of the values, equal ones alike: all that ranks need of them."""
    return np.asarray(np.unique(np.asarray(values, np.float64), return_inverse=True)[1], np.int64)


def of_codes(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Spearman's correlation of codes, or of any resample of them: without sorting."""
    x, y = mean_ranks(a), mean_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else float("nan")


def mean_ranks(values: NDArray[np.int64]) -> Floats:
    """(n,) ranks of codes, 0 for the least; equal ones have the mean of their places."""
    counts = np.bincount(values)
    ends = np.cumsum(counts)
    means: Floats = (2 * ends - counts - 1) / 2
    return means[values]
