"""agentmtl train encoder: the encoder itself, for retrieval and similarity, or for a corpus of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import Indexes, command_line
from agentmtl.cli.output import (
    INDEXES,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    emit,
    say,
    settings_from,
    watching_steps,
)
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION


def encoder(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the run and its heads are kept.")
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", metavar="DIR", help="A reading, multi-hop or graded set (a, b, score); repeat."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Over the sets.")] = 1,
    limit: Annotated[int, typer.Option(min=0, help="Questions or pairs of each set; 0 for all.")] = 600,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 32,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 5e-4,
    tokens: Annotated[int, typer.Option(min=8, help="Of a text that are read in training.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the encoder: retrieval from questions, similarity from graded pairs, and both merged.

    An index uses it that is built with --encoder default+OUT. A run that was stopped goes on when the same
    command is given again.

    Examples:

      agentmtl train encoder --data ../shared/data/reading/squad --data ../shared/data/sts --out heads/encoder

      agentmtl train encoder --data ../shared/data/reading/squad --limit 200 --out heads/quick --json
    """
    from agentmtl.learn.encoder_recipe import EncoderRecipe, train_encoder
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    if not data:
        raise UsageError("There is nothing to learn from.", "Give --data DIR.")
    recipe = EncoderRecipe(rank=rank, rate=rate, epochs=epochs, limit=limit, tokens=tokens, seed=seed)
    with watching_steps("training", quiet or as_json) as watch:
        head = train_encoder(files, data, out, recipe, indexes, command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": head.card.to_json()})
    else:
        say(f"{out}: " + ", ".join(f"{n} {v:.3f}" for n, v in head.card.metrics["dev"].items()) + " on dev")
