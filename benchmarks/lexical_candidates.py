"""The lexical engines that `lexical_engines.py` compares, each behind the same four calls.

BM25 with k1 = 1.2 and b = 0.75 throughout (tantivy and FTS5 fix these). tantivy and FTS5 multiply each weight
by k1 + 1; it is divided out. Where an engine takes no token lists it gets the tokens joined by blanks and a
tokeniser that cuts at the blanks only, so all see the same tokens.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

K1, B = 1.2, 0.75

Tokens: TypeAlias = list[str]
Hits: TypeAlias = list[tuple[int, float]]  # (passage number, score), best first


@dataclass(frozen=True)
class Part:
    """Passages of one segment: their numbers and tokens, in step."""

    numbers: list[int]
    tokens: list[Tokens]

    def where(self, keep: Callable[[int], bool]) -> Part:
        rows = [i for i, number in enumerate(self.numbers) if keep(number)]
        return Part([self.numbers[i] for i in rows], [self.tokens[i] for i in rows])

    def split(self, pieces: int) -> list[Part]:
        edges = [len(self.numbers) * i // pieces for i in range(pieces + 1)]
        spans = zip(edges, edges[1:], strict=False)
        return [Part(self.numbers[a:b], self.tokens[a:b]) for a, b in spans]


class Engine(Protocol):
    """`build` writes one segment a part, in the engine's own way; `open` reads the folder back."""

    def build(self, folder: Path, parts: Sequence[Part]) -> None: ...
    def open(self, folder: Path) -> None: ...
    def search(self, query: Tokens, k: int) -> Hits: ...
    def delete(self, removed: Part) -> None: ...


def best(hits: Hits, k: int) -> Hits:
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


@dataclass
class Bm25s:
    """Scores are fixed when the index is built: a segment, and a deletion, keep the statistics of then."""

    backend: str = "numpy"
    indexes: list[Any] = field(default_factory=list)
    numbers: list[NDArray[np.int64]] = field(default_factory=list)
    masks: list[NDArray[np.float32] | None] = field(default_factory=list)

    def build(self, folder: Path, parts: Sequence[Part]) -> None:
        import bm25s

        for i, part in enumerate(parts):
            index = bm25s.BM25(k1=K1, b=B, method="lucene", backend=self.backend)
            index.index(part.tokens, show_progress=False)
            index.save(folder / f"s{i}", show_progress=False)
            np.save(folder / f"s{i}" / "numbers.npy", np.asarray(part.numbers))

    def open(self, folder: Path) -> None:
        import bm25s

        paths = sorted(folder.glob("s*"))
        self.indexes = [bm25s.BM25.load(path, mmap=True) for path in paths]
        for index in self.indexes:
            index.backend = self.backend
        self.numbers = [np.load(path / "numbers.npy") for path in paths]
        self.masks = [None] * len(paths)

    def search(self, query: Tokens, k: int) -> Hits:
        hits: Hits = []
        for index, numbers, mask in zip(self.indexes, self.numbers, self.masks, strict=True):
            documents, scores = index.retrieve(
                [query], k=min(k, len(numbers)), show_progress=False, weight_mask=mask
            )
            hits += zip(numbers[documents[0]].tolist(), scores[0].tolist(), strict=True)
        return best(hits, k)

    def delete(self, removed: Part) -> None:
        self.masks = [(~np.isin(n, removed.numbers)).astype(np.float32) for n in self.numbers]


@dataclass
class Tantivy:
    """Joined tokens and a white-space tokeniser. Passage lengths are kept in one byte, so rounded."""

    index: Any = None
    searcher: Any = None
    schema: Any = None

    def _schema(self) -> Any:
        import tantivy

        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("number", indexed=True, fast=True)
        builder.add_text_field("text", stored=False, tokenizer_name="joined", index_option="freq")
        return builder.build()

    def _register(self) -> None:
        import tantivy

        joined = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
        self.index.register_tokenizer("joined", joined)

    def build(self, folder: Path, parts: Sequence[Part]) -> None:
        import tantivy

        self.index = tantivy.Index(self._schema(), path=str(folder))
        self._register()
        writer = self.index.writer(heap_size=256_000_000, num_threads=1)
        for part in parts:
            for number, tokens in zip(part.numbers, part.tokens, strict=True):
                document = tantivy.Document()
                document.add_unsigned("number", number)  # the constructor would make it a signed integer
                document.add_text("text", " ".join(tokens))
                writer.add_document(document)
            writer.commit()
        writer.wait_merging_threads()

    def open(self, folder: Path) -> None:
        import tantivy

        self.index = tantivy.Index.open(str(folder))
        self._register()
        self.schema, self.searcher = self.index.schema, self.index.searcher()

    def search(self, query: Tokens, k: int) -> Hits:
        import tantivy

        term, should = tantivy.Query.term_query, tantivy.Occur.Should
        clauses = [(should, term(self.schema, "text", token, "freq")) for token in query]
        hits = self.searcher.search(tantivy.Query.boolean_query(clauses), k, count=False).hits
        numbers = self.searcher.fast_field_values("number", [address for _, address in hits])
        return [(int(n), score / (K1 + 1)) for n, (score, _) in zip(numbers, hits, strict=True)]

    def delete(self, removed: Part) -> None:
        import tantivy

        writer = self.index.writer(heap_size=256_000_000, num_threads=1)
        for number in removed.numbers:
            # `delete_documents_by_term` makes a signed term of an int and deletes nothing, without an error.
            writer.delete_documents_by_query(tantivy.Query.term_query(self.schema, "number", number))
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()
        self.searcher = self.index.searcher()


