"""agentmtl eval identifiers."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import Data, Indexes, Limit, Seed, command_line, show
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    ProposerFlag,
    QuietFlag,
    settings_from,
    watching,
)


def identifiers(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    proposer: ProposerFlag = None,
    split: Annotated[str, typer.Option("--split", help="Of a reading set: test or train.")] = "test",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """What n-gram identifiers add to dense and lexical search, for sentences and for passages.

    With --proposer, also what a trained decoder proposes, and each of its sources alone.

    Examples:

      agentmtl eval identifiers --data ../shared/data/reading/squad

      agentmtl eval identifiers --data ../shared/data/multihop/hotpotqa --json
    """
    from agentmtl.evaluate.identifiers import evaluate_identifiers

    settings = settings_from(encoder=encoder, backend=backend)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_identifiers(
            data,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            split=split,
            limit=limit,
            proposer=proposer,
            seed=seed,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)
