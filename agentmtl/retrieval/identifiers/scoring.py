"""Scores of units by the keys in them: SEAL's (arXiv 2204.10628, section 3.3), at any level.

With N live tokens, F(n) the count of a key, smoothing 5 and α = 2:

    P(n)    = (F(n) + 5) / (N + 5)
    w(n, q) = max(0, ln P(n|q) + ln(1 − P(n)) − ln P(n) − ln(1 − P(n|q)))^α        (α = 1 for one token)
    score   = Σ over the unit's keys, heaviest first, of cover(n | C) · w(n, q)
    cover   = 1 − β + β · |set(n) \\ C| / |set(n)|,   C = the tokens of the keys counted so far, β = .8

An occurrence counts where its text is not covered by a heavier key's yet, and each key once a unit. Keys of
at most 1,500 occurrences name candidates; more frequent ones only score those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.identifiers import Ngrams
from agentmtl.index.snapshot import Address
from agentmtl.retrieval.identifiers.keys import Key
from agentmtl.retrieval.masks import Allowed
from agentmtl.schema import Level

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]

_LEAST_P, _MOST_P = 1e-12, 1.0 - 1e-6  # so that the logarithms are finite


@dataclass(frozen=True, slots=True)
class Scoring:
    """SEAL's settings. `candidates` units are scored by all keys."""

    smoothing: float = 5.0
    alpha: float = 2.0
    beta: float = 0.8
    rare: int = 1_500  # occurrences of a key that may name candidates
    skipped: int = 10_000_000  # keys with more occurrences are left out
    candidates: int = 1_500


@dataclass(frozen=True, slots=True)
class Matches:
    """Occurrences that counted, for every scored unit. Rows are ordered by unit and then by weight.

    `units` (m, 2) segment and position; `keys` (m,) index `used`; `places` (m, 2) segment and token.
    """

    used: tuple[Key, ...]
    counts: Numbers
    weights: Floats
    units: Numbers
    keys: Numbers
    places: Numbers


@dataclass(frozen=True, slots=True)
class Scored:
    """(n,) segments, positions and scores of units, in no order."""

    segments: Numbers
    positions: Numbers
    scores: Floats
    matches: Matches


def key_weights(keys: Sequence[Key], counts: Numbers, tokens: int, settings: Scoring) -> Floats:
    """w(n, q) of every key; 0 where it does not occur."""
    present = (counts + settings.smoothing) / (tokens + settings.smoothing)
    present = np.clip(present, _LEAST_P, _MOST_P)
    wanted = np.clip(np.exp([key.logp for key in keys]), _LEAST_P, _MOST_P)
    odds = np.log(wanted) + np.log1p(-present) - np.log(present) - np.log1p(-wanted)
    power = np.where([len(key.tokens) > 1 for key in keys], settings.alpha, 1.0)
    return np.where(counts > 0, np.maximum(odds, 0.0) ** power, 0.0)


def score_units(
    ngrams: Ngrams,
    keys: Sequence[Key],
    level: Level,
    settings: Scoring,
    allowed: Mapping[int, Allowed] | None = None,
    only: Sequence[Address] | None = None,
) -> Scored:
    """Score the units of `level` that hold a rare key; of `only` these, those that hold any. The order of
    the keys does not matter."""
    keys = _best_of_equal(keys)
    counts = ngrams.counts([key.tokens for key in keys])
    weights = key_weights(keys, counts, ngrams.tokens, settings)
    order = sorted(range(len(keys)), key=lambda i: (-weights[i], keys[i].tokens))
    order = [i for i in order if weights[i] > 0 and counts[i] <= settings.skipped]
    used = tuple(keys[i] for i in order)
    counts, weights = counts[order], weights[order]
    rare = counts <= (settings.rare if only is None else settings.skipped)
    asked = None if only is None else np.array(only, np.int64).reshape(-1, 2)
    events = _events(ngrams, used, np.flatnonzero(rare), level, allowed, asked)
    if not len(events.rows):
        return _nothing(used, counts, weights)
    scores, counted = _greedy(events, used, weights, settings)
    if not rare.all():
        chosen = _best(events.addresses, scores, settings.candidates)
        events = _events(ngrams, used, np.arange(len(used)), level, allowed, chosen)
        scores, counted = _greedy(events, used, weights, settings)
    matched = events.rows[counted]
    matches = Matches(used, counts, weights, events.addresses[matched[:, 0]], matched[:, 1], matched[:, 2:])
    return Scored(events.addresses[:, 0], events.addresses[:, 1], scores, matches)


