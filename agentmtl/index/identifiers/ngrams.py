"""What the live texts of a snapshot hold: counts and continuations of n-grams, merged over its segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.identifiers.storage import open_streams, stored_tokenizer, stream_name
from agentmtl.index.identifiers.stream import Numbers, Stream
from agentmtl.index.identifiers.tokenizer import MARKERS, StreamTokenizer
from agentmtl.index.snapshot import Snapshot
from agentmtl.ingest import unit_id
from agentmtl.ingest.entities import title_names
from agentmtl.schema import Level

_EMPTY = np.empty(0, np.int64)

_lock = Lock()


def ngrams_of(snapshot: Snapshot, stream: str | None = None) -> Ngrams:
    """The n-grams of a generation, opened at first use. `stream` is a tokeniser's identity; None: the
    default tokeniser's, or the only one.

    Raises UsageError where the index has no such stream, IndexDamagedError.
    """
    name = stream_name(snapshot, stream)
    with _lock:
        key = f"ngrams {name}"
        if key not in snapshot.derived:
            streams = open_streams(snapshot, name)
            snapshot.derived[key] = Ngrams(stored_tokenizer(snapshot, name), streams, snapshot)
        opened: Ngrams = snapshot.derived[key]
        return opened


class Ngrams:
    """n-grams are sequences of token ids. All counts are of live documents alone, titles included.

    A title stands between the markers `tokenizer.title` and `tokenizer.title_end`, a text before
    `tokenizer.end`; a key never crosses them.
    """

    def __init__(self, tokenizer: StreamTokenizer, streams: Mapping[int, Stream], snapshot: Snapshot) -> None:
        self.tokenizer = tokenizer
        self._streams = dict(streams)
        self._snapshot = snapshot

    @cached_property
    def tokens(self) -> int:
        """Live tokens, markers not counted."""
        total = 0
        for stream in self._streams.values():
            gone = int(stream.sizes[stream.dead].sum())
            total += len(stream) - gone - MARKERS * (len(stream.documents) - len(stream.dead))
        return total

    def count(self, ngram: Sequence[int]) -> int:
        """Live occurrences."""
        wanted = np.asarray(ngram, np.int64)
        return sum(stream.live(*stream.range(wanted)) for stream in self._streams.values())

    def counts(self, ngrams: Sequence[Sequence[int]]) -> Numbers:
        """(n,): live occurrences of each."""
        return np.array([self.count(ngram) for ngram in ngrams], np.int64)

    def next_tokens(self, prefix: Sequence[int]) -> NDArray[np.integer]:
        """The distinct tokens that follow a live occurrence of `prefix`, ascending, markers included."""
        wanted = np.array(prefix, np.int64)
        if self._dead:
            return self.next_distribution(prefix)[0]
        if len(self._streams) == 1:
            return next(iter(self._streams.values())).next_runs(wanted)[0]  # nothing is counted
        if len(wanted) == 1:
            return self._after_one(int(wanted[0]))
        from agentmtl.index.identifiers.suffixes import distinct

        every = [stream.next_runs(wanted)[0] for stream in self._streams.values()]
        found: NDArray[np.integer] = distinct(np.concatenate(every)) if every else _EMPTY
        return found

    def _after_one(self, token: int) -> Numbers:
        """What follows one token, over all segments; remembered, since decoding asks for it most."""
        known = self._followers.get(token)
        if known is None:
            known = self._followers[token] = self.next_distribution([token])[0]
        return known

    @cached_property
    def _followers(self) -> dict[int, Numbers]:
        return {}

    @cached_property
    def _dead(self) -> bool:
        return any(len(stream.dead) for stream in self._streams.values())

    def next_distribution(self, prefix: Sequence[int]) -> tuple[Numbers, Numbers]:
        """(distinct tokens that follow, ascending; how often each does)."""
        wanted = np.asarray(prefix, np.int64)
        parts = [_continuations(stream, wanted) for stream in self._streams.values()]
        parts = [part for part in parts if len(part[0])]
        if not parts:
            return _EMPTY, _EMPTY
        if len(parts) == 1:
            return parts[0]
        every = np.concatenate([tokens for tokens, _ in parts])
        tokens, which = np.unique(every, return_inverse=True)
        counts = np.bincount(which, np.concatenate([counts for _, counts in parts]), minlength=len(tokens))
        return tokens, counts.astype(np.int64)

    def occurrences(self, ngram: Sequence[int], limit: int | None = None) -> tuple[Numbers, Numbers]:
        """(segment numbers, token positions) of live occurrences, in order; the first `limit` of them."""
        wanted = np.asarray(ngram, np.int64)
        segments, positions = [_EMPTY], [_EMPTY]
        for number, stream in self._streams.items():
            found = stream.positions(*stream.range(wanted))
            segments.append(np.full(len(found), number, np.int64))
            positions.append(found)
        return np.concatenate(segments)[:limit], np.concatenate(positions)[:limit]

    def units_of(
        self, level: Level, segments: Numbers, positions: Numbers, lengths: Numbers | int
    ) -> tuple[Numbers, Numbers, Numbers]:
        """The units that hold occurrences of n-grams: (index of the occurrence, segment, unit position).

        An occurrence that is not wholly inside a unit gives nothing; inside two overlapping passages, two
        rows. One in a title belongs to the document and its passages; at level entity, to the names that
        are the title.
        """
        sizes = np.broadcast_to(np.asarray(lengths, np.int64), positions.shape)
        found: list[tuple[Numbers, Numbers, Numbers]] = []
        for number in np.unique(segments).tolist():
            mine = np.flatnonzero(segments == number)
            table = self._table(number, level)
            index, unit_segments, units = table.holders(positions[mine], sizes[mine])
            found.append((mine[index], unit_segments, units))
        if not found:
            return _EMPTY, _EMPTY, _EMPTY
        index, numbers, units = (np.concatenate(column) for column in zip(*found, strict=True))
        return index, numbers, units

    def span(self, segment: int, position: int, length: int) -> tuple[int, int, int, bool]:
        """(document row, first character, last character, whether in the title) of an occurrence."""
        return self._streams[segment].span(position, length)

    def unit_tokens(self, level: Level, segment: int, position: int) -> NDArray[np.integer]:
        """The tokens of a unit's text, without the title."""
        first, last = self._table(segment, level).bounds
        tokens: NDArray[np.integer] = self._streams[segment].tokens[first[position] : last[position]]
        return tokens

    def _table(self, number: int, level: Level) -> _Table:
        tables = self._tables
        if (number, level) not in tables:
            tables[number, level] = (
                self._entity_table(number)
                if level == "entity"
                else _unit_table(self._streams[number], number, level)
            )
        return tables[number, level]

    @cached_property
    def _tables(self) -> dict[tuple[int, Level], _Table]:
        return {}

    def _entity_table(self, number: int) -> _Table:
        """The mentions of a segment's passages as token ranges, and titles as names; made at first use."""
        stream = self._streams[number]
        names = _titles_as_names(stream)
        ranges = [*_mention_ranges(stream), *names]
        live = self._snapshot.locate(list({entity.hex() for entity, _, _ in ranges}))
        kept = [(first, last, live[e.hex()][1]) for e, first, last in ranges if e.hex() in live]
        kept.sort()
        table = np.array([(a, b, n, p) for a, b, (n, p) in kept], np.int64).reshape(-1, 4)
        return _Table(table[:, 0], table[:, 1], table[:, 2], table[:, 3], None)


