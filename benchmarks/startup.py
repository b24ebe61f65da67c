"""Starting: `agentmtl --help`, `import agentmtl`, and opening an index.

    python benchmarks/startup.py [--units 100000] [--rounds 11] [--json]

`--help` is timed as a process of its own against one that only imports typer and rich, in turns. `import
agentmtl` must bring in none of the heavy packages. An index is opened in fresh processes, with its files out
of the page cache, once where this machine has never seen it (then every byte is hashed) and once where it has
(then a file costs a stat); both against a process that reads the files. Memory is the resident set after
opening less that before: what is mapped and untouched does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from timing import (
    DigestEncoder,
    Row,
    Spread,
    fresh_process,
    once,
    parser,
    pin_threads,
    ratio,
    report,
    take_turns,
)

from agentmtl import Document, Index

HELP_TARGET = 2.5
MEMORY_TARGET = 0.1  # of the index's size
REST = 2.5  # seconds; files younger than two are hashed again at the next open
HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "langchain", "langgraph", "openvino")
BLOCK = 1 << 20


def process(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def starting(arguments: argparse.Namespace) -> list[Row]:
    taken = take_turns(
        {
            "help": process("-m", "agentmtl", "--help"),
            "bare": process("-c", "import typer, rich"),
            "import": process("-c", "import agentmtl"),
            "python": process("-c", "pass"),
        },
        arguments.rounds,
    )
    return [
        Row("python -c 'import typer, rich'", milliseconds(taken["bare"]), "ms"),
        Row("agentmtl --help", milliseconds(taken["help"]), "ms"),
        Row("agentmtl --help ÷ import typer, rich", ratio(taken, "help", "bare"), at_most=HELP_TARGET),
        Row("import agentmtl less python alone", difference(taken["import"], taken["python"]), "ms"),
        once("heavy packages after import agentmtl", heavy_modules(), "", at_most=0),
    ]


def milliseconds(seconds: Sequence[float]) -> Spread:
    return Spread.of([s * 1e3 for s in seconds])


def difference(a: Sequence[float], b: Sequence[float]) -> Spread:
    return milliseconds([x - y for x, y in zip(a, b, strict=True)])


def heavy_modules() -> int:
    program = f"import agentmtl, sys; print(sum(name in sys.modules for name in {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return int(done.stdout)


# --- opening


def resident() -> float:
    """Megabytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def worker(what: str, folder: Path) -> dict[str, float]:
    """Opens the index, or reads its files; everything is imported before."""
    import faiss  # noqa: F401

    before, start = resident(), time.perf_counter()
    held = Index.open(folder) if what == "open" else sum(map(read, files_of(folder)))
    seconds = time.perf_counter() - start
    opened = resident() - before
    if isinstance(held, Index):
        held.retrieve(DigestEncoder().encode(["a question"])[0]).scores  # noqa: B018
    return {"seconds": seconds, "megabytes": opened, "answered": time.perf_counter() - start}


def read(path: Path) -> int:
    with path.open("rb", buffering=0) as stream:
        return sum(map(len, iter(lambda: stream.read(BLOCK), b"")))


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def forget(folder: Path) -> None:
    """Put the files out of the page cache."""
    for path in files_of(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opening(arguments: argparse.Namespace, place: Path) -> list[Row]:
    folder = place / "index"
    index = Index.create(folder, encoder=DigestEncoder(), levels=("passage",))
    index.add(Document(str(n), f"unit {n} of the corpus, with a few words") for n in range(arguments.units))
    time.sleep(REST)
    size = sum(path.stat().st_size for path in files_of(folder)) / 1e6
    seen = place / "seen"
    fresh_process(__file__, "--worker", "open", "--folder", str(folder), cache=seen)
    found: dict[str, list[Any]] = {"read": [], "first": [], "later": []}
    for turn in range(arguments.rounds):
        caches = {"read": seen, "first": place / f"never-{turn}", "later": seen}
        for name, cache in caches.items():
            forget(folder)
            command = ["--worker", "read" if name == "read" else "open", "--folder", str(folder)]
            found[name].append(fresh_process(__file__, *command, cache=cache))
    taken = {name: [run["seconds"] for run in runs] for name, runs in found.items()}
    grown = max(run["megabytes"] for run in found["later"] + found["first"])
    answered = [run["answered"] * 1e3 for run in found["later"]]
    return [
        once(f"index of {arguments.units:,} units", size, "MB"),
        Row("reading its files", milliseconds(taken["read"]), "ms"),
        Row("first open on a machine: all is hashed", milliseconds(taken["first"]), "ms"),
        Row("first open ÷ reading", ratio(taken, "first", "read")),
        Row("later open", milliseconds(taken["later"]), "ms"),
        Row("later open ÷ reading", ratio(taken, "later", "read"), at_most=1.0),
        Row("later open and one dense search", Spread.of(answered), "ms"),
        once("memory grown by opening, at most", grown, "MB"),
        once("memory grown ÷ size of the index", grown / size, "×", at_most=MEMORY_TARGET),
    ]


def main() -> None:
    options = parser(__doc__, rounds=11)
    options.add_argument("--units", type=int, default=100_000)
    options.add_argument("--worker", help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker, arguments.folder)))
        return
    pin_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        rows = starting(arguments) + opening(arguments, Path(place))
    report("startup", rows, arguments)


if __name__ == "__main__":
    main()
