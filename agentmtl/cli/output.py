"""What every command shares: where output goes, its two forms, and the common options."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agentmtl.errors import IndexMissingError, UsageError
from agentmtl.settings import Settings, load_settings

INDEXES = Path("indexes")  # where `index build` puts indexes by default, and short names are looked up

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, also on failure.")]
IndexFlag = Annotated[
    str | None,
    typer.Option("--index", "-i", help="Folder of the index, or its name in ./indexes.", metavar="DIR"),
]
EncoderFlag = Annotated[
    str | None,
    typer.Option("--encoder", "-e", help="default, a sentence-transformers name or folder, or hashing."),
]
BackendFlag = Annotated[
    str | None, typer.Option("--backend", help="auto, openvino, torch-bf16 or torch-fp32.")
]
JudgeFlag = Annotated[
    str,
    typer.Option("--judge", help="Reads the chains of several hops: auto, none, or the folder of a head."),
]
ProposerFlag = Annotated[
    str | None,
    typer.Option(
        "--proposer", metavar="DIR", help="A decoder that ranks sentences again: identifiers, or a folder."
    ),
]
ExpertFlag = Annotated[
    str, typer.Option("--expert", help="auto, reader, sentences, or the folder of a reader's head.")
]
SegmenterFlag = Annotated[
    Path | None, typer.Option("--segmenter", metavar="DIR", help="A trained segmenter, for topics.")
]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def segmenter_name(folder: Path | None) -> str:
    """As a chunking names it."""
    return str(folder.resolve()) if folder else ""


def emit(data: dict[str, Any]) -> None:
    """One JSON object, on stdout."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")


def say(text: str = "") -> None:
    """A line of the answer, on stdout."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """A line about what is going on, on stderr."""
    sys.stderr.write(text + "\n")


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def settings_from(**flags: Any) -> Settings:
    """The settings in force, with these flags on top."""
    return load_settings(flags)[0]


def index_folder(given: str | None) -> Path:
    """The folder of the index that is meant: a path, a name in ./indexes, or the `index` setting."""
    name = given or settings_from().index
    if not name:
        found = sorted(p.parent.name for p in INDEXES.glob("*/CURRENT"))
        if len(found) == 1:
            return INDEXES / found[0]
        raise UsageError(
            "Which index?" + (f" In ./indexes there are {', '.join(found)}." if found else ""),
            "Give --index DIR, or make one: agentmtl index build PATH… --out DIR",
        )
    path = Path(name)
    if not (path / "CURRENT").exists() and (INDEXES / name / "CURRENT").exists():
        return INDEXES / name  # also where ./name is something else, as the folder the index was made of
    if not path.exists():
        raise IndexMissingError(
            f"There is no index in {path}.", f"Make one: agentmtl index build PATH… --out {path}"
        )
    return path


def colours() -> bool:
    """Whether stdout is a terminal that wants colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colours() else text


def dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if colours() else text


class Watch:
    """Progress of a build on stderr: units done, units a second, time left where it can be told."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task
        self._units, self._read, self._size = 0, 0, 0

    def expect(self, size: int) -> None:
        """`size` bytes are going to be read."""
        self._size = size

    def read(self, characters: int) -> None:
        """So many characters of documents were taken up."""
        self._read += characters

    def __call__(self, units: int) -> None:
        """So many units were encoded. What is left is guessed from the bytes that are left to read."""
        self._units += units
        if self._bar is None:
            return
        total = self._units * max(self._size, self._read) / self._read if self._read else None
        self._bar.update(self._task, completed=self._units, total=total)


@contextmanager
def watching(label: str, quiet: bool) -> Iterator[Watch]:
    """A progress bar on stderr, for people only: a terminal, and not --quiet."""
    if quiet or not sys.stderr.isatty():
        yield Watch(None, None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        """Units a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} units/s" if task.speed else "")

    columns = [
        TextColumn(label),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} units"),
    ]
    with Progress(*columns, Speed(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield Watch(bar, bar.add_task(label, total=None))


@contextmanager
def watching_steps(label: str, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar of (step, steps, note) on stderr, for people only; elsewhere a line an epoch."""
    if quiet or not sys.stderr.isatty():
        yield lambda step, steps, note: tell(note) if note.startswith("epoch") and not quiet else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, note="")
        yield lambda step, steps, note: bar.update(task, completed=step, total=steps, note=note)
