"""Lexical postings of one level of one segment, in compressed sparse column form.

Stored as safetensors (no pickle, mapped from disk): for every word, in the order of its UTF-8 bytes, the
units that hold it and how often. Scores are computed at query time from statistics over the *live* units
of all segments, so that they do not depend on how the index came about.

BM25 as in Lucene 8+: idf = ln(1 + (N − df + ½)/(df + ½)), tf part = tf / (tf + k1·(1 − b + b·|d|/avg|d|)).
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.files import FileEntry, map_file, write_file
from agentmtl.index.tokens import words

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Postings:
    """Word i is `vocabulary[offsets[i]:offsets[i+1]]`; its units are `units[starts[i]:starts[i+1]]`
    (ascending positions) with `counts` beside them. `lengths[p]` is the number of words of unit p."""

    vocabulary: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    starts: NDArray[np.int64]
    units: Ints
    counts: Ints
    lengths: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def word(self, i: int) -> bytes:
        return self.vocabulary[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def find(self, word: str) -> slice:
        """Where the postings of `word` lie; an empty slice when it does not occur."""
        key = word.encode()
        i = bisect_left(_Words(self), key)
        if i == len(self) or self.word(i) != key:
            return slice(0, 0)
        return slice(int(self.starts[i]), int(self.starts[i + 1]))


class _Words(Sequence[bytes]):
    """The vocabulary as a sequence, for bisect."""

    def __init__(self, postings: Postings) -> None:
        self._postings = postings

    def __len__(self) -> int:
        return len(self._postings)

    def __getitem__(self, i: Any) -> Any:
        return self._postings.word(i)


def build_postings(texts: Iterable[str]) -> Postings:
    """Count the words of every text; text p becomes unit p."""
    ids: dict[str, int] = {}
    rows: list[NDArray[np.int32]] = []
    for text in texts:
        rows.append(np.fromiter((ids.setdefault(w, len(ids)) for w in words(text)), np.int32))
    lengths = np.fromiter((len(row) for row in rows), np.int32, len(rows))
    unit = np.repeat(np.arange(len(rows), dtype=np.int64), lengths)
    word = np.concatenate(rows).astype(np.int64) if rows else np.empty(0, np.int64)
    spelt = sorted((w.encode(), i) for w, i in ids.items())
    rank = np.empty(len(ids), np.int64)
    rank[[i for _, i in spelt]] = np.arange(len(ids))
    pairs, counts = np.unique(rank[word] * max(len(rows), 1) + unit, return_counts=True)
    columns, units = np.divmod(pairs, max(len(rows), 1))
    return _assemble([w for w, _ in spelt], columns, units, counts, lengths)


def _assemble(
    spelt: Sequence[bytes], columns: NDArray[Any], units: NDArray[Any], counts: NDArray[Any], lengths: Ints
) -> Postings:
    """`columns` (word numbers) ascending, `units` ascending within each."""
    offsets = np.zeros(len(spelt) + 1, np.int64)
    np.cumsum([len(w) for w in spelt], out=offsets[1:])
    starts = np.zeros(len(spelt) + 1, np.int64)
    np.cumsum(np.bincount(columns, minlength=len(spelt)), out=starts[1:])
    vocabulary = np.frombuffer(b"".join(spelt), np.uint8)
    return Postings(vocabulary, offsets, starts, units.astype(np.int32), counts.astype(np.int32), lengths)


def merge_postings(parts: Sequence[tuple[Postings, Ints]]) -> Postings:
    """One `Postings` of several, keeping for each part the positions given (ascending), in that order."""
    spelt = sorted({part.word(i) for part, _ in parts for i in range(len(part))})
    columns, units, counts, lengths, base = [], [], [], [], 0
    for part, keep in parts:
        renumber = np.full(len(part.lengths), -1, np.int64)
        renumber[keep] = np.arange(base, base + len(keep))
        mine = np.searchsorted(np.array(spelt, object), [part.word(i) for i in range(len(part))])
        column = np.repeat(mine.astype(np.int64), np.diff(part.starts))
        alive = renumber[part.units] >= 0
        columns.append(column[alive])
        units.append(renumber[part.units][alive])
        counts.append(np.asarray(part.counts)[alive])
        lengths.append(np.asarray(part.lengths)[keep])
        base += len(keep)
    column, unit, count = np.concatenate(columns), np.concatenate(units), np.concatenate(counts)
    order = np.lexsort((unit, column))
    used, column = np.unique(column[order], return_inverse=True)
    return _assemble([spelt[i] for i in used], column, unit[order], count[order], np.concatenate(lengths))


_FIELDS = ("vocabulary", "offsets", "starts", "units", "counts", "lengths")
_DTYPES = {
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64,
}  # fmt: skip


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> FileEntry:
    """Write named arrays as a safetensors file, streamed (no second copy in memory)."""
    names = {np.dtype(t): n for n, t in _DTYPES.items()}
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))  # keeps them aligned
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return write_file(path, _blocks(struct.pack("<Q", len(text)) + text, arrays.values()))


def _blocks(head: bytes, arrays: Iterable[NDArray[Any]]) -> Iterator[bytes | memoryview]:
    yield head
    for array in arrays:
        if array.nbytes:
            yield np.ascontiguousarray(array).data.cast("B")


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Map a safetensors file; the arrays are read-only views, nothing is loaded."""
    raw = map_file(path)
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(bytes(raw[8 : 8 + length]))
    found: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        data = raw[8 + length + start : 8 + length + end]
        found[name] = np.frombuffer(data, _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def postings_arrays(postings: Postings) -> dict[str, NDArray[Any]]:
    return {name: getattr(postings, name) for name in _FIELDS}


def postings_from(arrays: dict[str, NDArray[Any]]) -> Postings:
    return Postings(*(arrays[name] for name in _FIELDS))
