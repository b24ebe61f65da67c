"""agentmtl eval …: the published numbers, each with its interval."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    emit,
    say,
    settings_from,
    watching,
)

if TYPE_CHECKING:
    from agentmtl.evaluate.report import Report, SetsReport

app = typer.Typer(
    no_args_is_help=True, help="The published numbers, each with its interval.", rich_markup_mode=None
)

Data = Annotated[Path, typer.Option("--data", help="A data set's folder, or a folder of such folders.")]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Questions, drawn with the seed; all without it.", min=1)
]
Seed = Annotated[int, typer.Option("--seed", help="Of the bootstrap and of --limit.")]
Indexes = Annotated[
    Path, typer.Option("--indexes", help="Where the sets' indexes are kept, reused by data hash.")
]


@app.command("multihop")
def multihop(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Passage retrieval for questions with known gold: recall and all-gold, per channel and fused.

    Examples:

      agentmtl eval multihop --data ../shared/data/multihop/2wiki

      agentmtl eval multihop --data ../shared/data/multihop --limit 50 --json
    """
    from agentmtl.evaluate import evaluate_multihop

    settings = settings_from(encoder=encoder, backend=backend)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_multihop(
            data,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            limit=limit,
            seed=seed,
            commands=(_command(),),
            progress=watch,
        )
    _show(report, as_json)


@app.command("answers")
def answers(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    split: Annotated[str, typer.Option("--split", help="Of a reading set: test or train.")] = "test",
    hops: Annotated[int, typer.Option("--hops", help="Retrieval steps, at most (1 or 2).", min=1, max=2)] = 2,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the risk–coverage plot here (PNG).")
    ] = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Answers end to end: is the gold answer in the cited sentences, and does the agent know when not?

    Examples:

      agentmtl eval answers --data ../shared/data/reading/squad --plot risk.png

      agentmtl eval answers --data ../shared/data/multihop/hotpotqa --limit 100 --json
    """
    from agentmtl.agent.agent import Agent
    from agentmtl.evaluate import evaluate_answers

    settings = settings_from(encoder=encoder, backend=backend)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_answers(
            data,
            lambda index: Agent(index, hops=hops),
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            split=split,
            limit=limit,
            seed=seed,
            plot=plot,
            commands=(_command(),),
            progress=watch,
        )
    _show(report, as_json)


def _show(report: Report | SetsReport, as_json: bool) -> None:
    if as_json:
        emit(report.to_json())
    else:
        say(report.to_text())


def _command() -> str:
    """This very command line, to be run again."""
    return shlex.join(["agentmtl", *sys.argv[1:]])
