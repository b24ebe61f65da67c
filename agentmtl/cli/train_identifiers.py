"""agentmtl train identifiers: a decoder over the trunk that says which n-grams a wanted text holds."""

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


def identifiers(
    data: Annotated[
        list[Path], typer.Option("--data", metavar="DIR", help="A reading or multi-hop set; repeat for more.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the run and its decoder are kept.")
    ],
    epochs: Annotated[int, typer.Option(min=1, help="Of generation.")] = 1,
    ranking_epochs: Annotated[int, typer.Option(min=0, help="Of ranking; 0 for none.")] = 2,
    ranked: Annotated[int, typer.Option(min=0, help="Questions that are ranked; 0 for all.")] = 0,
    margin: Annotated[
        float, typer.Option(min=0, help="Of a hinge between two fused scores in ranking; 0: a softmax.")
    ] = 0.0,
    prompts: Annotated[str, typer.Option(help="Of the level: discrete, soft or hybrid.")] = "hybrid",
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Questions of each set; 0 for all.")] = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the decoder that proposes identifiers: which n-grams the sentence or passage holds that is
    wanted.

    First it learns to say n-grams of gold texts, then to rank gold sentences by them. A run that was stopped
    goes on when the same command is given again.

    Examples:

      agentmtl train identifiers --data ../shared/data/reading/squad --out heads/identifiers

      agentmtl train identifiers --data ../shared/data/reading/squad --out heads/quick --limit 300 --json
    """
    from agentmtl.learn.identifiers_recipe import IdentifiersRecipe, train_identifiers
    from agentmtl.trunk.decoder import PROMPTS
    from agentmtl.trunk.loading import model_files

    if prompts not in PROMPTS:
        raise UsageError(f"{prompts!r} is no kind of prompt.", f"Choose one of {', '.join(PROMPTS)}.")
    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = IdentifiersRecipe(
        epochs=epochs, ranking_epochs=ranking_epochs, ranked=ranked, rate=rate, seed=seed, limit=limit,
        margin=margin, prompts=prompts,
    )  # fmt: skip
    with watching_steps("training", quiet or as_json) as watch:
        card = train_identifiers(files, data, out, recipe, indexes, command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": card.to_json()})
    else:
        say(f"{out}: " + ", ".join(f"{n} {v:.3f}" for n, v in card.metrics["dev"].items()) + " on dev")
        place = f"./{out}" if len(out.parts) == 1 else str(out)  # not one that comes with the package
        say(f"Use it: agentmtl search QUERY --level sentence --proposer {place}")
