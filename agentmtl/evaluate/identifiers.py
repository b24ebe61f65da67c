"""What generated identifiers add: `agentmtl eval identifiers`.

Sentences and passages are ranked by each channel, by dense and lexical search fused, and by all three. The
gold of a reading set is the sentence the answer stands in, and its context; that of a multi-hop set its
supporting sentences, and its gold passages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agentmtl.errors import IngestError
from agentmtl.evaluate.bootstrap import Floats, mean_of
from agentmtl.evaluate.datasets import DataSet, Question, context_source, find_sets, read_set, sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent
from agentmtl.evaluate.jsonl import read_records
from agentmtl.evaluate.metrics import mrr_at, recall_at
from agentmtl.evaluate.report import AnyReport, Report, combine, figures
from agentmtl.index.batch import Progress
from agentmtl.index.identifiers import Ngrams
from agentmtl.ingest import split_sentences
from agentmtl.retrieval.fusion import Fusion
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.identifiers.channel import Identifiers
from agentmtl.retrieval.identifiers.keys import Context, Key, QueryNgrams, RelevanceModel
from agentmtl.retrieval.identifiers.trained import TrainedKeys, trained_keys
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.retrieval.retriever import Channel, Retriever
from agentmtl.schema import Level, Unit
from agentmtl.trunk.encoder import Vectors

BENCHMARK = "identifiers"
LEVELS: tuple[Level, ...] = ("sentence", "passage")
ALL, PAIR = "dense+lexical+identifiers", "dense+lexical"
DECODED = "dense+lexical+identifiers+decoder"
BEAMS = 8
COMPARED = ((ALL, PAIR), ("identifiers", "lexical"), (PAIR, "dense"), (PAIR, "lexical"))
DECODER_COMPARED = [
    ("decoder", "identifiers-query"), ("decoder", "identifiers"), (DECODED, ALL), (DECODED, PAIR)
]  # fmt: skip
DEPTH = 100
_MATCHED = 0.6  # of a gold sentence's characters, in a unit that counts as it: splitters differ

Gold = Mapping[str, Sequence[str]]  # source id → gold sentences there


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its gold sentences."""

    question: Question
    sentences: Gold


def evaluate_identifiers(
    data: Path,
    *,
    index_root: Path = DEFAULT_ROOT,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    proposer: str | None = None,
    commands: Sequence[str] = (),
    progress: Progress = silent,
) -> AnyReport:
    """Each channel alone and fused, at sentence and at passage level: MRR@10 and recall@1, 5, 10.

    The third channel's weight is the default at sentence level and the same at passage level, so that the
    table shows what the gate keeps out. `proposer`: a trained decoder, in rows of its own: its keys alone,
    each source of them alone, and ranking the first of the fusion again. Raises UsageError, IngestError and
    what building an index raises.
    """
    found = find_sets(data)
    reports = [
        _evaluate(
            read_set(folder, split),
            index_root,
            encoder,
            backend,
            limit,
            seed,
            proposer,
            tuple(commands),
            progress,
        )  # fmt: skip
        for folder in found.sets
    ]
    return reports[0] if found.single else combine(BENCHMARK, str(data), seed, reports, found.skipped)


def _evaluate(
    data: DataSet,
    root: Path,
    encoder: EncoderSpec,
    backend: str,
    limit: int | None,
    seed: int,
    proposer: str | None,
    commands: tuple[str, ...],
    progress: Progress,
) -> Report:
    started = time.perf_counter()
    asked = sample([a for a in with_sentences(data) if a.sentences], limit, seed)
    if not asked:
        raise IngestError(f"No question of {data.folder} has gold sentences.", "Give answers with a start.")
    index = index_for(data, root, encoder=encoder, backend=backend, progress=progress)
    index.add_stream()
    trained = trained_keys(proposer) if proposer else None
    if trained:
        index.add_stream(trained.decoder.files.folder)
    methods, pairs = methods_of(index), list(COMPARED)
    if trained:
        methods, pairs = methods | decoder_methods(index, trained), pairs + DECODER_COMPARED
    columns: dict[str, dict[str, Floats]] = {}
    for level in LEVELS:
        columns |= {f"{level}: {m}": c for m, c in measure(index, asked, level, methods).items()}
    measured = {name: {metric: mean_of(c) for metric, c in cs.items()} for name, cs in columns.items()}
    compared = {
        f"{level}: {a} - {b}": {
            m: mean_of(columns[f"{level}: {a}"][m] - columns[f"{level}: {b}"][m])
            for m in columns[f"{level}: {a}"]
        }
        for level in LEVELS
        for a, b in pairs
    }
    return Report(
        BENCHMARK, data.name, len(asked), seed, figures(measured, seed), f"sentence: {ALL}",
        time.perf_counter() - started, commands, figures(compared, seed),
        details={"primary": "mrr@10", "files": list(data.files), "sha256": data.sha256},
        measured=measured, compared=compared,
    )  # fmt: skip


# --- gold -------------------------------------------------------------------------------------------


def with_sentences(data: DataSet) -> list[Asked]:
    """The answerable questions of a set with the sentences that hold their answer."""
    if data.kind == "multihop":
        return [Asked(q, _grouped(q.supporting)) for q in data.questions if q.gold]
    found: list[Asked] = []
    records = read_records(data.folder / data.files[0])
    for question, record in zip(data.questions, records, strict=True):
        if not question.answerable:
            continue
        context, title = record.text("context"), record.text("title", "")
        starts = [a["start"] for a in record.items("answers") if isinstance(a.get("start"), int)]
        spans = split_sentences(context)
        gold = [context[a:b] for a, b in spans if any(a <= start < b for start in starts)]
        found.append(Asked(question, {context_source(title, context): gold} if gold else {}))
    return found


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for source, sentence in pairs:
        grouped.setdefault(source, []).append(sentence)
    return grouped


