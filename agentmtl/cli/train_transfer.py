"""agentmtl train transfer and agentmtl eval heads."""

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
    watching,
    watching_steps,
)
from agentmtl.schema import SCHEMA_VERSION

Data = Annotated[
    list[Path], typer.Option("--data", metavar="DIR", help="A reading or multi-hop set; repeat for more.")
]


def transfer(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the runs are kept.")],
    limit: Annotated[int, typer.Option(min=0, help="Examples of each set; 0 for all.")] = 600,
    epochs: Annotated[int, typer.Option(min=1, help="Over the examples.")] = 1,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 48,
    rate: Annotated[float, typer.Option(help="The adapters' highest learning rate.")] = 1e-3,
    start: Annotated[str, typer.Option("--start", metavar="DIR", help="A head to begin with.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train reader, reranker and hops alone, jointly and merged, to see whether one harms another.

    Examples:

      agentmtl train transfer --out heads/t --data ../shared/data/multihop/hotpotqa

      agentmtl train transfer --data ../shared/data/multihop/hotpotqa --limit 100 --out heads/quick --json
    """
    from agentmtl.learn.transfer import TransferRecipe, train_transfer
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = TransferRecipe(limit=limit, epochs=epochs, rank=rank, rate=rate, start=start, seed=seed)
    with watching_steps("training", quiet or as_json) as watch:
        table = train_transfer(files, data, out, recipe, indexes, command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "dev": table})
    else:
        for kind, scores in table.items():
            say(
                f"{kind:8} " + "  ".join(f"{name} {score:.3f}" for name, score in scores.items()) + "  on dev"
            )


def heads(
    data: Data,
    folder: Annotated[Path, typer.Option("--heads", metavar="DIR", help="What `train transfer` made.")],
    limit: Annotated[int, typer.Option(min=0, help="Examples of each set; 0 for all.")] = 300,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap and of --limit.")] = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """One table a head: frozen trunk, full fine-tuning, single-task head, joint, merged.

    Examples:

      agentmtl eval heads --heads heads/transfer --data ../shared/data/reading/squad

      agentmtl eval heads --heads heads/transfer --data ../shared/data/multihop/hotpotqa --limit 100 --json
    """
    from agentmtl.learn.transfer_report import evaluate_heads
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    with watching("measuring", quiet or as_json) as watch:
        reports = evaluate_heads(
            files, data, folder, indexes=indexes, limit=limit, seed=seed, commands=(command_line(),),
            progress=watch,
        )  # fmt: skip
    if as_json:
        emit({"schema": SCHEMA_VERSION, "benchmark": "heads", "tables": [r.to_json() for r in reports]})
        return
    for report in reports:
        say(report.to_text())
        for kind, facts in report.details["heads"].items():
            say(f"  {kind:8} " + "  ".join(f"{name} {value:,}" for name, value in facts.items()))
        say()