def _continuations(stream: Stream, prefix: Numbers) -> tuple[Numbers, Numbers]:
    tokens, starts, end = stream.next_runs(prefix)
    edges = np.append(starts, end).astype(np.int64)
    before = stream.live_before
    counts = np.diff(edges if before is None else before[edges]).astype(np.int64)
    kept = counts > 0
    return tokens[kept].astype(np.int64), counts[kept]


class _Table:
    """Units as ranges of tokens, ordered by first token. `titles`: (first, last, unit) ranges of titles."""

    def __init__(
        self,
        first: Numbers,
        last: Numbers,
        segments: Numbers,
        units: Numbers,
        bounds: tuple[Numbers, Numbers] | None,
    ) -> None:
        self._first, self._last = first, last
        self._segments, self._units = segments, units
        self._reach = np.maximum.accumulate(last) if len(last) else last
        self.bounds = bounds or (first, last)

    def holders(self, positions: Numbers, lengths: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """(index of the occurrence, segment of the unit, unit) for every range that holds an occurrence."""
        # ranges that may hold a position lie between the first that reaches it and the last that begins by it
        low = np.searchsorted(self._reach, positions, side="right")
        high = np.searchsorted(self._first, positions, side="right")
        sizes = np.maximum(high - low, 0)
        index = np.repeat(np.arange(len(positions)), sizes)
        row = np.arange(len(index)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(low, sizes)
        inside = self._last[row] >= (positions + lengths)[index]
        return index[inside], self._segments[row[inside]], self._units[row[inside]]


def _unit_table(stream: Stream, number: int, level: Level) -> _Table:
    first, last = stream.bounds(level)
    units = np.arange(len(first))
    ranges = [(first, last, units)]
    if len(first) and level in ("document", "passage"):  # a title is a key of the document and its passages
        rows = np.asarray(stream.segment.levels[level].docs).astype(np.int64)
        ranges.append((stream.documents[rows].astype(np.int64), stream.bodies[rows].astype(np.int64), units))
    begin, end, owner = (np.concatenate(column) for column in zip(*ranges, strict=True))
    order = np.lexsort((end, begin))
    return _Table(
        begin[order], end[order], np.full(len(owner), number, np.int64), owner[order], (first, last)
    )


def _titles_as_names(stream: Stream) -> list[tuple[bytes, int, int]]:
    sql = "SELECT row, title FROM documents WHERE title != ''"
    found = []
    for row, title in stream.segment.rows.query(sql):
        first, last = int(stream.documents[row]), int(stream.bodies[row])
        for name in title_names(title):
            found.append((bytes.fromhex(unit_id("entity", "", 0, 0, name)), first, last))
    return found


def _mention_ranges(stream: Stream) -> list[tuple[bytes, int, int]]:
    """(entity, first token, last token) of the mentions in live passages that stand in the text."""
    sql = """SELECT m.entity, u.doc, m.start, m.end FROM mentions m
             JOIN units u ON u.level = 1 AND u.pos = m.passage WHERE m.end > m.start ORDER BY u.doc"""
    found: list[tuple[bytes, int, int]] = []
    row, starts, ends = -1, _EMPTY, _EMPTY
    for entity, doc, start, end in stream.segment.rows.query(sql):
        if doc != row:
            row = doc
            starts, ends = stream.characters(doc)
        base = int(stream.bodies[doc])
        last = int(np.searchsorted(starts, end)) - (1 if len(starts) and end >= int(ends[-1]) else 0)
        found.append((entity, base + int(np.searchsorted(starts, start)), base + last))
    return list(dict.fromkeys(found))
