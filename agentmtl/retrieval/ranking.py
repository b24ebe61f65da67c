"""A ranked list of addresses, and the one order everything is ranked in: score, then unit id.

Equal scores are common (a sentence that stands in two files). The id decides, so that an index gives the
same list however it came about; where a tie reaches over the cut at k, the whole tie is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.snapshot import Address

Floats = NDArray[np.floating]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Best first: `scores[i]` of the unit at (`segments[i]`, `positions[i]`)."""

    scores: Floats
    segments: Numbers
    positions: Numbers

    def __len__(self) -> int:
        return len(self.scores)

    def addresses(self) -> list[Address]:
        return list(zip(self.segments.tolist(), self.positions.tolist(), strict=True))


def within(ranking: Ranking, pool: Set[Address]) -> Ranking:
    """What of a ranking is in the pool."""
    kept = np.array([address in pool for address in ranking.addresses()], np.bool_)
    return Ranking(ranking.scores[kept], ranking.segments[kept], ranking.positions[kept])


EMPTY = Ranking(np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))

IdOf = Callable[[int, int], bytes]  # (segment number, position) → unit id


def is_tied(descending: Floats) -> bool:
    """Whether any two neighbours of a descending list are equal."""
    return len(descending) > 1 and bool((descending[1:] == descending[:-1]).any())


def best(scores: Floats, segments: Numbers, positions: Numbers, k: int, id_of: IdOf) -> Ranking:
    """The k best by (score descending, id ascending) of candidates in any order."""
    if len(scores) > k > 0:
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = scores >= cut  # keeps every unit tied with the last one
        scores, segments, positions = scores[chosen], segments[chosen], positions[chosen]
    order = np.argsort(-scores, kind="stable")
    scores, segments, positions = scores[order], segments[order], positions[order]
    if is_tied(scores):
        order = _by_id(scores, segments, positions, id_of)
        scores, segments, positions = scores[order], segments[order], positions[order]
    return Ranking(scores[:k], segments[:k], positions[:k])


def _by_id(scores: Floats, segments: Numbers, positions: Numbers, id_of: IdOf) -> NDArray[np.intp]:
    keys = [
        (-s, id_of(n, p))
        for s, n, p in zip(scores.tolist(), segments.tolist(), positions.tolist(), strict=True)
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.intp)
