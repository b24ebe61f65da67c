"""agentmtl eval reading and agentmtl eval reranker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import Data, Indexes, Limit, Seed, command_line, show
from agentmtl.cli.output import INDEXES, BackendFlag, JsonFlag, QuietFlag, settings_from, watching
from agentmtl.errors import UsageError


def reading(
    data: Data,
    head: Annotated[
        list[Path] | None,
        typer.Option("--head", help="A reader's head; repeat to compare. The shipped one without it."),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    split: Annotated[str, typer.Option("--split", help="test or train.")] = "test",
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """The reader over given contexts: answers, unanswerable questions, calibration.

    Examples:

      agentmtl eval reading --data ../shared/data/reading/squad

      agentmtl eval reading --data ../shared/data/reading/squad --limit 200 --json
    """
    from agentmtl.evaluate.reading import evaluate_reading
    from agentmtl.trunk.head_network import open_head
    from agentmtl.trunk.heads import shipped_head

    shipped = shipped_head("reader")
    folders = head or ([shipped] if shipped else [])
    if not folders:
        raise UsageError("No reader is installed.", "Give --head DIR, or train one: agentmtl train reader")
    used = settings_from(backend=backend).backend
    networks = {folder.name: open_head(folder, used) for folder in folders}
    with watching("reading", quiet or as_json) as watch:
        report = evaluate_reading(
            data,
            networks,
            split=split,
            limit=limit,
            seed=seed,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)


def reranker(
    data: Data,
    head: Annotated[
        Path | None, typer.Option("--head", help="A reranker's head; the shipped one without it.")
    ] = None,
    folds: Annotated[
        Path | None,
        typer.Option("--folds", help="Folder of rerankers fold-0, fold-1 …, for what they have not seen."),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="A distilled query head, to measure it too.")
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    split: Annotated[str, typer.Option("--split", help="Of a reading set: test or train.")] = "test",
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """What reading the first hits again, each with the question, adds to the fused search.

    Examples:

      agentmtl eval reranker --data ../shared/data/multihop/hotpotqa

      agentmtl eval reranker --data ../shared/data/reading/squad --limit 300 --json
    """
    from agentmtl.evaluate.held_out import open_folds
    from agentmtl.evaluate.reranking import evaluate_reranker
    from agentmtl.retrieval.query_tower import load_query_tower
    from agentmtl.retrieval.rerank import load_reranker
    from agentmtl.trunk.heads import shipped_head
    from agentmtl.trunk.loading import load_encoder

    folder = head or shipped_head("reranker")
    if folder is None:
        raise UsageError(
            "No reranker is installed.", "Give --head DIR, or train one: agentmtl train reranker"
        )
    used = settings_from(backend=backend).backend
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_reranker(
            data,
            load_reranker(head, used),
            folds=open_folds(folds, lambda path: load_reranker(path, used)) if folds else None,
            tower=load_query_tower(load_encoder(backend=used).identity, queries, used) if queries else None,
            index_root=indexes,
            backend=used,
            split=split,
            limit=limit,
            seed=seed,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)