def _best_of_equal(keys: Sequence[Key]) -> list[Key]:
    likeliest: dict[tuple[int, ...], Key] = {}
    for key in keys:
        held = likeliest.get(key.tokens)
        if key.tokens and (held is None or held.logp < key.logp):
            likeliest[key.tokens] = key
    return list(likeliest.values())


@dataclass(frozen=True, slots=True)
class _Events:
    """`addresses` (u, 2) of the units; `rows` (m, 4): unit row, key, segment and token of an occurrence,
    ordered by unit, key, token."""

    addresses: Numbers
    rows: Numbers


def _events(
    ngrams: Ngrams,
    keys: Sequence[Key],
    which: Numbers,
    level: Level,
    allowed: Mapping[int, Allowed] | None,
    only: Numbers | None = None,
) -> _Events:
    """The occurrences of the keys `which` in units; of `only` (c, 2) these units where given."""
    key_of, segments, positions, lengths = _occurrences(ngrams, keys, which)
    index, unit_segments, units = ngrams.units_of(level, segments, positions, lengths)
    addresses = np.stack([unit_segments, units], axis=1) if len(index) else np.empty((0, 2), np.int64)
    kept = np.ones(len(index), np.bool_)
    for number, admitted in (allowed or {}).items():
        mine = unit_segments == number
        kept[mine] = admitted.mask[units[mine]]
    if only is not None:
        kept &= np.isin(_packed(addresses), _packed(only))
    index, addresses = index[kept], addresses[kept]
    distinct, row = np.unique(_packed(addresses), return_inverse=True)
    rows = np.stack([row, key_of[index], segments[index], positions[index]], axis=1)
    rows = rows[np.lexsort((rows[:, 3], rows[:, 1], rows[:, 0]))]
    return _Events(np.stack([distinct >> 32, distinct & 0xFFFFFFFF], axis=1), rows)


def _packed(addresses: Numbers) -> Numbers:
    packed: Numbers = (addresses[:, 0] << 32) + addresses[:, 1]
    return packed


def _occurrences(
    ngrams: Ngrams, keys: Sequence[Key], which: Numbers
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    found = [ngrams.occurrences(keys[i].tokens) for i in which.tolist()]
    sizes = [len(segments) for segments, _ in found]
    empty = np.empty(0, np.int64)
    return (
        np.repeat(which, sizes),
        np.concatenate([s for s, _ in found]) if found else empty,
        np.concatenate([p for _, p in found]) if found else empty,
        np.repeat(np.array([len(keys[i].tokens) for i in which.tolist()], np.int64), sizes),
    )


def _best(addresses: Numbers, scores: Floats, count: int) -> Numbers:
    if len(scores) <= count:
        return addresses
    cut = np.partition(scores, len(scores) - count)[len(scores) - count]
    tied: Numbers = addresses[scores >= cut]
    return tied  # the whole tie at the cut


def _greedy(
    events: _Events, keys: Sequence[Key], weights: Floats, settings: Scoring
) -> tuple[Floats, NDArray[np.bool_]]:
    """(score of every unit, which rows counted)."""
    from agentmtl.retrieval.identifiers.kernel import greedy_cover

    longest = max(len(key.tokens) for key in keys)
    tokens = np.full((len(keys), longest), -1, np.int64)
    for row, key in zip(tokens, keys, strict=True):
        row[: len(key.tokens)] = key.tokens
    lengths = np.array([len(key.tokens) for key in keys], np.int64)
    scores, shares = greedy_cover(events.rows, len(events.addresses), tokens, lengths, weights, settings.beta)
    return scores, shares > 0


def _nothing(used: tuple[Key, ...], counts: Numbers, weights: Floats) -> Scored:
    empty, pairs = np.empty(0, np.int64), np.empty((0, 2), np.int64)
    return Scored(empty, empty, np.empty(0), Matches(used, counts, weights, pairs, empty, pairs))
