"""Metrics of answers: overlap of text, and what a confidence is worth.

Confidences of equal value are in no order; where the order matters the metric is its mean over all orders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentmtl.errors import UsageError
from agentmtl.experts.answers import normalise_answer

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

ECE_BINS = 15


def em(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals any of the answers after normalisation."""
    return float(normalise_answer(prediction) in {normalise_answer(a) for a in answers})


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The best token F1 against any of the answers, after normalisation; two empty texts agree."""
    return max((_token_f1(prediction, answer) for answer in answers), default=0.0)


def _token_f1(prediction: str, answer: str) -> float:
    given, wanted = normalise_answer(prediction).split(), normalise_answer(answer).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def contains_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether any of the answers stands in the text as whole words, both normalised.

    An answer that normalises to nothing ("The", "$") is looked for as it is written.
    """
    words = f" {normalise_answer(text)} "
    return any(f" {n} " in words if (n := normalise_answer(a)) else bool(a) and a in text for a in answers)


def auroc(confidence: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive has a higher confidence than a negative, ties counting ½.

    The Mann–Whitney statistic by mid-ranks (Fawcett, "An introduction to ROC analysis", 2006). NaN where
    one of the classes is empty.
    """
    scores, labels = _pair(confidence, positive)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes - 1) / 2  # mean rank of each tied group, from 1
    ranks = middle[group][labels].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error: mean |confidence − share correct| over equal bins (lo, hi], by size.

    Guo et al., "On Calibration of Modern Neural Networks", 2017. Raises UsageError for a confidence
    outside [0, 1]; NaN for no answers.
    """
    scores, labels = _pair(confidence, correct)
    if not len(scores):
        return float("nan")
    if scores.min() < 0 or scores.max() > 1:
        raise UsageError("A confidence lies outside [0, 1].", "Give calibrated probabilities.")
    bin_of = np.maximum(np.ceil(scores * bins).astype(np.int64) - 1, 0)
    gaps = np.bincount(bin_of, weights=scores - labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """`risk[i]` is the expected share of wrong answers among the `coverage[i]` most confident ones.

    Both have one entry a question; coverage rises from 1/n to 1.
    """

    coverage: Floats
    risk: Floats

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean risk over all coverages; NaN for no answers."""
        return float(self.risk.mean()) if len(self.risk) else float("nan")

    def at(self, coverage: float) -> float:
        """The risk when this share of the questions is answered (at least one question)."""
        place = round(coverage * len(self.risk)) - 1
        return float(self.risk[min(max(place, 0), len(self.risk) - 1)])

    def thinned(self, points: int = 101) -> list[tuple[float, float]]:
        """At most `points` (coverage, risk) pairs, evenly spaced, with the first and the last."""
        if not len(self.risk):
            return []
        even = np.linspace(0, len(self.risk) - 1, min(points, len(self.risk)))
        places = np.unique(even.round().astype(np.int64))
        return [(float(self.coverage[i]), float(self.risk[i])) for i in places]


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The risk–coverage curve (El-Yaniv & Wiener, 2010; area: Geifman, Uziel & El-Yaniv, 2019)."""
    scores, labels = _pair(confidence, correct)
    if not len(scores):
        return RiskCoverage(np.empty(0), np.empty(0))
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=~labels)
    # inside a tied group of n with w wrong, each place holds w/n of a wrong answer on average
    answered = np.arange(1, len(scores) + 1)
    risk = np.cumsum(np.repeat(wrong / sizes, sizes)) / answered
    return RiskCoverage(answered / len(scores), risk)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk–coverage curve."""
    return risk_coverage(confidence, correct).aurc


def _pair(confidence: ArrayLike, flags: ArrayLike) -> tuple[Floats, Flags]:
    scores: NDArray[Any] = np.asarray(confidence, np.float64)
    labels: NDArray[Any] = np.asarray(flags).astype(np.bool_)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise UsageError(
            f"Confidences of shape {scores.shape} do not go with labels of shape {labels.shape}.",
            "Give one label for each confidence.",
        )
    if not np.isfinite(scores).all():
        raise UsageError("A confidence is NaN or infinite.", "Give finite numbers.")
    return scores, labels
