"""agentmtl eval ir and agentmtl eval multihop-rag."""

from __future__ import annotations

from agentmtl.cli.evaluation_options import Data, Indexes, Limit, Seed, command_line, show
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    settings_from,
    watching,
)


def ir(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """nDCG@10, MAP and recall@100 on a judged collection, by ir-measures.

    Examples:

      agentmtl eval ir --data ../shared/data/ir/cranfield

      agentmtl eval ir --data ../shared/data/ir/cranfield --limit 50 --json
    """
    from agentmtl.evaluate.ir import evaluate_ir

    settings = settings_from(encoder=encoder, backend=backend)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_ir(
            data,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            limit=limit,
            seed=seed,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)


def multihop_rag(
    data: Data,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """MultiHop-RAG: the official retrieval metrics and honest ones. You supply corpus.json, MultiHopRAG.json.

    Examples:

      agentmtl eval multihop-rag --data multihop-rag

      agentmtl eval multihop-rag --data multihop-rag --limit 200 --json
    """
    from agentmtl.evaluate.multihop_rag import evaluate_multihop_rag

    settings = settings_from(encoder=encoder, backend=backend)
    with watching("indexing", quiet or as_json) as watch:
        report = evaluate_multihop_rag(
            data,
            index_root=indexes,
            encoder=settings.encoder,
            backend=settings.backend,
            limit=limit,
            seed=seed,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)
