"""Peak memory of building an index and of opening it, by its size: bounded by a segment, not by the corpus.

    python benchmarks/memory.py [--units 12500 25000 50000 100000 200000 400000] [--json]

A made-up corpus is streamed from a generator: a title and three sentences each, words drawn by Zipf's law. A
document is six units: itself, a passage, three sentences and the name in its title. Each size has fresh
processes of its own, one that builds and one that opens and answers a query; a build's figure is the peak
resident set of the whole process, imports included. One measurement each: the peak varies by a few MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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


def build(folder: Path, units: int) -> dict[str, float]:
    start = time.perf_counter()
    index = Index.create(folder, encoder=DigestEncoder())
    index.add(corpus(units // UNITS_A_DOCUMENT))
    made = sum(index.snapshot.count(level) for level in index.settings.levels)
    return {"peak": peak(), "units": made, "seconds": time.perf_counter() - start}


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
        peaks[units] = built["peak"]
        name = f"{built['units']:,} units ({size:,.0f} MB)"
        rows += [
            once(f"{name}: peak of the build", built["peak"], "MB"),
            once(f"{name}: grown by opening", opened["opened"], "MB"),
            once(f"{name}: grown by a first fused query too", opened["answered"], "MB"),
        ]
    most, before = sorted(peaks)[-1], sorted(peaks)[-2]
    value = peaks[most] / peaks[before]
    return [*rows, once(f"peak of the build, {most:,} ÷ {before:,}", value, "×", at_most=PLATEAU)]


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
