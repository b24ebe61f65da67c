"""agentmtl eval encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import Indexes, Limit, Seed, command_line, show
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    settings_from,
    watching,
)


def encoder(
    data: Annotated[
        list[Path],
        typer.Option("--data", metavar="DIR", help="A judged, multi-hop or graded set; repeat for more."),
    ],
    heads: Annotated[
        list[Path] | None,
        typer.Option("--head", metavar="DIR", help="A head of train encoder; repeat to compare."),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Encoders side by side on retrieval and similarity: the frozen trunk and heads, differences paired.

    Examples:

      agentmtl eval encoder --data ../shared/data/ir/cranfield --data ../shared/data/sts --head heads/encoder

      agentmtl eval encoder --data ../shared/data/multihop/entailmentbank --head heads/mine --limit 300 --json
    """
    from agentmtl.evaluate.encoders import evaluate_encoders, together

    settings = settings_from(encoder=encoder, backend=backend)
    with watching("encoding", quiet or as_json) as watch:
        reports = evaluate_encoders(
            data,
            heads or [],
            encoder=settings.encoder,
            backend=settings.backend,
            limit=limit,
            seed=seed,
            cache=indexes,
            commands=(command_line(),),
            watch=watch,
        )
    show(together(reports, seed), as_json)
