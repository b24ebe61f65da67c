"""agentmtl train segmenter: where the topic of a text changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import command_line
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    emit,
    say,
    settings_from,
    watching_steps,
)
from agentmtl.schema import SCHEMA_VERSION


def segmenter(
    data: Annotated[
        list[Path],
        typer.Option("--data", metavar="DIR", help="A reading or multi-hop set, for its titles; repeat."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the run and the segmenter are kept.")
    ],
    documents: Annotated[int, typer.Option(min=6, help="Put together of pieces, to fit by.")] = 480,
    limit: Annotated[int, typer.Option(min=0, help="Sentences of a title; 0 for all.")] = 90,
    rank: Annotated[int, typer.Option(min=2, help="Dimensions of the map.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Over the documents.")] = 5,
    cache: Annotated[Path, typer.Option(help="Sentence vectors are kept here.")] = INDEXES / "segmenter",
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train what cuts texts where their topic changes, from texts of many titles.

    A run that was stopped goes on when the same command is given again.

    Examples:

      agentmtl train segmenter --data ../shared/data/reading/squad --out heads/segmenter

      agentmtl train segmenter --data sets/mine --documents 30 --out heads/mine --json
    """
    from agentmtl.learn.segmenter_recipe import SegmenterRecipe, train_segmenter
    from agentmtl.trunk import load_encoder

    settings = settings_from(encoder=encoder, backend=backend)
    loaded = load_encoder(settings.encoder, backend=settings.backend)
    recipe = SegmenterRecipe(rank=rank, documents=documents, limit=limit, epochs=epochs, seed=seed)
    with watching_steps("training", quiet or as_json) as watch:
        fitted = train_segmenter(loaded, data, out, recipe, cache, command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": dict(fitted.card)})
    else:
        say(
            f"{out}: "
            + ", ".join(f"{n} {v:.3f}" for n, v in fitted.card["metrics"]["dev"].items())
            + " on dev"
        )
        say(f"Use it: agentmtl index build DIR --chunker topics --segmenter {out} --out INDEX")
