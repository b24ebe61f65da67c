"""agentmtl eval demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import Data, Indexes, Limit, Seed, command_line, show
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    settings_from,
    watching,
)
from agentmtl.errors import UsageError


def demonstrations(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    ks: Annotated[str, typer.Option("--ks", help="Numbers of demonstrations.")] = "1,2,4,8,16",
    plot: Annotated[Path | None, typer.Option("--plot", help="Write accuracy over k here (PNG).")] = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """The demonstration voter on labelled tasks: random, lexical, dense and fused selection.

    Examples:

      agentmtl eval demonstrations --data ../shared/data/demonstrations --plot k.png

      agentmtl eval demonstrations --data ../shared/data/demonstrations/trec --limit 200 --json
    """
    from agentmtl.evaluate.demonstrations import evaluate_demonstrations

    if not all(part.strip().isdigit() and int(part) for part in ks.split(",")):
        raise UsageError(f"{ks!r} is not a list of numbers.", "Give them as --ks 1,2,4,8,16.")
    settings = settings_from(encoder=encoder, backend=backend)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_demonstrations(
            data,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            limit=limit,
            seed=seed,
            ks=[int(part) for part in ks.split(",")],
            plot=plot,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)
