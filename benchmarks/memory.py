"""Peak memory of building an index and of opening it, by its size: bounded by a segment, not by the corpus.

    python benchmarks/memory.py [--units 12500 25000 50000 100000 200000 400000] [--json]

A made-up corpus is streamed from a generator: a title and three sentences each, words drawn by Zipf's law. A
document is six units: itself, a passage, three sentences and the name in its title. Each size has fresh
processes of its own, one that builds and one that opens and answers a query. Two figures of a build, imports
included: the peak of the memory that is its own (anonymous; looked at every 5 ms), and the peak resident set,
which also counts pages of mapped index files, that the system takes back when it needs them. The first is
judged. One measurement each: it varies by a few MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
from timing import SEED, DigestEncoder, Row, fresh_process, once, parser, pin_threads, report

from agentmtl import Document, Index

UNITS_A_DOCUMENT = 6
VOCABULARY = 50_000
WORDS = 60  # of a document's text
PLATEAU = 1.15  # peak at the largest size ÷ peak at half of it


def corpus(documents: int) -> Iterator[Document]:
    """Drawn with `SEED`, one document at a time."""
    draw = np.random.default_rng(SEED)
    for n in range(documents):
        ranks = np.minimum(draw.zipf(1.3, WORDS), VOCABULARY).tolist()
        words = [f"w{rank}" for rank in ranks]
        sentences = [" ".join(words[start : start + WORDS // 3]) for start in range(0, WORDS, WORDS // 3)]
        first, second, third = (f"It says {sentence}." for sentence in sentences)
        yield Document(str(n), f"{first} {second} {third}", title=f"Person {n}", metadata={"n": n})


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def anonymous() -> float:
    """Megabytes of this process that stand for no file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6


def watch(done: Event, seen: list[float]) -> None:
    while not done.wait(0.005):
        seen.append(anonymous())


def build(folder: Path, units: int) -> dict[str, float]:
    seen, done = [anonymous()], Event()
    watcher = Thread(target=watch, args=(done, seen))
    watcher.start()
    index = Index.create(folder, encoder=DigestEncoder())
    index.add(corpus(units // UNITS_A_DOCUMENT))
    done.set()
    watcher.join()
    made = sum(index.snapshot.count(level) for level in index.settings.levels)
    return {"own": max(seen), "peak": peak(), "units": made}


def open_and_ask(folder: Path) -> dict[str, float]:
    import faiss  # noqa: F401

    before = peak()
    index = Index.open(folder, encoder=DigestEncoder())
    opened = peak()
    index.retrieve("It says w1", k=10).scores  # noqa: B018
    return {"peak": peak(), "opened": opened - before, "answered": peak() - before}


def measure(arguments: argparse.Namespace, place: Path) -> list[Row]:
    rows, peaks = [], {}
    for turn, units in enumerate(arguments.units):
        folder = place / f"index-{turn}"
        built = fresh_process(__file__, "--worker", "build", "--folder", str(folder), "--size", str(units))
        opened = fresh_process(__file__, "--worker", "open", "--folder", str(folder))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        peaks[units] = built["own"]
        name = f"{built['units']:,} units ({size:,.0f} MB)"
        rows += [
            once(f"{name}: build, peak of its own", built["own"], "MB"),
            once(f"{name}: build, peak resident set", built["peak"], "MB"),
            once(f"{name}: grown by opening", opened["opened"], "MB"),
            once(f"{name}: grown by a first fused query too", opened["answered"], "MB"),
        ]
    most, before = sorted(peaks)[-1], sorted(peaks)[-2]
    value = peaks[most] / peaks[before]
    return [*rows, once(f"peak of its own, {most:,} ÷ {before:,}", value, "×", at_most=PLATEAU)]


def main() -> None:
    options = parser(__doc__, rounds=1)
    sizes = [12_500, 25_000, 50_000, 100_000, 200_000, 400_000]
    options.add_argument("--units", type=int, nargs="+", default=sizes)
    options.add_argument("--worker", help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.worker:
        building = arguments.worker == "build"
        found = build(arguments.folder, arguments.size) if building else open_and_ask(arguments.folder)
        print(json.dumps(found))
        return
    pin_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        rows = measure(arguments, Path(place))
    report("memory", rows, arguments)


if __name__ == "__main__":
    main()
