"""What the benchmarks share: rounds that take turns, medians with their range, made-up vectors, a report.

A ratio is taken within a round, so that whatever slows the machine slows both sides of it. Nothing here
judges speed in a test: a benchmark is run by a person, on a machine that is otherwise quiet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from agentmtl.trunk.encoder import EncoderIdentity, Side, Vectors

SEED = 20254
DIMENSION = 384
K = 10
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FAISS_THRESHOLD = faiss.cvar.distance_compute_blas_threshold  # as it comes; opening an index changes it
PACKAGES = ("numpy", "faiss-cpu", "langchain-community", "langchain-core")


# --- made-up data


@dataclass(frozen=True, slots=True)
class DigestEncoder:
    """Unit vectors drawn from a generator seeded by the text: any process gives a text the same one."""

    identity: EncoderIdentity = field(default_factory=lambda: EncoderIdentity("name:digest", DIMENSION))
    calls: list[int] = field(default_factory=list)  # texts in each call

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        self.calls.append(len(texts))
        vectors = np.empty((len(texts), DIMENSION), np.float32)
        for row, text in enumerate(texts):
            seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            np.random.Generator(np.random.SFC64(seed)).standard_normal(out=vectors[row], dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def random_queries(count: int) -> Vectors:
    """(count, DIMENSION) unit vectors drawn with `SEED`."""
    drawn: Vectors = np.random.default_rng(SEED).standard_normal((count, DIMENSION), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


# --- real text

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "multihop" / "2wiki" / "corpus.jsonl"


# --- taking turns


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and their range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} [{_short(self.low)}–{_short(self.high)}]"


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def take_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of every candidate in every round, after one round that does not count.

    Each round runs all of them once, the order reversed every other time.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        order = list(candidates) if turn % 2 == 0 else list(candidates)[::-1]
        for name in order:
            start = CLOCKS[clock]()
            candidates[name]()
            if turn:
                taken[name].append(CLOCKS[clock]() - start)
    return taken


def over(queries: Iterable[Any], search: Callable[[Any], object], threshold: int) -> Callable[[], None]:
    """All queries, one at a time, with this candidate's threshold for BLAS in FAISS, which is global."""

    def run() -> None:
        faiss.cvar.distance_compute_blas_threshold = threshold
        for query in queries:
            search(query)

    return run


def ratio(taken: Mapping[str, Sequence[float]], name: str, baseline: str) -> Spread:
    return Spread.of([a / b for a, b in zip(taken[name], taken[baseline], strict=True)])


def pin_threads(count: int) -> None:
    """Start this program anew with so many threads for BLAS and OpenMP, which read it when loaded."""
    wanted = dict.fromkeys(THREAD_VARIABLES, str(count))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


# --- the report


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. A row without a bound is stated, and neither met nor missed."""

    what: str
    value: Spread
    unit: str = "×"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        if self.at_most is None and self.at_least is None:
            return "stated"
        over = self.at_most is not None and self.value.median > self.at_most
        under = self.at_least is not None and self.value.median < self.at_least
        return "missed" if over or under else "met"

    def __str__(self) -> str:
        target = f"≤ {self.at_most:g}" if self.at_most is not None else ""
        target = f"≥ {self.at_least:g}" if self.at_least is not None else target
        return f"  {self.what:52} {self.value!s:>28} {self.unit:8} {target:8} {self.verdict}"


def once(what: str, value: float, unit: str, **bounds: float) -> Row:
    """A figure that was measured once, or counted."""
    return Row(what, Spread(value, value, value), unit, **bounds)


def conditions(threads: int) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "seed": SEED,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def parser(description: str | None, rounds: int, threads: int = 1) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--threads", type=int, default=threads, help="for BLAS and OpenMP")
    made.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor seconds")
    made.add_argument("--json", action="store_true")
    return made


def report(benchmark: str, rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """Print the figures, and last a line that sums them up."""
    about = {"rounds": arguments.rounds, "clock": arguments.clock, **conditions(arguments.threads)}
    if arguments.json:
        found = [{**asdict(row), "verdict": row.verdict} for row in rows]
        print(json.dumps({"schema": 1, "benchmark": benchmark, "conditions": about, "rows": found}))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for row in rows:
        print(row)
    judged = [row for row in rows if row.verdict != "stated"]
    missed = [row.what for row in judged if row.verdict == "missed"]
    print(f"{benchmark}: {len(judged) - len(missed)} of {len(judged)} targets met", end="")
    print(f"; missed: {'; '.join(missed)}" if missed else "")


def langchain_store(texts: Sequence[str], vectors: Vectors, metadata: Sequence[dict[str, Any]]) -> Any:
    """LangChain's FAISS store over these texts and vectors, by inner product; text n is called str(n)."""
    warnings.simplefilter("ignore", DeprecationWarning)  # the package says that it is no longer kept up
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document as Record
    from langchain_core.embeddings import DeterministicFakeEmbedding

    pairs = enumerate(zip(texts, metadata, strict=True))
    found = {str(n): Record(text, id=str(n), metadata=about) for n, (text, about) in pairs}
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    embedding = DeterministicFakeEmbedding(size=vectors.shape[1])  # never called: the vectors are given
    return FAISS(embedding, index, InMemoryDocstore(found), dict(enumerate(found)))


def fresh_process(script: str, *arguments: str, cache: Path | None = None) -> dict[str, Any]:
    """What `script`, run in a process of its own, prints as its last line of JSON.

    `cache` is the cache folder it gets: an empty one has never seen the index.
    """
    environment = {**os.environ, **({"AGENTMTL_CACHE_DIR": str(cache)} if cache else {})}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