@dataclass
class Fts5:
    """A table without the texts. Its ascii tokeniser cuts the joined tokens at the blanks only."""

    connection: sqlite3.Connection | None = None

    def build(self, folder: Path, parts: Sequence[Part]) -> None:
        connection = sqlite3.connect(folder / "fts.sqlite")
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='ascii')")
        for part in parts:
            rows = zip(part.numbers, (" ".join(tokens) for tokens in part.tokens), strict=True)
            connection.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", rows)
            connection.commit()
        if len(parts) == 1:
            connection.execute("INSERT INTO words(words) VALUES ('optimize')")
            connection.commit()
        connection.close()

    def open(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "fts.sqlite")
        self.connection.execute("PRAGMA mmap_size = 1073741824")

    def search(self, query: Tokens, k: int) -> Hits:
        assert self.connection is not None
        match = " OR ".join(f'"{token}"' for token in query)
        statement = "SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
        return [(n, -rank / (K1 + 1)) for n, rank in self.connection.execute(statement, (match, k))]

    def delete(self, removed: Part) -> None:
        assert self.connection is not None
        rows = zip(removed.numbers, (" ".join(tokens) for tokens in removed.tokens), strict=True)
        self.connection.executemany("INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)", rows)
        self.connection.commit()


@dataclass
class Segment:
    """Compressed sparse columns: rows[start[t]:start[t+1]], ascending, hold term t `counts` times."""

    numbers: NDArray[np.int64]
    lengths: NDArray[np.int32]
    start: NDArray[np.int64]
    rows: NDArray[np.int32]
    counts: NDArray[np.unsignedinteger[Any]]
    words: NDArray[np.uint8]  # the terms in sorted order, UTF-8, one after the other
    word_ends: NDArray[np.int64]
    dead: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # rows deleted since
    norms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def word(self, i: int) -> bytes:
        return self.words[self.word_ends[i] : self.word_ends[i + 1]].tobytes()

    def postings(self, term: bytes) -> slice:
        """Where in `rows` and `counts` the term is; empty where it does not occur."""
        size = len(self.word_ends) - 1
        t = bisect_left(range(size), term, key=self.word)
        if t == size or self.word(t) != term:
            return slice(0, 0)
        return slice(int(self.start[t]), int(self.start[t + 1]))

    def live_holders(self, span: slice) -> int:
        rows = self.rows[span]
        return len(rows) - int(np.count_nonzero(found_in(rows, self.dead)[1]))


