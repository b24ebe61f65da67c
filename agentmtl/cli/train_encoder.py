"""agentmtl train encoder: the encoder itself, for retrieval and similarity, or for a corpus of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.evaluation_options import Indexes, command_line
from agentmtl.cli.output import (
    INDEXES,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    emit,
    index_folder,
    say,
    settings_from,
    tell,
    watching_steps,
)
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.learn.recipe import Watch
    from agentmtl.trunk.heads import Head


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
    adapt_to: Annotated[
        str | None,
        typer.Option("--adapt-to", metavar="INDEX", help="Adapt to an index, without labels."),
    ] = None,
    power: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --adapt-to: how far the corpus is whitened.")
    ] = 0.3,
    cycles: Annotated[
        int, typer.Option(min=0, help="With --adapt-to: train by so many cycles of labelling; 0: whiten.")
    ] = 0,
    queries: Annotated[int, typer.Option(min=1, help="With --adapt-to: made from the passages.")] = 1_500,
    teacher: Annotated[
        str,
        typer.Option("--teacher", metavar="DIR", help="With --adapt-to: a reranker that labels."),
    ] = "",
    epochs: Annotated[int, typer.Option(min=1, help="Over the sets, or of a cycle.")] = 1,
    limit: Annotated[int, typer.Option(min=0, help="Questions or pairs of each set; 0 for all.")] = 600,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 32,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 5e-4,
    tokens: Annotated[int, typer.Option(min=8, help="Of a text that are read in training.")] = 64,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Train only a layer over the trunk: minutes, not hours.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the encoder: retrieval from questions, similarity from graded pairs, and both merged.

    With --adapt-to it is fitted to an index's own passages without labels: directions in which they vary
    most count less; or, with --cycles, it learns from queries made out of them. An index uses the result
    that is built with --encoder default+OUT. A run that was stopped goes on when the same command is given
    again.

    Examples:

      agentmtl train encoder --data ../shared/data/reading/squad --data ../shared/data/sts --out heads/encoder

      agentmtl train encoder --data ../shared/data/reading/squad --limit 200 --out heads/quick --json

      agentmtl train encoder --adapt-to indexes/docs --out heads/docs
    """
    if bool(data) == bool(adapt_to):
        raise UsageError("What to learn from is not clear.", "Give --data DIR, or --adapt-to INDEX.")
    if adapt_to and not cycles and (teacher or frozen):
        raise UsageError(
            "Whitening trains nothing: --teacher and --frozen are for cycles.", "Add --cycles 2."
        )
    with watching_steps("training", quiet or as_json) as watch:
        if adapt_to:
            head = _adapt(
                adapt_to, out, indexes, watch, rank=rank, rate=rate, epochs=epochs, tokens=tokens, seed=seed,
                power=power, cycles=cycles, queries=queries, teacher=teacher, frozen=frozen,
            )  # fmt: skip
        else:
            head = _train(
                data or [], out, indexes, encoder, watch, rank=rank, rate=rate, epochs=epochs, limit=limit,
                tokens=tokens, seed=seed, frozen=frozen,
            )  # fmt: skip
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": head.card.to_json()})
    else:
        asked = "queries made from its passages" if adapt_to else "dev"
        scores = ", ".join(f"{n} {v:.3f}" for n, v in head.card.metrics["dev"].items())
        say(f"{out}: {scores} on {asked}")
        if adapt_to:
            tell(
                f"Whether it helps, questions of your own say: agentmtl eval encoder --data SET --head {out}"
            )


def _train(
    data: list[Path],
    out: Path,
    indexes: Path,
    encoder: str | None,
    watch: Watch,
    *,
    rank: int,
    rate: float,
    epochs: int,
    limit: int,
    tokens: int,
    seed: int,
    frozen: bool,
) -> Head:
    from agentmtl.learn.encoder_recipe import EncoderRecipe, train_encoder
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = EncoderRecipe(
        rank=rank, rate=rate, epochs=epochs, limit=limit, tokens=tokens, seed=seed, frozen=frozen
    )
    return train_encoder(files, data, out, recipe, indexes, command_line(), watch)


def _adapt(
    index: str,
    out: Path,
    indexes: Path,
    watch: Watch,
    *,
    rank: int,
    rate: float,
    epochs: int,
    tokens: int,
    seed: int,
    power: float,
    cycles: int,
    queries: int,
    teacher: str,
    frozen: bool,
) -> Head:
    from agentmtl.learn.adapting_recipe import AdaptRecipe, adapt_encoder
    from agentmtl.retrieval.index import Index

    recipe = AdaptRecipe(
        rank=rank, rate=rate, epochs=epochs, tokens=tokens, seed=seed, power=power, cycles=cycles,
        queries=queries, teacher=teacher, frozen=frozen,
    )  # fmt: skip
    opened = Index.open(index_folder(index))
    return adapt_encoder(opened, out, recipe, indexes, command_line(), watch)
