"""agentmtl train …: make a head of the trunk from data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli import (
    train_bank,
    train_demonstrations,
    train_encoder,
    train_identifiers,
    train_reward,
    train_segmenter,
    train_transfer,
)
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
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.trunk.heads import Head

app = typer.Typer(no_args_is_help=True, help="Make a head of the trunk from data.", rich_markup_mode=None)

Data = Annotated[
    list[Path], typer.Option("--data", metavar="DIR", help="A reading or multi-hop set; repeat for more.")
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the run and its head are kept.")]


Epochs = Annotated[int, typer.Option(min=1, help="Over the sets.")]
Rank = Annotated[int, typer.Option(min=1, help="Of the adapters.")]
Rate = Annotated[
    float | None, typer.Option(help="The highest learning rate: 1e-3 for adapters, 1e-4 with --whole.")
]
Whole = Annotated[bool, typer.Option("--whole", help="Train the trunk itself; keep a change of --rank.")]
OfDrawing = Annotated[int, typer.Option("--seed", help="Of everything drawn.")]
Layers = Annotated[int, typer.Option(min=0, help="Of the trunk, that are read; 0 for all.")]
Start = Annotated[str, typer.Option("--start", metavar="DIR", help="A head to train further.")]
Fold = Annotated[int, typer.Option(help="Leave this fold of multi-hop questions out; -1 for none.")]
Limit = Annotated[int, typer.Option(min=0, help="Questions of each set; 0 for all.")]


@app.command("reader")
def reader(
    data: Data,
    out: Out,
    epochs: Annotated[int, typer.Option(min=0, help="Over the sets; 0 stops after the made questions.")] = 3,
    cloze: Annotated[int, typer.Option(min=0, help="Questions made from the text to begin with.")] = 10_000,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="DIR", help="A set for its text alone; repeat.")
    ] = None,
    rank: Rank = 48,
    whole: Whole = False,
    rate: Rate = None,
    start: Start = "",
    replay_data: Annotated[
        list[str] | None, typer.Option("--replay-data", metavar="DIR", help="A set to rehearse; repeat.")
    ] = None,
    replay: Annotated[int, typer.Option(min=1, help="Examples of each of these, about.")] = 1_000,
    keep: Annotated[
        float, typer.Option(min=0, max=1, help="Share of --start's weights in the result.")
    ] = 0.0,
    indexes: Annotated[
        Path | None, typer.Option("--indexes", help="Read multi-hop sets over what is retrieved; kept here.")
    ] = None,
    distractors: Annotated[
        int, typer.Option(min=0, help="With --indexes, contexts of reading sets that are found in vain.")
    ] = 0,
    fold: Fold = -1,
    folds: Annotated[int, typer.Option(min=2, help="How many folds there are.")] = 3,
    seed: OfDrawing = 0,
    limit: Limit = 0,
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
    recipe = ReaderRecipe(
        epochs=epochs, cloze=cloze, rank=rank, whole=whole, rate=_rate(rate, whole), seed=seed, limit=limit,
        start=start, fold=fold, folds=folds, texts=tuple(text or ()), replays=tuple(replay_data or ()),
        replay=replay, keep=keep, distractors=distractors,
    )  # fmt: skip
    with watching_steps("training", quiet or as_json) as watch:
        head = train_reader(files, data, out, recipe, command_line(), watch, indexes)
    _show(head, out, as_json)


@app.command("confidence")
def confidence(
    head: Annotated[
        Path, typer.Option("--head", metavar="DIR", help="The reader's head; its card is changed.")
    ],
    data: Data,
    folds: Annotated[
        Path | None, typer.Option("--folds", help="Folder of heads fold-0, fold-1 … for multi-hop questions.")
    ] = None,
    judges: Annotated[
        Path | None, typer.Option("--judges", help="Folder of hops heads fold-0, fold-1 …, to search with.")
    ] = None,
    limit: Limit = 0,
    seed: OfDrawing = 0,
    indexes: Indexes = INDEXES / "eval",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit how sure the reader's answers are, by asking it questions whose answers are known.

    Examples:

      agentmtl train confidence --head heads/reader --data ../shared/data/reading/squad --limit 500

      agentmtl train confidence --head heads/r --folds heads --data ../shared/data/multihop/hotpotqa --json
    """
    from agentmtl.learn.asking import calibrate_asking

    with watching("asking", quiet or as_json) as watch:
        fitted = calibrate_asking(head, folds, data, indexes, judges, limit, seed, watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "head": str(head), "calibration": fitted.to_json()})
    else:
        say(f"{head}: answers below a confidence of {fitted.asked_threshold:.2f} are not given.")


