"""--task CARD --demos FILE, in pairs: labelled examples for an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from agentmtl.cli.output import Watch
from agentmtl.errors import UsageError

if TYPE_CHECKING:
    from agentmtl.index.build import BuildReport
    from agentmtl.retrieval.example_encoder import By
    from agentmtl.retrieval.index import Index

TaskCards = Annotated[
    list[Path] | None,
    typer.Option("--task", help="A task card (.toml, .json); one for each --demos."),
]
DemoFiles = Annotated[
    list[Path] | None, typer.Option("--demos", help="Its labelled examples, JSON Lines {input, output}.")
]
ExamplesBy = Annotated[
    Literal["auto", "head", "trunk"],
    typer.Option(
        "--examples-by",
        help="What encodes examples where the encoder has a head for them; auto: the head if surely better.",
    ),
]
TaskPairs: TypeAlias = Sequence[tuple[Path, Path]]


def task_pairs(
    cards: list[Path] | None, files: list[Path] | None, has_paths: bool, by: By = "auto"
) -> TaskPairs:
    """Cards with their files. Raises UsageError where they do not pair up, or there is nothing to do."""
    cards, files = cards or [], files or []
    if len(cards) != len(files):
        raise UsageError(
            f"{len(cards)} task cards and {len(files)} files of examples.",
            "Give --demos FILE with each --task.",
        )
    if by != "auto" and not cards:
        raise UsageError("There are no examples to encode.", "Give --task and --demos with --examples-by.")
    if not cards and not has_paths:
        raise UsageError("There is nothing to index.", "Name files or folders, or give --task and --demos.")
    return list(zip(cards, files, strict=True))


def add_pairs(index: Index, pairs: TaskPairs, report: BuildReport, watch: Watch, by: By) -> None:
    """Add the examples of each pair, and what was done to the report."""
    from agentmtl.ingest.demonstrations import read_demonstrations
    from agentmtl.tasks import load_task

    for card, file in pairs:
        task = load_task(card)
        examples = list(read_demonstrations(file, task.name))  # all are read before anything is written
        done = index.add_demonstrations(task, examples, by=by, progress=watch)
        report.added += done.added
        report.updated += done.updated
        report.unchanged += done.unchanged
