"""Intervals by the percentile bootstrap over questions, and paired differences.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16. A comparison of
two methods resamples their differences, so that questions hard for both do not widen the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentmtl.errors import UsageError

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 2_000
CONFIDENCE = 0.95
_BLOCK = 4_000_000  # resampled places held at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, eq=False)
class Statistic:
    """A number computed from columns that have one entry a question.

    `of` takes the columns, each indexed alike, and gives the number (NaN where it has none, such as a
    precision of no answers). Without `of` it is the mean of the only column.
    """

    columns: tuple[Floats, ...]
    of: Callable[..., float] | None = None

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def value(self) -> float:
        """Over all questions as they are; NaN where there is none."""
        if not len(self):
            return float("nan")
        return float(self.columns[0].mean()) if self.of is None else self.of(*self.columns)

    def draws(self, rng: np.random.Generator, resamples: int) -> Floats:
        """(resamples,) values, each over len(self) questions drawn with replacement."""
        return np.concatenate([self._block(places) for places in _places(rng, len(self), resamples)])

    def _block(self, places: NDArray[np.int64]) -> Floats:
        if self.of is None:
            means: Floats = self.columns[0][places].mean(axis=1)
            return means
        return np.array([self.of(*(column[row] for column in self.columns)) for row in places], np.float64)

    def interval(self, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE) -> Interval:
        """The value and its percentile interval. Raises UsageError for no questions."""
        _check(len(self), resamples, confidence)
        return bounds(self.value, self.draws(np.random.default_rng(seed), resamples), confidence)


def mean_of(values: ArrayLike) -> Statistic:
    """The mean over the questions that have a value (NaN: has none)."""
    column = np.asarray(values, np.float64)
    return Statistic((column[~np.isnan(column)],))


def bounds(value: float, draws: Floats, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of draws, leaving out those that are NaN."""
    finite = draws[~np.isnan(draws)]
    if not len(finite):  # the value hangs on so few questions that no draw has one
        return Interval(value, value, value)
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def interval(
    values: ArrayLike, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """The mean of values (n,) and its bootstrap interval.

    The same values and seed give the same interval. Raises UsageError for no values, NaN or infinity,
    fewer than 1 resample, or a confidence outside (0, 1).
    """
    return Statistic((_column(values),)).interval(seed, resamples, confidence)


def paired_difference(
    a: ArrayLike, b: ArrayLike, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """The mean of a − b (both (n,), the same questions in the same order) and its bootstrap interval.

    Raises UsageError as `interval` does, and where the lengths differ.
    """
    first, second = _column(a), _column(b)
    if first.shape != second.shape:
        raise UsageError(
            f"{len(first)} values cannot be paired with {len(second)}.", "Measure both on the same questions."
        )
    return interval(first - second, seed, resamples, confidence)


def _column(values: ArrayLike) -> Floats:
    column = np.asarray(values, np.float64)
    if column.ndim != 1 or not np.isfinite(column).all():
        raise UsageError("The bootstrap needs a list of finite numbers.", "Leave out questions without one.")
    return column


def _check(count: int, resamples: int, confidence: float) -> None:
    if not count:
        raise UsageError("There is nothing to resample.", "Give at least one question.")
    if resamples < 1 or not 0 < confidence < 1:
        raise UsageError(
            f"{resamples} resamples at a confidence of {confidence} make no interval.",
            "Take at least 1 resample and a confidence between 0 and 1.",
        )


def _places(rng: np.random.Generator, count: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Rows of `count` places drawn with replacement, `resamples` rows in all, in bounded blocks."""
    rows = max(_BLOCK // count, 1)
    for start in range(0, resamples, rows):
        yield rng.integers(0, count, (min(rows, resamples - start), count))
