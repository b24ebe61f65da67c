"""Telling queries that have no answer, with a threshold that was fitted on other queries than it judges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentmtl.evaluate.answer_metrics import auroc

FOLDS = 5

Flags = NDArray[np.bool_]


def abstention_metrics(confidence: ArrayLike, answerable: ArrayLike, seed: int) -> dict[str, float]:
    """AUROC of (n,) confidences against (n,) flags; and precision, recall and F1 of refusing.

    A query is refused below the threshold with the best F1 on the queries of the other folds (five, drawn
    with the seed); F1 counts unanswerable queries as the positives. Fewer folds where there are few of them.
    """
    scores, null = np.asarray(confidence, float), ~np.asarray(answerable, bool)
    folds = np.random.default_rng(seed).permutation(len(scores)) % min(FOLDS, len(scores))
    refused = np.zeros(len(scores), bool)
    for fold in range(FOLDS):
        mine = folds == fold
        if mine.any() and (~mine).any():
            refused[mine] = scores[mine] < best_threshold(scores[~mine], null[~mine])
    precision, recall, f1 = _scores(refused, null)
    return {"auroc": auroc(scores, ~null), "precision": precision, "recall": recall, "f1": f1}


def best_threshold(scores: NDArray[np.float64], null: Flags) -> float:
    """The threshold below which refusing has the highest F1 on these queries; −∞ where none is null."""
    candidates: Sequence[float] = [-np.inf, *np.unique(scores).tolist(), np.inf]
    return max(candidates, key=lambda t: _scores(scores < t, null)[2])


def _scores(refused: Flags, null: Flags) -> tuple[float, float, float]:
    """(precision, recall, F1) of refusing; 0 where nothing was refused rightly."""
    right = float((refused & null).sum())
    if not right:
        return 0.0, 0.0, 0.0
    return right / refused.sum(), right / null.sum(), 2 * right / (refused.sum() + null.sum())
