"""How much of the gold each way of retrieving finds: `agentmtl eval multihop`.

The channels and their fusion look once; "hops" follows evidence over several passages, and is measured
again with one part of it taken away at a time. A question's hits are ranked by distinct source: each source
stands where its best unit stands. On the sets that the hop search was fitted on, every question is answered
by weights that have not seen it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import IngestError, UsageError
from agentmtl.evaluate.bootstrap import Floats, Statistic, mean_of
from agentmtl.evaluate.datasets import DataSet, Question, find_sets, read_multihop, sample
from agentmtl.evaluate.held_out import Folds
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent, with_titles
from agentmtl.evaluate.metrics import Ranking, all_gold_at, mrr_at, ndcg_at, recall_at
from agentmtl.evaluate.report import AnyReport, Report, combine, figures
from agentmtl.index.batch import Progress
from agentmtl.index.manifest import DEFAULT_LEVELS
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.hops.beam import Judge
from agentmtl.retrieval.hops.judge import HopJudge
from agentmtl.retrieval.hops.model import HopModel, shipped
from agentmtl.retrieval.hops.search import HopSettings, search_hops
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.retrieval.retriever import MAX_K, Channel
from agentmtl.schema import Level
from agentmtl.trunk.encoder import Vectors

BENCHMARK = "multihop"
PRIMARY = "recall@5"  # the metric a change is judged by, named beforehand
CHANNELS: tuple[Channel, ...] = ("dense", "lexical", "fused")
SINGLE = "fused"  # what several hops are compared with
HOPS = "hops"
JUDGED = "hops + judge"
KS = (2, 5, 10)
ALL_GOLD_K = 5
_DEPTH = 100  # units asked for at first: as many as the fusion takes from each channel

Rank = Callable[[Question, Vectors], Ranking]  # a question and its vector → distinct sources


def evaluate_multihop(
    data: Path,
    *,
    index_root: Path = DEFAULT_ROOT,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    limit: int | None = None,
    seed: int = 0,
    ks: Sequence[int] = KS,
    level: Level = "passage",
    titles: bool | None = None,
    hops: int = 2,
    judge: Judge | None = None,
    judges: Folds[HopJudge] | None = None,
    commands: Sequence[str] = (),
    progress: Progress = silent,
) -> AnyReport:
    """Retrieval on a multi-hop set, or on every one in a folder: channels, fusion, and several hops.

    Metrics: recall@k for each of `ks`, all-gold@5, and mrr and ndcg at the largest k. `limit` questions
    are drawn by `seed`; the corpus stays whole. `titles`: see `index_for`. Several hops are measured at
    passage level only, and with a `judge` also without it; `judges` have each not seen a fold, and serve
    where the judge was trained on the set. Raises UsageError, IngestError and what building an index raises.
    """
    if level == "entity" or not ks or min(ks) < 1 or max(ks) > MAX_K:
        raise UsageError(f"Sources cannot be ranked at {list(ks)} by {level}.", f"Give ks of 1 to {MAX_K}.")
    found = find_sets(data, ["multihop"])
    settings = _Settings(
        index_root, encoder, backend, limit, seed, tuple(ks), level, titles, hops, judge, judges,
        tuple(commands),
    )  # fmt: skip
    reports = [_evaluate(read_multihop(folder), settings, progress) for folder in found.sets]
    if found.single:
        return reports[0]
    return combine(BENCHMARK, str(data), seed, reports, found.skipped)


@dataclass(frozen=True, slots=True)
class _Settings:
    index_root: Path
    encoder: EncoderSpec
    backend: str
    limit: int | None
    seed: int
    ks: tuple[int, ...]
    level: Level
    titles: bool | None
    hops: int
    judge: Judge | None
    judges: Folds[HopJudge] | None
    commands: tuple[str, ...]


def _evaluate(data: DataSet, settings: _Settings, progress: Progress) -> Report:
    started = time.perf_counter()
    questions = sample([q for q in data.questions if q.gold], settings.limit, settings.seed)
    if not questions:
        raise IngestError(f"No question of {data.folder} has gold passages.", "Give their ids as gold.")
    levels = DEFAULT_LEVELS if settings.level in DEFAULT_LEVELS else (settings.level,)
    index = index_for(
        data, settings.index_root, encoder=settings.encoder, backend=settings.backend,
        levels=levels, titles=settings.titles, progress=progress,
    )  # fmt: skip
    index.add_stream()
    built = time.perf_counter()
    methods = methods_of(index, data, settings.ks, settings.level, settings.hops)
    if HOPS in methods and (settings.judge is not None or settings.judges is not None):
        methods[JUDGED] = _by_judged_hops(index, data, settings.hops, settings.judge, settings.judges)
    columns = measure(index, questions, methods, settings.ks)
    default = next(name for name in (JUDGED, HOPS, SINGLE) if name in methods)
    measured = {name: {metric: mean_of(c) for metric, c in cs.items()} for name, cs in columns.items()}
    compared = _compare(columns, default)
    ended = time.perf_counter()
    return Report(
        BENCHMARK, data.name, len(questions), settings.seed, figures(measured, settings.seed),
        default, ended - started, settings.commands, figures(compared, settings.seed),
        details={
            **_facts(data, index, settings),
            "seconds": {"index": round(built - started, 3), "questions": round(ended - built, 3)},
        },
        measured=measured, compared=compared,
    )  # fmt: skip


def _facts(data: DataSet, index: Index, settings: _Settings) -> dict[str, Any]:
    return {
        "primary": PRIMARY,
        "files": list(data.files),
        "sha256": data.sha256,
        "documents": len(data.documents),
        "level": settings.level,
        "units": index.snapshot.count(settings.level),
        "titles": with_titles(data, settings.titles),
        "held_out": is_fitted_on(shipped(), data),
        "judge": _judging(data, settings),
        "encoder": index.settings.encoder.name,
        "index": str(index.folder),
    }


def _judging(data: DataSet, settings: _Settings) -> str:
    """What of the set the judge has seen."""
    if settings.judges is not None and settings.judges.parts[0].is_trained_on(data.sha256):
        return "held out"
    if isinstance(settings.judge, HopJudge) and settings.judge.is_trained_on(data.sha256):
        return "has seen the questions"
    return "none" if settings.judge is None and settings.judges is None else "has not seen the set"


# --- ways of retrieving -----------------------------------------------------------------------------


def methods_of(
    index: Index, data: DataSet, ks: Sequence[int] = KS, level: Level = "passage", hops: int = 2
) -> dict[str, Rank]:
    """Every way of retrieving by its name; those over several hops for passages only."""
    count = max(*ks, ALL_GOLD_K)
    found: dict[str, Rank] = {channel: _by_channel(index, channel, level, count) for channel in CHANNELS}
    if level == "passage" and hops > 1:
        found |= {name: _by_hops(index, data, settings) for name, settings in ablations(hops).items()}
    return found


def ablations(hops: int) -> dict[str, HopSettings]:
    """The hop search, whole and with one part taken away."""
    whole = HopSettings(hops=hops)
    return {
        HOPS: whole,
        f"{HOPS} − graph": replace(whole, graph=False),
        f"{HOPS} − beam": replace(whole, hops=1),
        f"{HOPS} − facets": replace(whole, facets=False),
        f"{HOPS} − identifiers": replace(whole, identifiers=False),
    }


def _by_channel(index: Index, channel: Channel, level: Level, count: int) -> Rank:
    return lambda q, v: rank_sources(index, q.question, v, channel, level, count, q.where)


def _by_hops(index: Index, data: DataSet, settings: HopSettings) -> Rank:
    model = shipped()
    seen = is_fitted_on(model, data)

    def rank(question: Question, vector: Vectors) -> Ranking:
        mine = model.without(question.id) if seen else model
        found = search_hops(
            index.retriever, question.question, k=_DEPTH, where=question.where, settings=settings,
            model=mine, vector=vector,
        )  # fmt: skip
        return distinct_sources(found.hits)

    return rank


def _by_judged_hops(
    index: Index, data: DataSet, hops: int, judge: Judge | None, judges: Folds[HopJudge] | None
) -> Rank:
    """Every chain judged by a head that has not seen the question, where there are such heads."""
    folded = judges is not None and (judge is None or judges.parts[0].is_trained_on(data.sha256))

    def rank(question: Question, vector: Vectors) -> Ranking:
        mine = judges.of(question.id) if judges is not None and folded else judge
        return _by_hops(index, data, HopSettings(hops=hops, judge=mine))(question, vector)

    return rank


def is_fitted_on(model: HopModel, data: DataSet) -> bool:
    """Whether the weights were fitted on questions of this set."""
    return any(entry["sha256"] == data.sha256 for entry in model.card["data"].values())


# --- measuring --------------------------------------------------------------------------------------


def measure(
    index: Index, questions: Sequence[Question], methods: Mapping[str, Rank], ks: Sequence[int] = KS
) -> dict[str, dict[str, Floats]]:
    """Every metric of every method, one value (n,) a question; all questions are encoded together."""
    vectors = index.encoder.encode([q.question for q in questions], "query")
    columns: dict[str, dict[str, Floats]] = {}
    for name, rank in methods.items():
        rows = [_measure(rank(q, v), q, ks) for q, v in zip(questions, vectors, strict=True)]
        columns[name] = {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}
    return columns


def _measure(ranking: Ranking, question: Question, ks: Sequence[int]) -> dict[str, float]:
    gold, last = set(question.gold), max(ks)
    return {
        **{f"recall@{k}": recall_at(ranking, gold, k) for k in ks},
        f"all-gold@{ALL_GOLD_K}": all_gold_at(ranking, gold, ALL_GOLD_K),
        f"mrr@{last}": mrr_at(ranking, gold, last),
        f"ndcg@{last}": ndcg_at(ranking, gold, last),
    }


def _compare(columns: Mapping[str, Mapping[str, Floats]], default: str) -> dict[str, dict[str, Statistic]]:
    """The default against every other method, the hop search without a judge too, and the fusion against its
    channels."""
    whole = {default, HOPS} & set(columns)
    pairs = [(a, b) for a in sorted(whole) for b in columns if b not in (a, JUDGED)]
    if default != SINGLE:
        pairs += [(SINGLE, channel) for channel in CHANNELS if channel != SINGLE]
    return {f"{a} - {b}": {m: mean_of(columns[a][m] - columns[b][m]) for m in columns[a]} for a, b in pairs}


def rank_sources(
    index: Index,
    question: str,
    vector: Vectors,
    channel: Channel,
    level: Level,
    count: int,
    where: str | None = None,
) -> list[tuple[str, float]]:
    """The best distinct sources by a channel, (source id, score of its best unit), best first.

    At least `count` of them with all that tie with the last, where the channel finds so many: more units
    are asked for until then.
    """
    k = max(_DEPTH, count)
    while True:
        hits = index.retriever.retrieve(
            question, level=level, k=k, where=where, channel=channel, vector=vector
        )
        ranking = distinct_sources(hits)
        if len(hits) < k or k == MAX_K or _reaches(ranking, count, float(hits.scores[-1])):
            return ranking
        k = min(4 * k, MAX_K)


def _reaches(ranking: Sequence[tuple[str, float]], count: int, lowest: float) -> bool:
    # a unit not seen yet scores `lowest` at most, so it can tie only with sources of that score
    return len(ranking) >= count and ranking[count - 1][1] > lowest


def distinct_sources(hits: Hits) -> list[tuple[str, float]]:
    """(source id, score of its best unit), best first."""
    units = hits.snapshot.units(hits.level, hits.addresses)
    scored: dict[str, float] = {}
    for unit, score in zip(units, np.asarray(hits.scores, np.float64).tolist(), strict=True):
        scored.setdefault(unit.source_id, score)  # hits come best first
    return list(scored.items())
