"""The whole ingest ÷ the encoder alone, from files on disk to a published index, with the default encoder.

    python benchmarks/ingest.py [--records 1000] [--rounds 5] [--data corpus.jsonl] [--json]
    python benchmarks/ingest.py --whole                     one build of all of 2wiki, in seconds

All four levels. One build that does not count shows which windows of texts reach the encoder; each round then
builds a fresh index and, in turn, gives the encoder the same windows with nothing else around them. Both make
the same vectors: checked on the first window. The default is few rounds, since each takes seconds to minutes.
Also stated: where the time beside the encoder goes, by the profiler, in the build that does not count.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from timing import DATA, Row, Spread, once, parser, pin_threads, ratio, report, take_turns

from agentmtl import Index
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Side, Vectors

TARGET = 0.85
WHOLE_TARGET = 120.0  # seconds, on two cores
SHOWN = 12  # lines of the profile


@dataclass
class Recording:
    """An encoder that keeps the windows it was given, and how long it took over them."""

    inner: Encoder
    windows: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def identity(self) -> EncoderIdentity:
        return self.inner.identity

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        self.windows.append(list(texts))
        start = time.perf_counter()
        vectors = self.inner.encode(texts, side)
        self.seconds += time.perf_counter() - start
        return vectors


def part_of(corpus: Path, records: int, folder: Path) -> Path:
    """The first records of the corpus, as a file of their own."""
    with corpus.open(encoding="utf-8") as lines:
        chosen = [line for _, line in zip(range(records), lines, strict=False)]
    part = folder / "part.jsonl"
    part.write_text("".join(chosen), encoding="utf-8")
    return part


class Builds:
    """Builds of the same file, each into a new folder."""

    def __init__(self, place: Path, source: Path) -> None:
        self.place = place
        self.source = source
        self.made = 0

    def build(self, encoder: Encoder) -> Index:
        self.made += 1
        return Index.build(self.place / f"index-{self.made}", [self.source], encoder=encoder)[0]


def units_of(index: Index) -> int:
    return sum(index.snapshot.count(level) for level in index.settings.levels)


def check_equal(index: Index, recording: Recording) -> None:
    """The first window's vectors, made again, are those that the index holds."""
    texts = recording.windows[0][:32]
    again = recording.inner.encode(texts)
    held = np.concatenate([view_vectors(index, level) for level in ("passage", "sentence", "entity")])
    assert ((held @ again.T).max(axis=0) > 0.999).all(), "the index holds other vectors"


def view_vectors(index: Index, level: str) -> Vectors:
    from agentmtl.index.vectors import vectors_of

    views = index.snapshot.views(level)  # type: ignore[arg-type]
    return np.concatenate([vectors_of(view.files.flat) for view in views])


def encode_all(encoder: Encoder, windows: Sequence[Sequence[str]]) -> Callable[[], None]:
    def run() -> None:
        for window in windows:
            encoder.encode(window)

    return run


def profile(builds: Builds, recording: Recording) -> tuple[Index, pstats.Stats]:
    profiler = cProfile.Profile()
    index = profiler.runcall(builds.build, recording)
    return index, pstats.Stats(profiler)


def measure(arguments: argparse.Namespace, place: Path) -> list[Row]:
    encoder = load_encoder("default")
    encoder.encode(["the network is loaded and compiled here, which does not count"])
    builds = Builds(place, part_of(arguments.data, arguments.records, place))
    recording = Recording(encoder)
    index, stats = profile(builds, recording)
    check_equal(index, recording)
    units, windows = units_of(index), recording.windows
    if arguments.profile:
        stats.sort_stats("cumulative").print_stats("agentmtl", 40)
        stats.sort_stats("tottime").print_stats(SHOWN)
    taken = take_turns(
        {"ingest": lambda: builds.build(encoder), "encoder": encode_all(encoder, windows)},
        arguments.rounds,
        arguments.clock,
    )
    texts = sum(map(len, windows))
    return [
        once("units", units, ""),
        once("texts encoded", texts, ""),
        Row("ingest", Spread.of([units / seconds for seconds in taken["ingest"]]), "units/s"),
        Row("ingest ÷ encoder alone, units/s", ratio(taken, "encoder", "ingest"), at_least=TARGET),
        Row("beside the encoder, a unit", beside(taken["ingest"], taken["encoder"], units), "µs"),
    ]


def beside(ingest: Sequence[float], encoder: Sequence[float], units: int) -> Spread:
    return Spread.of([(a - b) / units * 1e6 for a, b in zip(ingest, encoder, strict=True)])


def whole(arguments: argparse.Namespace, place: Path) -> list[Row]:
    recording = Recording(load_encoder("default"))
    start = time.perf_counter()
    index = Builds(place, arguments.data).build(recording)
    seconds = time.perf_counter() - start
    return [
        once("passages", index.snapshot.count("passage"), ""),
        once("units, all levels", units_of(index), ""),
        once("texts encoded", sum(map(len, recording.windows)), ""),
        once("whole corpus, build", seconds, "s", at_most=WHOLE_TARGET),
        once("of which in the encoder", recording.seconds, "s"),
        once("share of the build in the encoder", recording.seconds / seconds, "", at_least=TARGET),
    ]


def main() -> None:
    options = parser(__doc__, rounds=5, threads=os.cpu_count() or 1)
    options.add_argument("--records", type=int, default=1_000, help="of the corpus, from its start")
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--whole", action="store_true", help="one build of the whole corpus instead")
    options.add_argument("--profile", action="store_true", help="show where the time goes")
    arguments = options.parse_args()
    pin_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        rows = (whole if arguments.whole else measure)(arguments, Path(place))
    report("ingest", rows, arguments)


if __name__ == "__main__":
    main()
