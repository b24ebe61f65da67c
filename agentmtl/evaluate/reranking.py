"""What the reranker adds to the fused search: `agentmtl eval reranker`.

Passages of multi-hop sets, and the contexts of reading sets' test files, ranked by distinct source with ties
by expectation. The reranker reads the first twenty hits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentmtl.evaluate.bootstrap import mean_of
from agentmtl.evaluate.datasets import KINDS, DataSet, Question, find_sets, read_set, sample
from agentmtl.evaluate.held_out import Folds
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent
from agentmtl.evaluate.metrics import Ranking, mrr_at, ndcg_at, recall_at
from agentmtl.evaluate.report import AnyReport, Report, combine, figures
from agentmtl.index.batch import Progress
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.index import EncoderSpec
from agentmtl.retrieval.query_tower import QueryTower
from agentmtl.retrieval.rerank import DEPTH, Reranker
from agentmtl.retrieval.retriever import Channel, Retriever
from agentmtl.trunk.encoder import Vectors

BENCHMARK = "reranker"
FUSED, RERANKED = "fused", "reranked"
DENSE, DISTILLED, FUSED_DISTILLED = "dense", "dense distilled", "fused distilled"
_K = 10
_HITS = 60  # asked for, so that ten distinct sources are among them


def evaluate_reranker(
    data: Path,
    reranker: Reranker,
    *,
    folds: Folds[Reranker] | None = None,
    tower: QueryTower | None = None,
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

    `folds`: rerankers that have each not seen a fold, for sets that the reranker was trained on. `tower`: the
    distilled query side, measured as the dense channel and in the fusion. Raises UsageError, IngestError and
    what building an index raises.
    """
    found = find_sets(data, KINDS)
    settings = _Settings(
        reranker, folds, tower, index_root, encoder, backend, limit, seed, tuple(commands), progress
    )
    reports = [_evaluate(read_set(folder, split), settings) for folder in found.sets]
    if found.single:
        return reports[0]
    return combine(BENCHMARK, str(data), seed, reports, found.skipped)


@dataclass(frozen=True, slots=True)
class _Settings:
    reranker: Reranker
    folds: Folds[Reranker] | None
    tower: QueryTower | None
    index_root: Path
    encoder: EncoderSpec
    backend: str
    limit: int | None
    seed: int
    commands: tuple[str, ...]
    progress: Progress

    def is_held_out(self, data: DataSet) -> bool:
        """Whether there are rerankers that have each not seen a fold of this set's questions."""
        folded = self.folds is not None and self.folds.parts[0].is_trained_on(data.sha256)
        return folded and data.kind != "reading"

    def reranker_for(self, data: DataSet, question: Question) -> Reranker:
        """One that has not seen the question, where there is one."""
        return self.folds.of(question.id) if self.folds and self.is_held_out(data) else self.reranker


def _evaluate(data: DataSet, settings: _Settings) -> Report:
    started = time.perf_counter()
    questions = sample([q for q in data.questions if q.gold], settings.limit, settings.seed)
    index = index_for(
        data, settings.index_root, encoder=settings.encoder, backend=settings.backend,
        progress=settings.progress,
    )  # fmt: skip
    index.add_stream()
    rows: dict[str, list[dict[str, float]]] = {}
    spent = 0.0
    for question in questions:
        gold = set(question.gold)
        found = _first_stage(index.retriever, question, settings.tower)
        at = time.perf_counter()
        found[RERANKED] = settings.reranker_for(data, question).rerank(question.question, found[FUSED])
        spent += time.perf_counter() - at
        for name, hits in found.items():
            rows.setdefault(name, []).append(_metrics(by_source(hits), gold))
    columns = {n: {m: np.array([row[m] for row in mine]) for m in mine[0]} for n, mine in rows.items()}
    measured = {n: {m: mean_of(column) for m, column in mine.items()} for n, mine in columns.items()}
    pairs = [(RERANKED, FUSED)]
    if settings.tower is not None:
        pairs += [(DISTILLED, DENSE), (FUSED_DISTILLED, FUSED)]
    compared = {
        f"{a} - {b}": {m: mean_of(columns[a][m] - columns[b][m]) for m in columns[a]} for a, b in pairs
    }
    seen = {
        "reranker": settings.reranker.is_trained_on(data.sha256) and not settings.is_held_out(data),
        "queries": settings.tower is not None and settings.tower.is_trained_on(data.sha256),
    }
    return Report(
        BENCHMARK, data.name, len(questions), settings.seed, figures(measured, settings.seed), RERANKED,
        time.perf_counter() - started, settings.commands, figures(compared, settings.seed),
        details={
            "sha256": data.sha256, "depth": DEPTH, "weight": settings.reranker.weight,
            "have seen the questions": seen,
            "milliseconds a question": 1000 * spent / len(questions),
        },
        measured=measured, compared=compared,
    )  # fmt: skip


def _first_stage(retriever: Retriever, question: Question, tower: QueryTower | None) -> dict[str, Hits]:
    """The hits of every way of searching once."""
    found = {FUSED: retriever.retrieve(question.question, k=_HITS, where=question.where)}
    if tower is None:
        return found
    vector = tower.encode([question.question])[0]
    ways: list[tuple[str, Channel, Vectors | None]] = [
        (DENSE, "dense", None), (DISTILLED, "dense", vector), (FUSED_DISTILLED, "fused", vector),
    ]  # fmt: skip
    for name, channel, row in ways:
        found[name] = retriever.retrieve(
            question.question, k=_HITS, where=question.where, channel=channel, vector=row
        )
    return found


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
