"""P_k and WindowDiff: how well boundaries between sentences agree.

Boundaries are the first sentences of new segments. P_k: Beeferman, Berger & Lafferty, Machine Learning 34,
1999; WindowDiff: Pevzner & Hearst, Computational Linguistics 28(1), 2002. Both are 0 for the same boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def half_segment(reference: Sequence[int], sentences: int) -> int:
    """k: half the mean length of the reference's segments, rounded, 1 at least."""
    return max(1, round(sentences / (len(reference) + 1) / 2))


def pk(reference: Sequence[int], hypothesis: Sequence[int], sentences: int, k: int) -> float:
    """The share of sentence pairs k apart of which one side says "same segment" and the other does not."""
    ours, theirs = _crossed(reference, sentences, k), _crossed(hypothesis, sentences, k)
    return float(np.mean((ours > 0) != (theirs > 0))) if len(ours) else 0.0


def windowdiff(reference: Sequence[int], hypothesis: Sequence[int], sentences: int, k: int) -> float:
    """The share of windows of k gaps in which the two have different numbers of boundaries."""
    ours, theirs = _crossed(reference, sentences, k), _crossed(hypothesis, sentences, k)
    return float(np.mean(ours != theirs)) if len(ours) else 0.0


def _crossed(boundaries: Sequence[int], sentences: int, k: int) -> NDArray[np.int64]:
    """(n − k,): boundaries between sentence i and sentence i + k."""
    marks = np.zeros(sentences + 1, np.int64)
    marks[list(boundaries)] = 1
    before = np.concatenate([[0], np.cumsum(marks)])
    i = np.arange(max(sentences - k, 0))
    found: NDArray[np.int64] = before[i + k + 1] - before[i + 1]
    return found