@app.command("reranker")
def reranker(
    data: Data,
    out: Out,
    epochs: Epochs = 1,
    rank: Rank = 48,
    whole: Whole = False,
    rate: Rate = None,
    layers: Layers = 4,
    start: Start = "",
    fold: Fold = -1,
    folds: Annotated[int, typer.Option(min=2, help="How many folds there are.")] = 2,
    seed: OfDrawing = 0,
    limit: Limit = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the reranker: which of the passages found for a question holds its answer.

    A run that was stopped goes on when the same command is given again.

    Examples:

      agentmtl train reranker --data ../shared/data/reading/squad --out heads/reranker

      agentmtl train reranker --data ../shared/data/reading/squad --out heads/quick --limit 300 --json
    """
    from agentmtl.learn.reranker_recipe import RerankerRecipe, train_reranker
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = RerankerRecipe(
        epochs=epochs, rank=rank, whole=whole, rate=_rate(rate, whole), layers=layers, start=start, fold=fold,
        folds=folds, seed=seed, limit=limit,
    )  # fmt: skip
    with watching_steps("training", quiet or as_json) as watch:
        head = train_reranker(files, data, out, recipe, indexes, command_line(), watch)
    _show(head, out, as_json)


@app.command("hops")
def hops(
    data: Data,
    out: Out,
    epochs: Epochs = 2,
    rank: Rank = 48,
    whole: Whole = False,
    rate: Rate = None,
    layers: Layers = 0,
    start: Start = "",
    folds: Annotated[int, typer.Option(min=2, help="Heads that leave one fold out, to fit weights.")] = 2,
    seed: OfDrawing = 0,
    limit: Limit = 300,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the hops head: whether a passage is the next piece of evidence after those found so far.

    Heads that leave a fold of the questions out are kept in OUT/fold-0 …, to measure with. A run that was
    stopped goes on when the same command is given again.

    Examples:

      agentmtl train hops --data ../shared/data/multihop/hotpotqa --out heads/hops

      agentmtl train hops --data ../shared/data/multihop/hotpotqa --out heads/quick --limit 100 --json
    """
    from agentmtl.learn.hops_recipe import HopsRecipe, train_hops_head
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = HopsRecipe(
        epochs=epochs, rank=rank, whole=whole, rate=_rate(rate, whole), layers=layers, start=start,
        folds=folds, seed=seed, limit=limit,
    )  # fmt: skip
    with watching_steps("training", quiet or as_json) as watch:
        head = train_hops_head(files, data, out, recipe, indexes, command_line(), watch)
    _show(head, out, as_json)


@app.command("queries")
def queries(
    data: Data,
    out: Out,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="DIR", help="A reranker's head; the shipped one without."),
    ] = None,
    epochs: Epochs = 4,
    rank: Rank = 32,
    rate: Rate = 5e-4,
    seed: OfDrawing = 0,
    limit: Limit = 1_500,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Teach the encoder's query side what the reranker knows; indexes stay as they are.

    Examples:

      agentmtl train queries --data ../shared/data/reading/squad --out heads/queries

      agentmtl train queries --data ../shared/data/reading/squad --teacher heads/r --out heads/q --json
    """
    from agentmtl.learn.distil import QueriesRecipe, train_queries
    from agentmtl.trunk.heads import shipped_head
    from agentmtl.trunk.loading import model_files

    folder = teacher or shipped_head("reranker")
    if folder is None:
        raise UsageError("No reranker is installed.", "Give --teacher DIR, or train one first.")
    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = QueriesRecipe(
        teacher=str(folder), epochs=epochs, rank=rank, rate=rate or 5e-4, seed=seed, limit=limit
    )
    with watching_steps("training", quiet or as_json) as watch:
        head = train_queries(files, data, out, recipe, indexes, command_line(), watch)
    _show(head, out, as_json)


app.command("transfer")(train_transfer.transfer)
app.command("reward")(train_reward.reward)
app.command("demonstrations")(train_demonstrations.demonstrations)
app.command("bank")(train_bank.bank)
app.command("segmenter")(train_segmenter.segmenter)
app.command("identifiers")(train_identifiers.identifiers)
app.command("encoder")(train_encoder.encoder)


@app.command("router")
def router(
    rows: Annotated[
        Path, typer.Option("--rows", metavar="FILE", help="Lines of query, expert, score and cost.")
    ],
    out: Out,
    neighbours: Annotated[int, typer.Option(min=1, help="Rows near a query that count.")] = 60,
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit a router: which expert answers what well, from scores that were logged or given.

    Examples:

      agentmtl train router --rows rows.jsonl --out heads/router

      agentmtl train router --rows rows.jsonl --out heads/router --neighbours 50 --json
    """
    from agentmtl.learn.router import train_router
    from agentmtl.routing.fitted import RouterSettings
    from agentmtl.trunk import load_encoder

    settings = settings_from(encoder=encoder)
    loaded = load_encoder(settings.encoder, backend=settings.backend)
    with watching("encoding", quiet or as_json) as watch:
        fitted = train_router(rows, loaded, out, RouterSettings(neighbours), command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "experts": list(fitted.experts), **fitted.details})
    else:
        say(f"Fitted on {fitted.details['queries']:,} queries for {', '.join(fitted.experts)}: {out}")


def _rate(rate: float | None, whole: bool) -> float:
    return rate or (1e-4 if whole else 1e-3)


def _show(head: Head, out: Path, as_json: bool) -> None:
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": head.card.to_json()})
    else:
        say(f"{out}: " + ", ".join(f"{n} {v:.3f}" for n, v in head.card.metrics["dev"].items()) + " on dev")
