"""One segment's token stream: every document's title and text, with a suffix array over all of it.

    … TITLE title tokens TITLE_END text tokens END TITLE …

One stream serves every level: a unit is a range of tokens. Bytes a token: 2 for the token (4 where the
vocabulary needs it), 4 for the suffix array, 2 for its first character and 1 for its length in characters,
about 2.5 for the table of bigrams, and a little for the boundaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.identifiers.tokenizer import MARKERS, StreamTokenizer, Tokens
from agentmtl.index.rows import LEVEL_NUMBER
from agentmtl.index.segment import Segment
from agentmtl.schema import LEVELS, Level

Numbers = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]

_WRAP = 1 << 16  # character offsets are stored modulo this
_DOCUMENT_BITS = 33  # a document's characters take the 32 bits below
_BODY = 1 << 32
_AT_ONCE = 256  # documents tokenised at a time


def build_arrays(segment: Segment, tokenizer: StreamTokenizer) -> dict[str, NDArray[Any]]:
    """Tokenise a segment's documents and sort their suffixes."""
    return arrays_of(tokenise(segment, tokenizer), segment, tokenizer)


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A segment's documents as tokens. `documents` (d,) where each begins, `bodies` (d,) where its text does;
    `starts` and `lengths` in characters of the title or of the text."""

    tokens: Numbers
    starts: Numbers
    lengths: Numbers
    documents: Numbers
    bodies: Numbers

    def keys(self) -> Numbers:
        """(n,) ascending: document, whether title or text, first character."""
        row = np.repeat(np.arange(len(self.documents)), np.diff(np.append(self.documents, len(self.tokens))))
        in_body = np.arange(len(self.tokens)) >= self.bodies[row]
        return (row << _DOCUMENT_BITS) + np.where(in_body, _BODY + self.starts, self.starts)


def tokenise(segment: Segment, tokenizer: StreamTokenizer) -> Tokenised:
    """Titles and texts in the order of their rows, with the markers in between."""
    tokens: list[Numbers] = []
    starts: list[Numbers] = []
    ends: list[Numbers] = []
    documents, bodies, at, last = [], [], 0, -1
    title, title_end, end = (np.array([m]) for m in (tokenizer.title, tokenizer.title_end, tokenizer.end))
    nothing = np.zeros(1, np.int64)
    sql = "SELECT row, title, text FROM documents WHERE row > ? ORDER BY row LIMIT ?"
    while rows := segment.rows.query(sql, [last, _AT_ONCE]):
        last = rows[-1][0]
        encoded = tokenizer.encode_batch([text for _, t, body in rows for text in (t, body)])
        for head, body in zip(encoded[::2], encoded[1::2], strict=True):
            parts: list[Tokens] = [
                (title, nothing, nothing), head, (title_end, _last(head[2]), _last(head[2])), body,
                (end, _last(body[2]), _last(body[2])),
            ]  # fmt: skip
            documents.append(at)
            bodies.append(at + len(head[0]) + 2)
            at += len(head[0]) + len(body[0]) + MARKERS
            for column, index in ((tokens, 0), (starts, 1), (ends, 2)):
                column += [part[index] for part in parts]
    joined = [np.concatenate(c) if c else np.empty(0, np.int64) for c in (tokens, starts, ends)]
    return Tokenised(
        joined[0], joined[1], joined[2] - joined[1], np.array(documents, np.int64), np.array(bodies, np.int64)
    )


def _last(ends: Numbers) -> Numbers:
    return ends[-1:] if len(ends) else np.zeros(1, np.int64)


def arrays_of(text: Tokenised, segment: Segment, tokenizer: StreamTokenizer) -> dict[str, NDArray[Any]]:
    """The arrays of a stream file: suffix array, bigram table, boundaries."""
    from pydivsufsort import divsufsort

    tokens = text.tokens.astype(tokenizer.dtype)
    suffixes = divsufsort(tokens).astype(np.int32) if len(tokens) else np.empty(0, np.int32)
    arrays: dict[str, NDArray[Any]] = {
        "tokens": tokens,
        "suffixes": suffixes,
        **_offsets(text),
        "documents": text.documents.astype(np.int32),
        "bodies": text.bodies.astype(np.int32),
        **_bigrams(tokens, suffixes, tokenizer.vocabulary + MARKERS),
    }
    for level in LEVELS:
        if level in segment.levels and level not in ("document", "entity"):
            arrays |= _boundaries(text, segment, level)
    return arrays


def _offsets(text: Tokenised) -> dict[str, NDArray[Any]]:
    """Character starts modulo 2¹⁶ unless a gap between two tokens is wider; lengths in a byte if they fit."""
    wide = bool((np.diff(text.starts) >= _WRAP).any())
    long = len(text.lengths) > 0 and int(text.lengths.max()) > 255
    return {
        "starts": text.starts.astype(np.uint32) if wide else (text.starts % _WRAP).astype(np.uint16),
        "lengths": text.lengths.astype(np.uint32 if long else np.uint8),
    }


def _bigrams(tokens: NDArray[Any], suffixes: NDArray[np.int32], size: int) -> dict[str, NDArray[Any]]:
    """The runs of equal first two tokens in suffix order: second token, first place; by first token."""
    first = tokens[suffixes]
    second = np.append(tokens, tokens[:1])[suffixes.astype(np.int64) + 1]  # nothing follows the last END
    change = np.ones(len(first), np.bool_)
    change[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    places = np.flatnonzero(change)
    starts = np.searchsorted(first[places], np.arange(size + 1)).astype(np.int32)
    return {
        "bigram_starts": starts,
        "bigram_tokens": second[places].astype(tokens.dtype),
        "bigram_places": places.astype(np.int32),
    }


def _boundaries(text: Tokenised, segment: Segment, level: Level) -> dict[str, NDArray[Any]]:
    """The token range of every unit, by its position: the tokens that begin inside its span."""
    sql = "SELECT doc, start, end FROM units WHERE level = ? ORDER BY pos"
    rows = np.array(segment.rows.query(sql, [LEVEL_NUMBER[level]]), np.int64).reshape(-1, 3)
    keys = text.keys()
    body = _BODY + (rows[:, 0] << _DOCUMENT_BITS)
    return {
        f"{level}_first": np.searchsorted(keys, body + rows[:, 1]).astype(np.int32),
        f"{level}_last": np.searchsorted(keys, body + rows[:, 2]).astype(np.int32),
    }


class Stream:
    """An opened stream of one segment; `dead` are its deleted document rows."""

    def __init__(self, arrays: Arrays, segment: Segment, dead: Numbers) -> None:
        self.segment = segment
        self.tokens = arrays["tokens"]
        self.suffixes = arrays["suffixes"]
        self.documents = arrays["documents"]
        self.bodies = arrays["bodies"]
        self.bigram_starts = arrays["bigram_starts"]
        self.bigram_tokens = arrays["bigram_tokens"]
        self.bigram_places = arrays["bigram_places"]
        self.end = len(self.bigram_starts) - 2  # the last of the markers
        self._arrays = arrays
        self.dead = dead

    def __len__(self) -> int:
        """Tokens, markers and deleted ones included."""
        return len(self.tokens)

    @cached_property
    def sizes(self) -> Numbers:
        """(d,): tokens of each document, markers included."""
        ends = np.append(self.documents[1:], len(self.tokens))[: len(self.documents)].astype(np.int64)
        return ends - self.documents

    @cached_property
    def live_before(self) -> NDArray[np.int32] | None:
        """(n + 1,): live suffixes before each place of the suffix array; None where nothing is deleted."""
        if not len(self.dead):
            return None
        alive = np.ones(len(self.documents), np.bool_)
        alive[self.dead] = False
        counts = np.zeros(len(self.tokens) + 1, np.int32)
        np.cumsum(np.repeat(alive, self.sizes)[self.suffixes], out=counts[1:])
        return counts

    def live(self, low: int, high: int) -> int:
        """Live suffixes in [low, high)."""
        before = self.live_before
        return high - low if before is None else int(before[high] - before[low])

    def range(self, ngram: NDArray[np.int64]) -> tuple[int, int]:
        """The places of the suffixes that begin with `ngram`, deleted ones included."""
        from agentmtl.index.identifiers.suffixes import find_range

        if not len(ngram):
            return 0, len(self.tokens)
        if (ngram[:-1] == self.end).any():  # nothing reaches from one document into the next
            return 0, 0
        token = int(ngram[0])
        if not 0 <= token < len(self.bigram_starts) - 1:
            return 0, 0
        first, last = int(self.bigram_starts[token]), int(self.bigram_starts[token + 1])
        if first == last:
            return 0, 0
        if len(ngram) == 1:
            return int(self.bigram_places[first]), self._run_end(last)
        run = first + int(np.searchsorted(self.bigram_tokens[first:last], ngram[1]))
        if run == last or self.bigram_tokens[run] != ngram[1]:
            return 0, 0
        low, high = int(self.bigram_places[run]), self._run_end(run + 1)
        if len(ngram) == 2:
            return low, high
        low, high = find_range(self.tokens, self.suffixes, low, high, ngram, 2)
        return int(low), int(high)

    def _run_end(self, run: int) -> int:
        return int(self.bigram_places[run]) if run < len(self.bigram_places) else len(self.suffixes)

    def next_runs(self, ngram: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], int]:
        """(tokens that follow `ngram`, ascending; where each one's run begins; where the last run ends).

        A run may hold deleted suffixes alone.
        """
        if len(ngram) > 1:
            found, starts, end = self._continuations(
                self.tokens, self.suffixes, self.bigram_starts, self.bigram_tokens, self.bigram_places, ngram
            )
            return found, starts, end
        if not len(ngram):
            used = np.flatnonzero(np.diff(self.bigram_starts))
            return used, self.bigram_places[self.bigram_starts[used]], len(self.suffixes)
        token = int(ngram[0])
        if not 0 <= token < self.end:
            return self.bigram_tokens[:0], self.bigram_places[:0], 0
        runs = slice(int(self.bigram_starts[token]), int(self.bigram_starts[token + 1]))
        return self.bigram_tokens[runs], self.bigram_places[runs], self._run_end(runs.stop)

    @cached_property
    def _continuations(self) -> Any:
        from agentmtl.index.identifiers.suffixes import continuations

        return continuations

    def positions(self, low: int, high: int) -> Numbers:
        """The live token positions of the suffixes in [low, high), ascending."""
        found = np.sort(self.suffixes[low:high].astype(np.int64))
        if not len(self.dead):
            return found
        owners = self.documents_of(found)
        return found[~np.isin(owners, self.dead)]

    def documents_of(self, positions: Numbers) -> Numbers:
        """(n,): the document row each position lies in."""
        return np.searchsorted(self.documents, positions, side="right") - 1

    def bounds(self, level: Level) -> tuple[Numbers, Numbers]:
        """(first, last) token of every unit of a level: the text part, half open. Empty where it has none."""
        if level not in self.segment.levels:  # a segment of demonstrations alone has no passages
            return np.empty(0, np.int64), np.empty(0, np.int64)
        if level == "document":
            ends = np.append(self.documents[1:], len(self.tokens)).astype(np.int64) - 1
            rows = np.asarray(self.segment.levels["document"].docs)
            return self.bodies[rows].astype(np.int64), ends[rows]
        return (
            self._arrays[f"{level}_first"].astype(np.int64),
            self._arrays[f"{level}_last"].astype(np.int64),
        )

    def characters(self, row: int) -> tuple[Numbers, Numbers]:
        """(starts, ends) in characters of a document's text tokens, END included."""
        body = int(self.bodies[row])
        end = int(self.documents[row]) + int(self.sizes[row])
        return self._spans(body, end)

    def span(self, position: int, length: int) -> tuple[int, int, int, bool]:
        """(document row, first and last character, whether in the title) of a run of tokens.

        In the title where any of it is; markers have no characters.
        """
        row = int(self.documents_of(np.array([position]))[0])
        body = int(self.bodies[row])
        in_title = position < body
        base = int(self.documents[row]) if in_title else body
        starts, ends = self._spans(base, position + length)
        inside = slice(position - base, None)
        marked = self.tokens[position : position + length] >= len(self.bigram_starts) - 1 - MARKERS
        real = np.flatnonzero(~marked)
        if not len(real):
            return row, int(starts[-1]), int(starts[-1]), in_title
        return row, int(starts[inside][real[0]]), int(ends[inside][real[-1]]), in_title

    def _spans(self, base: int, end: int) -> tuple[Numbers, Numbers]:
        """Characters of tokens [base, end), which begin a title or a text."""
        stored = self._arrays["starts"]
        starts = stored[base:end].astype(np.int64)
        if stored.dtype == np.uint16:
            starts[1:] += _WRAP * np.cumsum(np.diff(starts) < 0)
        return starts, starts + self._arrays["lengths"][base:end]