def gold_of(unit: Unit, gold: Gold) -> str | None:
    """The gold sentence that a unit is, as a name; None where it is none."""
    text = _bare(unit.text)
    for number, sentence in enumerate(gold.get(unit.source_id, ())):
        bare = _bare(sentence)
        inside = bare in text or (text in bare and len(text) >= _MATCHED * len(bare))
        if inside and bare:
            return f"{unit.source_id}#{number}"
    return None


def _bare(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


# --- methods ----------------------------------------------------------------------------------------


def methods_of(index: Index) -> dict[str, tuple[Retriever, Channel]]:
    """A retriever and a channel by name; all of them over the same generation."""
    weight = max(Fusion().identifiers.values(), default=0.0)
    pair, every = Fusion(identifiers={}), Fusion(identifiers=dict.fromkeys(LEVELS, weight))
    query, relevance = Identifiers((QueryNgrams(),)), Identifiers((RelevanceModel(),))
    snapshot, encoder = index.snapshot, index.encoder
    return {
        "dense": (Retriever(snapshot, encoder, pair), "dense"),
        "lexical": (Retriever(snapshot, encoder, pair), "lexical"),
        "identifiers-query": (Retriever(snapshot, encoder, pair, query), "identifiers"),
        "identifiers-relevance": (Retriever(snapshot, encoder, pair, relevance), "identifiers"),
        "identifiers": (Retriever(snapshot, encoder, pair), "identifiers"),
        PAIR: (Retriever(snapshot, encoder, pair), "fused"),
        ALL: (Retriever(snapshot, encoder, every), "fused"),
    }


def decoder_methods(index: Index, trained: TrainedKeys) -> dict[str, tuple[Retriever, Channel]]:
    """The rows of a trained decoder: its channel, the fusion with it, and its sources one at a time."""
    weights = (max(by_level.values(), default=0.0) for by_level in (Fusion().identifiers, Fusion().proposed))
    own, proposed = (dict.fromkeys(LEVELS, weight) for weight in weights)
    every = Fusion(identifiers=own, proposed=proposed)
    alone = {
        "decoder-query": replace(trained, found=0),
        "decoder-hits": replace(trained, query=0),
        "decoder-beam": replace(trained, query=0, found=0, beams=BEAMS),
    }
    channel: Channel = "identifiers"
    rows = {name: _Remembering(keys) for name, keys in {"decoder": trained, **alone}.items()}
    found: dict[str, tuple[Retriever, Channel]] = {
        name: (
            Retriever(index.snapshot, index.encoder, every, Identifiers((keys,), stream=trained.stream)),
            channel,
        )
        for name, keys in rows.items()
    }
    return {**found, DECODED: (found["decoder"][0], "fused")}


class _Remembering:
    """Proposes once for the same query, level and hits: the channel and the fusion ask for the same."""

    def __init__(self, keys: TrainedKeys) -> None:
        self._keys, self.name = keys, keys.name
        self._known: dict[tuple[object, ...], list[Key]] = {}

    def propose(self, query: str, ngrams: Ngrams, context: Context) -> list[Key]:
        key = query, context.level, tuple(context.hits[: self._keys.hits])
        if key not in self._known:
            self._known[key] = self._keys.propose(query, ngrams, context)
        return self._known[key]


def measure(
    index: Index, asked: Sequence[Asked], level: Level, methods: Mapping[str, tuple[Retriever, Channel]]
) -> dict[str, dict[str, Floats]]:
    """Every metric of every method, (n,) each; questions are encoded together."""
    vectors = index.encoder.encode([a.question.question for a in asked], "query")
    return {
        name: _columns(retriever, channel, asked, vectors, level)
        for name, (retriever, channel) in methods.items()
    }


def _columns(
    retriever: Retriever, channel: Channel, asked: Sequence[Asked], vectors: Vectors, level: Level
) -> dict[str, Floats]:
    rows = []
    for one, vector in zip(asked, vectors, strict=True):
        question = one.question
        hits = retriever.retrieve(question.question, level=level, k=DEPTH, channel=channel, vector=vector)
        rows.append(_row(ranked_gold(hits, one), one, level))
    return {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}


def ranked_gold(hits: Hits, asked: Asked) -> list[tuple[str, float]]:
    """(name, score) of every hit: gold units by the name of their gold, others by their id."""
    units = hits.snapshot.units(hits.level, hits.addresses)
    named: dict[str, float] = {}
    for unit, score in zip(units, np.asarray(hits.scores, np.float64).tolist(), strict=True):
        if hits.level == "passage":
            gold = unit.source_id if unit.source_id in asked.question.gold else None
        else:
            gold = gold_of(unit, asked.sentences)
        named.setdefault(gold or unit.id, score)
    return list(named.items())


def _row(ranking: Sequence[tuple[str, float]], asked: Asked, level: Level) -> dict[str, float]:
    if level == "passage":
        gold = set(asked.question.gold)
    else:
        gold = {f"{s}#{i}" for s, found in asked.sentences.items() for i in range(len(found))}
    return {
        "mrr@10": mrr_at(ranking, gold, 10),
        **{f"recall@{k}": recall_at(ranking, gold, k) for k in (1, 5, 10)},
    }
