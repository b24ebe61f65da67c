"""What the reranker adds to the fused search: `agentmtl eval reranker`.

Passages of multi-hop sets, and the contexts of reading sets' test files, ranked by distinct source with ties
by expectation. The reranker reads the first twenty hits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentmtl.evaluate.bootstrap import mean_of
from agentmtl.evaluate.datasets import KINDS, DataSet, find_sets, read_set, sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent
from agentmtl.evaluate.metrics import Ranking, mrr_at, ndcg_at, recall_at
from agentmtl.evaluate.report import AnyReport, Report, combine, figures
from agentmtl.index.batch import Progress
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.index import EncoderSpec
from agentmtl.retrieval.rerank import DEPTH, Reranker

BENCHMARK = "reranker"
FUSED, RERANKED = "fused", "reranked"
_K = 10
_HITS = 60  # asked for, so that ten distinct sources are among them


def evaluate_reranker(
    data: Path,
    reranker: Reranker,
    *,
    index_root: Path = DEFAULT_ROOT,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    commands: Sequence[str] = (),
    progress: Progress = silent,
) -> AnyReport:
    """The fused search with and without the reranker on a set, or on every one in a folder.

    Raises UsageError, IngestError and what building an index raises.
    """
    found = find_sets(data, KINDS)
    reports = [
        _evaluate(
            read_set(folder, split), reranker, index_root, encoder, backend, limit, seed, commands, progress
        )
        for folder in found.sets
    ]
    if found.single:
        return reports[0]
    return combine(BENCHMARK, str(data), seed, reports, found.skipped)


def _evaluate(
    data: DataSet,
    reranker: Reranker,
    root: Path,
    encoder: EncoderSpec,
    backend: str,
    limit: int | None,
    seed: int,
    commands: Sequence[str],
    progress: Progress,
) -> Report:
    started = time.perf_counter()
    questions = sample([q for q in data.questions if q.gold], limit, seed)
    index = index_for(data, root, encoder=encoder, backend=backend, progress=progress)
    index.add_stream()
    rows: dict[str, list[dict[str, float]]] = {FUSED: [], RERANKED: []}
    spent = 0.0
    for question in questions:
        hits = index.retriever.retrieve(question.question, k=_HITS, where=question.where)
        at = time.perf_counter()
        reordered = reranker.rerank(question.question, hits)
        spent += time.perf_counter() - at
        for name, ranked in ((FUSED, hits), (RERANKED, reordered)):
            rows[name].append(_metrics(by_source(ranked), set(question.gold)))
    measured = {
        name: {metric: mean_of([row[metric] for row in mine]) for metric in mine[0]}
        for name, mine in rows.items()
    }
    gained = {
        metric: mean_of([a[metric] - b[metric] for a, b in zip(rows[RERANKED], rows[FUSED], strict=True)])
        for metric in rows[FUSED][0]
    }
    compared = {f"{RERANKED} - {FUSED}": gained}
    return Report(
        BENCHMARK, data.name, len(questions), seed, figures(measured, seed), RERANKED,
        time.perf_counter() - started, tuple(commands), figures(compared, seed),
        details={
            "sha256": data.sha256, "depth": DEPTH, "weight": reranker.weight,
            "milliseconds a question": 1000 * spent / len(questions),
        },
        measured=measured, compared=compared,
    )  # fmt: skip


def _metrics(ranking: Ranking, gold: set[str]) -> dict[str, float]:
    return {
        f"mrr@{_K}": mrr_at(ranking, gold, _K),
        "recall@2": recall_at(ranking, gold, 2),
        "recall@5": recall_at(ranking, gold, 5),
        f"ndcg@{_K}": ndcg_at(ranking, gold, _K),
    }


def by_source(hits: Hits) -> list[tuple[str, float]]:
    """Distinct sources, each where its best unit stands."""
    best: dict[str, float] = {}
    for hit, score in zip(hits, np.asarray(hits.scores, float).tolist(), strict=True):
        best.setdefault(hit.unit.source_id, score)
    return list(best.items())