def found_in(rows: NDArray[Any], wanted: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Position of each wanted row in ascending `rows`, and whether it is there."""
    if len(rows) == 0:
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(rows, wanted.astype(rows.dtype)), len(rows) - 1)
    return at, rows[at] == wanted


@dataclass
class Scan:
    """Scores of one segment while the terms of a query are added; once narrowed, of `rows` only."""

    segment: Segment
    scores: NDArray[np.float64]
    rows: NDArray[np.int64] | None = None

    def add(self, span: slice, idf: float) -> None:
        rows, counts = self.segment.rows[span], self.segment.counts[span]
        if self.rows is not None:
            at, there = found_in(rows, self.rows)
            rows, counts = rows[at[there]], counts[at[there]]
        self.scores[rows] += idf * (counts / (counts + self.segment.norms.take(rows)))

    def candidates(self) -> NDArray[np.int64]:
        """Live rows that hold a term added so far (and that are still in the running)."""
        self.scores[self.segment.dead] = 0
        if self.rows is not None:
            return self.rows
        return np.flatnonzero(self.scores > 0)


def narrow(scans: list[Scan], k: int, left: float) -> None:
    """Drops rows that cannot reach the top k when what the remaining terms can add is at most `left`.

    The bound of MaxScore (Turtle and Flood 1995): a term adds less than its idf, so once the k-th best score
    exceeds all that is left, no new row can enter, and a row too far below it cannot catch up.
    """
    rows = [scan.candidates() for scan in scans]
    scores = np.concatenate([scan.scores[found] for scan, found in zip(scans, rows, strict=True)])
    if len(scores) < k:
        return
    kth = float(np.partition(scores, -k)[-k])
    if left >= kth:
        return
    for scan, found in zip(scans, rows, strict=True):
        scan.rows = found[scan.scores[found] + left >= kth]


SEGMENT_FILES = ("numbers", "lengths", "start", "rows", "counts", "words", "word_ends")


def segment_arrays(part: Part) -> dict[str, NDArray[Any]]:
    """The arrays of one segment, by one sort of (term, row) keys."""
    first_seen: dict[str, int] = {}
    flat = [first_seen.setdefault(token, len(first_seen)) for tokens in part.tokens for token in tokens]
    lengths = np.fromiter(map(len, part.tokens), np.int32, len(part.tokens))
    vocabulary = sorted((word.encode(), i) for word, i in first_seen.items())
    order = np.empty(len(vocabulary), np.int64)
    order[[i for _, i in vocabulary]] = np.arange(len(vocabulary))
    keys = order[np.asarray(flat, np.int64)] * len(lengths) + np.repeat(np.arange(len(lengths)), lengths)
    keys, counts = np.unique(keys, return_counts=True)
    terms, rows = np.divmod(keys, len(lengths))
    encoded = [word for word, _ in vocabulary]
    return {
        "numbers": np.asarray(part.numbers, np.int64),
        "lengths": lengths,
        "start": np.searchsorted(terms, np.arange(len(vocabulary) + 1)),
        "rows": rows.astype(np.int32),
        "counts": counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        "words": np.frombuffer(b"".join(encoded), np.uint8),
        "word_ends": np.cumsum([0, *map(len, encoded)]),
    }


@dataclass
class Postings:
    """Term frequencies and lengths are stored; idf and mean length come from all live passages."""

    segments: list[Segment] = field(default_factory=list)
    live: int = 0

    def build(self, folder: Path, parts: Sequence[Part]) -> None:
        for i, part in enumerate(parts):
            (folder / f"s{i}").mkdir()
            for name, array in segment_arrays(part).items():
                np.save(folder / f"s{i}" / f"{name}.npy", array)

    def open(self, folder: Path) -> None:
        for path in sorted(folder.glob("s*")):
            arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in SEGMENT_FILES}
            self.segments.append(Segment(**{name: np.asarray(array) for name, array in arrays.items()}))
        self._statistics()

    def _statistics(self) -> None:
        self.live = sum(len(s.lengths) - len(s.dead) for s in self.segments)
        words = sum(int(s.lengths.sum()) - int(s.lengths[s.dead].sum()) for s in self.segments)
        for segment in self.segments:
            relative = segment.lengths.astype(np.float64) / (words / max(1, self.live))
            segment.norms = K1 * (1 - B + B * relative)

    def _terms(self, query: Tokens) -> list[tuple[float, list[slice]]]:
        """idf and, for every segment, postings of each term that occurs; the rarest first."""
        terms = []
        for term in query:
            spans = [segment.postings(term.encode()) for segment in self.segments]
            holders = sum(s.live_holders(span) for s, span in zip(self.segments, spans, strict=True))
            if holders:
                terms.append((float(np.log1p((self.live - holders + 0.5) / (holders + 0.5))), spans))
        return sorted(terms, key=lambda term: -term[0])

    def search(self, query: Tokens, k: int) -> Hits:
        scans = [Scan(segment, np.zeros(len(segment.lengths))) for segment in self.segments]
        terms = self._terms(query)
        for i, (idf, spans) in enumerate(terms):
            if i and sum(span.stop - span.start for span in spans) > self.live / 50:
                narrow(scans, k, sum(idf for idf, _ in terms[i:]))
            for scan, span in zip(scans, spans, strict=True):
                scan.add(span, idf)
        return best([hit for scan in scans for hit in top(scan, k)], k)

    def delete(self, removed: Part) -> None:
        for segment in self.segments:
            segment.dead = np.flatnonzero(np.isin(segment.numbers, removed.numbers))
        self._statistics()


def top(scan: Scan, k: int) -> Hits:
    rows = scan.candidates()
    scores = scan.scores[rows]
    if len(rows) > k:  # all that tie with the k-th stay, so that the smallest numbers among them win
        keep = scores >= np.partition(scores, -k)[-k]
        rows, scores = rows[keep], scores[keep]
    return list(zip(scan.segment.numbers[rows].tolist(), scores.tolist(), strict=True))


@dataclass
class Apart:
    """Any engine with a folder of its own for every part, results merged by score: immutable segments."""

    make: Callable[[], Engine]
    engines: list[Engine] = field(default_factory=list)

    def build(self, folder: Path, parts: Sequence[Part]) -> None:
        for i, part in enumerate(parts):
            (folder / f"p{i}").mkdir()
            self.make().build(folder / f"p{i}", [part])

    def open(self, folder: Path) -> None:
        for path in sorted(folder.glob("p*")):
            self.engines.append(self.make())
            self.engines[-1].open(path)

    def search(self, query: Tokens, k: int) -> Hits:
        return best([hit for engine in self.engines for hit in engine.search(query, k)], k)

    def delete(self, removed: Part) -> None:
        for engine in self.engines:
            engine.delete(removed)


ENGINES: dict[str, Callable[[], Engine]] = {
    "bm25s": Bm25s,
    "bm25s-numba": lambda: Bm25s("numba"),
    "tantivy": Tantivy,
    "fts5": Fts5,
    "postings": Postings,
}
