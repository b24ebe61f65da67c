"""The greedy walk over a unit's keys, compiled. Imported only where identifiers are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
Value = Any  # a plain or a numpy number


@njit(cache=True, nogil=True)
def greedy_cover(
    rows: Array, units: Value, tokens: Array, lengths: Array, weights: Array, beta: Value
) -> tuple[Array, Array]:
    """(scores (units,), the share of its key's weight that each row brought). `rows` (m, 4): unit, key,
    segment, token; ordered by unit, and within it by key, the heaviest first. `tokens` (k, longest), padded;
    `lengths` (k,)."""
    scores = np.zeros(units)
    shares = np.zeros(len(rows))
    begin = 0
    while begin < len(rows):
        unit = rows[begin, 0]
        end = begin
        while end < len(rows) and rows[end, 0] == unit:
            end += 1
        taken = np.empty((end - begin, 2), np.int64)  # spans of text
        seen = np.empty((end - begin) * tokens.shape[1], np.int64)  # the set C
        spans, size, last_key = 0, 0, -1
        for i in range(begin, end):
            key, at = rows[i, 1], rows[i, 3]
            if key == last_key:
                continue
            free = True
            for s in range(spans):
                if at < taken[s, 1] and taken[s, 0] < at + lengths[key]:
                    free = False
                    break
            if not free:
                continue
            last_key = key
            fresh, distinct, base = 0, 0, size
            for j in range(lengths[key]):
                token = tokens[key, j]
                repeated = False
                for h in range(j):
                    if tokens[key, h] == token:
                        repeated = True
                        break
                if repeated:
                    continue
                distinct += 1
                known = False
                for h in range(base):
                    if seen[h] == token:
                        known = True
                        break
                if not known:
                    fresh += 1
                    seen[size] = token
                    size += 1
            shares[i] = 1.0 - beta + beta * fresh / distinct
            scores[unit] += shares[i] * weights[key]
            taken[spans, 0], taken[spans, 1] = at, at + lengths[key]
            spans += 1
        begin = end
    return scores, shares
