"""Kernels over a suffix array: where a prefix stands, and which tokens follow it.

A suffix array (Manber & Myers, SIAM J. Computing 22(5), 1993) lists the positions of a token sequence in the
order of the suffixes that begin there, so that all occurrences of an n-gram are neighbours. Imported only
where identifiers are used: numba compiles at first use and keeps the result in its cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
Int = Any  # a plain or a numpy integer


@njit(cache=True, nogil=True)
def _bound(tokens: Array, suffixes: Array, low: Int, high: Int, depth: Int, token: Int, upper: bool) -> Int:
    """First place in [low, high) whose token at `depth` is ≥ `token` (`upper`: > `token`).

    All suffixes in [low, high) share their first `depth` tokens; one that ends there sorts first.
    """
    size = len(tokens)
    while low < high:
        middle = (low + high) >> 1
        at = np.int64(suffixes[middle]) + depth
        found = np.int64(tokens[at]) if at < size else np.int64(-1)
        if found < token or (upper and found == token):
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def find_range(
    tokens: Array, suffixes: Array, low: Int, high: Int, ngram: Array, depth: Int
) -> tuple[Int, Int]:
    """The places of the suffixes that go on with `ngram[depth:]`, of those in [low, high)."""
    for i in range(depth, len(ngram)):
        if low >= high:
            return low, low
        low = _bound(tokens, suffixes, low, high, i, ngram[i], False)
        high = _bound(tokens, suffixes, low, high, i, ngram[i], True)
    return low, high


@njit(cache=True, nogil=True)
def next_runs(tokens: Array, suffixes: Array, low: Int, high: Int, depth: Int) -> tuple[Array, Array]:
    """(distinct tokens at `depth` ascending, place where each one's run begins), galloping over the runs."""
    size = len(tokens)
    room = 16
    found = np.empty(room, np.int64)
    starts = np.empty(room, np.int64)
    count = 0
    while low < high:
        at = np.int64(suffixes[low]) + depth
        token = np.int64(tokens[at]) if at < size else np.int64(-1)
        if count == room:
            room *= 4
            more, places = np.empty(room, np.int64), np.empty(room, np.int64)
            more[:count], places[:count] = found[:count], starts[:count]
            found, starts = more, places
        found[count], starts[count] = token, low
        count += 1
        step, edge = 1, low + 1
        while edge < high:
            at = np.int64(suffixes[edge]) + depth
            here = np.int64(tokens[at]) if at < size else np.int64(-1)
            if here != token:
                break
            low = edge
            step *= 2
            edge = low + step
        low = _bound(tokens, suffixes, low + 1, min(edge, high), depth, token, True)
    return found[:count], starts[:count]


@njit(cache=True, nogil=True)
def continuations(
    tokens: Array, suffixes: Array, runs: Array, seconds: Array, places: Array, prefix: Array
) -> tuple[Array, Array, Int]:
    """`next_runs` of a prefix of two tokens or more, in one call: (tokens, places, end of the last run).

    `runs` (v + 1,), `seconds` and `places` (b,): the table of bigrams. `v − 1` ends a document.
    """
    nothing = np.empty(0, np.int64)
    size = len(prefix)
    last = len(runs) - 2
    for i in range(size):
        if prefix[i] < 0 or prefix[i] >= last:  # ends a document, or is no token
            return nothing, nothing, 0
    first, stop = runs[prefix[0]], runs[prefix[0] + 1]
    low, high = np.int64(first), np.int64(stop)
    while low < high:
        middle = (low + high) >> 1
        if seconds[middle] < prefix[1]:
            low = middle + 1
        else:
            high = middle
    if low == stop or seconds[low] != prefix[1]:
        return nothing, nothing, 0
    begin = np.int64(places[low])
    end = np.int64(places[low + 1]) if low + 1 < len(places) else np.int64(len(suffixes))
    if size > 2:
        begin, end = find_range(tokens, suffixes, begin, end, prefix, 2)
    found, starts = next_runs(tokens, suffixes, begin, end, size)
    return found, starts, end


@njit(cache=True, nogil=True)
def distinct(values: Array) -> Array:
    """The distinct values, ascending."""
    values.sort()
    count = 0
    for i in range(len(values)):
        if i == 0 or values[i] != values[i - 1]:
            values[count] = values[i]
            count += 1
    return values[:count]
