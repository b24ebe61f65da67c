"""agentmtl eval segmentation and agentmtl eval chunking."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import Data, Indexes, Limit, Seed, command_line, show
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    SegmenterFlag,
    segmenter_name,
    settings_from,
    watching,
)


def segmentation(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    segmenter: SegmenterFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """P_k and WindowDiff of the topic segmenter, beside the untrained one and TextTiling.

    Examples:

      agentmtl eval segmentation --data ../shared/data/segmentation/choi

      agentmtl eval segmentation --data ../shared/data/segmentation/choi --limit 40 --json
    """
    from agentmtl.evaluate.segmentation import evaluate_segmentation

    settings = settings_from(encoder=encoder, backend=backend)
    report = evaluate_segmentation(
        data,
        encoder=settings.encoder,
        backend=settings.backend,
        limit=limit,
        seed=seed,
        segmenter=segmenter_name(segmenter),
        commands=(command_line(),),
    )
    show(report, as_json)


def chunking(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    segmenter: SegmenterFlag = None,
    split: Annotated[str, typer.Option("--split", help="test or train.")] = "test",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Evidence recall of chunkers at equal token budgets, on articles rejoined from their contexts.

    Examples:

      agentmtl eval chunking --data ../shared/data/reading/squad

      agentmtl eval chunking --data ../shared/data/reading/squad --limit 500 --json
    """
    from agentmtl.evaluate.chunking import evaluate_chunking

    settings = settings_from(encoder=encoder, backend=backend)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_chunking(
            data,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            split=split,
            limit=limit,
            seed=seed,
            segmenter=segmenter_name(segmenter),
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)
