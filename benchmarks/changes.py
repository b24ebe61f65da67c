"""What a change costs: deleting 1 of n, and taking the same documents in again with 1 % of them changed.

    python benchmarks/changes.py [--units 2000 20000 200000] [--documents 5000] [--rounds 9] [--json]

A deletion writes a tombstone, a manifest and CURRENT; the bytes are those of the files that it made. Encoder
calls are counted in texts, so they depend on no machine: after changing 1 % of the documents they must be the
units of those documents, and none where nothing changed. Taking unchanged documents in again is timed beside
LangChain's `index()` with its in-memory record manager and vector store (ours compares against files).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from timing import DIMENSION, DigestEncoder, Row, Spread, once, parser, pin_threads, ratio, report, take_turns

from agentmtl import Document, Index

CHANGED_EVERY = 100
REST = 2.5  # seconds; files younger than two are hashed again when an index is opened
INDEPENDENT = 1.1  # tombstone bytes at the largest n ÷ those at the smallest


def documents(count: int, edition: int = 1) -> Iterator[Document]:
    """Two sentences each; one in a hundred says which edition it is of."""
    for n in range(count):
        which = edition if n % CHANGED_EVERY == 0 else 1
        yield Document(str(n), f"Document {n} is in edition {which}. Its second sentence: {n}-{which}.")


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def deletions(units: int, rounds: int, place: Path) -> tuple[list[float], list[int], list[int]]:
    """Milliseconds, bytes of all files made, bytes of tombstones, for one deletion after the other."""
    index = Index.create(place / f"index-{units}", encoder=DigestEncoder(), levels=("passage",))
    index.add(Document(str(n), f"unit {n} of the corpus") for n in range(units))
    time.sleep(REST)
    index.refresh()
    Index.open(index.folder)  # now every file is known to be whole
    taken, written, tombstones = [], [], []
    for turn in range(rounds + 1):
        before = files_of(index.folder)
        start = time.perf_counter()
        index.delete([str(turn * (units // (rounds + 1)))])
        seconds = time.perf_counter() - start
        after = files_of(index.folder)
        made = {p: size for p, size in after.items() if p not in before or p.name == "CURRENT"}
        if turn:
            taken.append(seconds * 1e3)
            written.append(sum(made.values()))
            tombstones.append(sum(size for p, size in made.items() if p.name.startswith("tombstones")))
    assert len(index) == units - rounds - 1
    return taken, written, tombstones


def deleting(arguments: argparse.Namespace, place: Path) -> list[Row]:
    rows, marks, times = [], {}, {}
    for units in arguments.units:
        taken, written, tombstones = deletions(units, arguments.rounds, place)
        marks[units], times[units] = statistics.median(tombstones), statistics.median(taken)
        rows += [
            Row(f"delete 1 of {units:,}", Spread.of(taken), "ms"),
            Row(f"delete 1 of {units:,}: all that is written", Spread.of(written), "bytes"),
            Row(f"delete 1 of {units:,}: tombstone", Spread.of(tombstones), "bytes"),
        ]
    few, many = min(marks), max(marks)
    what = f"1 of {many:,} ÷ 1 of {few:,}"
    return [
        *rows,
        once(f"tombstone bytes, {what}", marks[many] / marks[few], "×", at_most=INDEPENDENT),
        once(f"time, {what}", times[many] / times[few], "×"),
    ]


def again(arguments: argparse.Namespace, place: Path) -> list[Row]:
    """Encoder calls of a second ingest with 1 % changed, and the time of one with nothing changed."""
    encoder, count = DigestEncoder(), arguments.documents
    index = Index.create(place / "again", encoder=encoder)
    index.add(documents(count))
    encoder.calls.clear()
    assert index.add(documents(count)).unchanged == count
    unchanged = sum(encoder.calls)
    report_of = index.add(documents(count, edition=2))
    assert report_of.updated == len(range(0, count, CHANGED_EVERY))
    changed = report_of.updated * 3  # a passage and two sentences; the document's vector is their mean
    peer = langchain_index(list(documents(count)))
    same = list(documents(count, edition=2))
    candidates = {"index": lambda: index.add(same), "LangChain": peer}
    taken = take_turns(candidates, arguments.rounds, arguments.clock)
    return [
        once("texts encoded, nothing changed", unchanged, "", at_most=0),
        once("units changed by changing 1 % of the documents", changed, ""),
        once("texts encoded, 1 % changed", sum(encoder.calls), "", at_most=changed),
        Row("add, nothing changed, a document", each(taken["index"], count), "µs"),
        Row("LangChain index(), nothing changed, a document", each(taken["LangChain"], count), "µs"),
        Row("add ÷ LangChain index(), nothing changed", ratio(taken, "index", "LangChain")),
    ]


def each(seconds: list[float], count: int) -> Spread:
    return Spread.of([s / count * 1e6 for s in seconds])


def langchain_index(given: list[Document]) -> Callable[[], Any]:
    """LangChain's incremental indexing of these documents, which have been indexed once."""
    from langchain_core.documents import Document as Record
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.indexing import InMemoryRecordManager, index
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=DIMENSION))
    records = InMemoryRecordManager("benchmark")
    texts = [Record(d.text, metadata={"source": d.source_id}) for d in given]

    def run() -> Any:
        return index(
            texts, records, store, cleanup="incremental", source_id_key="source", key_encoder="blake2b"
        )

    assert run()["num_added"] == len(texts)
    assert run()["num_skipped"] == len(texts)
    return run


def main() -> None:
    options = parser(__doc__, rounds=9)
    options.add_argument("--units", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    options.add_argument("--documents", type=int, default=5_000)
    arguments = options.parse_args()
    pin_threads(arguments.threads)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        rows = deleting(arguments, Path(place)) + again(arguments, Path(place))
    report("changes", rows, arguments)


if __name__ == "__main__":
    main()
