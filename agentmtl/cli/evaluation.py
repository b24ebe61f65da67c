"""agentmtl eval …: the published numbers, each with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli import (
    evaluate_demonstrations,
    evaluate_encoder,
    evaluate_identifiers,
    evaluate_ir,
    evaluate_reading,
    evaluate_routing,
    evaluate_segmentation,
    train_bank,
    train_transfer,
)
from agentmtl.cli.evaluation_options import Data, Indexes, Judges, Limit, Seed, command_line, show
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    ExpertFlag,
    JsonFlag,
    JudgeFlag,
    QuietFlag,
    settings_from,
    watching,
)
from agentmtl.errors import UsageError

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.evaluate.answers import AgentFactory, HeldOut
    from agentmtl.retrieval.index import Index

app = typer.Typer(
    no_args_is_help=True, help="The published numbers, each with its interval.", rich_markup_mode=None
)


@app.command("multihop")
def multihop(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    hops: Annotated[int, typer.Option("--hops", help="Retrieval steps, at most.", min=1, max=4)] = 2,
    judge: JudgeFlag = "none",
    judges: Judges = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Passage retrieval for questions with known gold: channels, their fusion, several hops, ablations.

    Examples:

      agentmtl eval multihop --data ../shared/data/multihop/2wiki

      agentmtl eval multihop --data ../shared/data/multihop --limit 50 --json
    """
    from agentmtl.evaluate import evaluate_multihop
    from agentmtl.evaluate.held_out import open_folds
    from agentmtl.experts.default import embedded_judge
    from agentmtl.retrieval.hops.judge import HopJudge
    from agentmtl.trunk.head_network import open_head
    from agentmtl.trunk.loading import load_encoder

    settings = settings_from(encoder=encoder, backend=backend)
    used = settings.backend
    reads = open_folds(judges, lambda path: HopJudge(open_head(path, used))) if judges else None
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_multihop(
            data,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            limit=limit,
            seed=seed,
            hops=hops,
            judge=embedded_judge(judge, load_encoder(settings.encoder, backend=used).identity, used),
            judges=reads,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)


@app.command("answers")
def answers(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    split: Annotated[str, typer.Option("--split", help="Of a reading set: test or train.")] = "test",
    hops: Annotated[int, typer.Option("--hops", help="Retrieval steps, at most.", min=1, max=4)] = 2,
    expert: ExpertFlag = "auto",
    folds: Annotated[
        Path | None,
        typer.Option(
            "--folds", help="Folder of heads fold-0, fold-1 …: each answers the questions it left out."
        ),
    ] = None,
    judge: JudgeFlag = "none",
    judges: Judges = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Abstain below it; -1: calibrated.")] = -1.0,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the risk–coverage plot here (PNG).")
    ] = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Answers end to end: is the gold answer in the cited sentences, and does the agent know when not?

    Examples:

      agentmtl eval answers --data ../shared/data/reading/squad --plot risk.png

      agentmtl eval answers --data ../shared/data/multihop/hotpotqa --limit 100 --json
    """
    from agentmtl.evaluate import evaluate_answers

    settings = settings_from(encoder=encoder, backend=backend)
    make = _agents(hops, expert, judge, threshold, settings.backend, folds, judges)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_answers(
            data,
            make,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            split=split,
            limit=limit,
            seed=seed,
            plot=plot,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)


def _agents(
    hops: int,
    expert: str,
    judge: str,
    threshold: float,
    backend: str,
    folds: Path | None,
    judges: Path | None,
) -> AgentFactory:
    """Makes an index's agent; with folds, of heads and weights that have not seen the question."""
    from agentmtl.agent.agent import Agent
    from agentmtl.evaluate.answers import HeldOut
    from agentmtl.evaluate.held_out import open_folds
    from agentmtl.experts.default import NONE
    from agentmtl.experts.reader import ReaderExpert
    from agentmtl.retrieval.hops.judge import HopJudge
    from agentmtl.retrieval.hops.model import shipped
    from agentmtl.trunk.head_network import open_head

    readers = open_folds(folds, lambda path: ReaderExpert(open_head(path, backend))) if folds else None
    reads = open_folds(judges, lambda path: HopJudge(open_head(path, backend))) if judges else None
    if readers and not reads and judge != NONE:  # what it says would not be held out
        raise UsageError("The hops head may have seen the questions.", "Give --judges DIR, or --judge none.")

    def make(index: Index) -> Agent | HeldOut:
        whole = Agent(index, hops=hops, expert=expert, judge=judge, threshold=threshold, backend=backend)
        if readers is None and reads is None:
            return whole
        return HeldOut(
            lambda question: Agent(
                index,
                hops=hops,
                expert=readers.of(question) if readers else whole.expert,
                judge=reads.of(question) if reads else judge,
                hop_model=shipped().without(question),
                threshold=threshold,
                backend=backend,
            )
        )

    return make


app.command("demonstrations")(evaluate_demonstrations.demonstrations)
app.command("bank")(train_bank.evaluate)
app.command("encoder")(evaluate_encoder.encoder)
app.command("ir")(evaluate_ir.ir)
app.command("multihop-rag")(evaluate_ir.multihop_rag)
app.command("segmentation")(evaluate_segmentation.segmentation)
app.command("chunking")(evaluate_segmentation.chunking)
app.command("heads")(train_transfer.heads)
app.command("reading")(evaluate_reading.reading)
app.command("reranker")(evaluate_reading.reranker)
app.command("routing")(evaluate_routing.routing)
app.command("identifiers")(evaluate_identifiers.identifiers)
