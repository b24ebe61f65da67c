"""agentmtl train …: make a head of the trunk from data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import command_line
from agentmtl.cli.output import EncoderFlag, JsonFlag, QuietFlag, emit, say, settings_from, watching_steps
from agentmtl.schema import SCHEMA_VERSION

app = typer.Typer(no_args_is_help=True, help="Make a head of the trunk from data.", rich_markup_mode=None)

Data = Annotated[
    list[Path], typer.Option("--data", metavar="DIR", help="A reading or multi-hop set; repeat for more.")
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the run and its head are kept.")]


@app.command("reader")
def reader(
    data: Data,
    out: Out,
    epochs: Annotated[int, typer.Option(min=1, help="Over the sets.")] = 3,
    cloze: Annotated[int, typer.Option(min=0, help="Questions made from the text to begin with.")] = 8_000,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 32,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 5e-4,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Examples of each set; 0 for all.")] = 0,
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the reader: which words of a passage answer a question, yes, no, or that none do.

    A run that was stopped goes on when the same command is given again.

    Examples:

      agentmtl train reader --data ../shared/data/reading/squad --out heads/reader

      agentmtl train reader --data ../shared/data/reading/squad --out heads/quick --limit 500 --cloze 0 --json
    """
    from agentmtl.learn.reader_recipe import ReaderRecipe, train_reader
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = ReaderRecipe(epochs=epochs, cloze=cloze, rank=rank, rate=rate, seed=seed, limit=limit)
    with watching_steps("training", quiet or as_json) as watch:
        head = train_reader(files, data, out, recipe, command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": head.card.to_json()})
    else:
        say(f"{out}: " + ", ".join(f"{n} {v:.3f}" for n, v in head.card.metrics["dev"].items()) + " on dev")
