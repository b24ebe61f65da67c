"""What the evaluation commands share: their options, and how a report is shown."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.output import emit, say

if TYPE_CHECKING:
    from agentmtl.evaluate.report import Report, SetsReport

Data = Annotated[Path, typer.Option("--data", help="A data set's folder, or a folder of such folders.")]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Questions, drawn with the seed; all without it.", min=1)
]
Seed = Annotated[int, typer.Option("--seed", help="Of the bootstrap and of --limit.")]
Indexes = Annotated[
    Path, typer.Option("--indexes", help="Where the sets' indexes are kept, reused by data hash.")
]

Judges = Annotated[
    Path | None,
    typer.Option("--judges", help="Folder of hops heads fold-0, fold-1 …, for what they have not seen."),
]


def show(report: Report | SetsReport, as_json: bool) -> None:
    """A report on stdout, in either form."""
    if as_json:
        emit(report.to_json())
    else:
        say(report.to_text())


def command_line() -> str:
    """This very command line, to be run again."""
    return shlex.join(["agentmtl", *sys.argv[1:]])
