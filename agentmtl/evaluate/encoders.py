"""Encoders compared on retrieval and similarity: `agentmtl eval encoder`.

The frozen trunk and heads that embed every text (`agentmtl train encoder`) encode the same texts; documents
are ranked whole and exactly, by inner products, ties by expected rank. A set is one of

    judged        corpus.jsonl, queries.jsonl, qrels.tsv: nDCG@10, recall@10
    multi-hop     corpus.jsonl, questions.jsonl: recall@10, nDCG@10
    graded        test.jsonl of {a, b, score, set}: Spearman's correlation of each set, and their mean

Only the test part of graded pairs is read. Differences are paired over questions or pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.bootstrap import Floats, Statistic, mean_of
from agentmtl.evaluate.correlation import codes, of_codes
from agentmtl.evaluate.datasets import documents, kind_of, read_multihop, sample
from agentmtl.evaluate.indexes import with_titles
from agentmtl.evaluate.ir import FILES as JUDGED
from agentmtl.evaluate.ir import read_grades
from agentmtl.evaluate.jsonl import files_hash, read_records
from agentmtl.evaluate.metrics import ndcg_at, recall_at
from agentmtl.evaluate.reading_examples import headed
from agentmtl.evaluate.report import Report, SetsReport, combine, figures
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Encoder, Side, Vectors
from agentmtl.trunk.headed import BETWEEN, VECTOR, normalised
from agentmtl.trunk.heads import load_head
from agentmtl.trunk.kept import kept_vectors
from agentmtl.trunk.loading import model_files
from agentmtl.trunk.means import TokenMeans

BENCHMARK = "encoder"
TRUNK = "trunk"
MEAN = "mean"
K = 10
PAIRS = "test.jsonl"
_ROWS = 64  # questions ranked at once


@dataclass(frozen=True, slots=True)
class _Judged:
    """Texts to rank for questions, and which are right."""

    name: str
    texts: tuple[str, ...]
    questions: tuple[str, ...]
    right: tuple[frozenset[int], ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class _Graded:
    """Pairs (a, b), their grades and their sets."""

    name: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    grades: tuple[float, ...]
    sets: tuple[str, ...]
    sha256: str


Encode = Callable[[Sequence[str], Side], Vectors]
Columns = dict[str, dict[str, Floats]]  # encoder → metric → (n,)


def evaluate_encoders(
    folders: Sequence[Path],
    heads: Sequence[Path],
    *,
    encoder: str = "default",
    backend: str = "auto",
    limit: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    commands: Sequence[str] = (),
    watch: Callable[[int], None] = lambda texts: None,
) -> list[Report]:
    """A report a set: the trunk and every head, each head minus the trunk, and heads minus one another.

    `limit`: questions or pairs of each set, drawn by `seed`; the corpus stays whole. `cache`: a folder where
    vectors are kept, by the encoder's and the texts' hash. Raises UsageError for a folder of none of the
    forms or a head that does not embed every text; EncoderError.
    """
    encoders = _encoders(encoder, heads, backend)
    coders = {
        name: _coder(one, head, cache, backend, watch)
        for (name, one), head in zip(encoders.items(), [None, *heads], strict=True)
    }
    reports = []
    for folder in folders:
        started = time.perf_counter()
        data = _read(folder, limit, seed)
        if isinstance(data, _Graded):
            measured, compared = _correlated(data, coders)
            count = len(data.a)
        else:
            measured, compared = _ranked(data, coders)
            count = len(data.questions)
        reports.append(
            Report(
                BENCHMARK,
                data.name,
                count,
                seed,
                figures(measured, seed),
                list(encoders)[-1],
                time.perf_counter() - started,
                tuple(commands),
                figures(compared, seed),
                details={
                    "sha256": data.sha256,
                    "encoders": {name: one.identity.to_json() for name, one in encoders.items()},
                },
                measured=measured,
                compared=compared,
            )  # fmt: skip
        )
    return reports


def _encoders(trunk: str, heads: Sequence[Path], backend: str) -> dict[str, Encoder]:
    found = {TRUNK: load_encoder(trunk, backend=backend)}
    for head in heads:
        made = load_encoder(f"{trunk}{BETWEEN}{head}", backend=backend)
        if not made.identity.texts:
            raise UsageError(
                f"The head {head} does not embed every text.", "Give one of agentmtl train encoder."
            )
        found[head.name if head.name not in found else str(head)] = made
    return found


# --- reading ------------------------------------------------------------------------------------------


def _read(folder: Path, limit: int | None, seed: int) -> _Judged | _Graded:
    if all((folder / name).is_file() for name in JUDGED):
        return _judged(folder, limit, seed)
    if kind_of(folder) == "multihop":
        return _multihop(folder, limit, seed)
    first = next(read_records(folder / PAIRS), None) if (folder / PAIRS).is_file() else None
    if first is None or not {"a", "b", "score"} <= first.fields.keys():
        raise UsageError(
            f"{folder} holds no set to measure encoders on.",
            "Give a judged collection, a multi-hop set, or test.jsonl of a, b, score.",
        )
    records = sample(list(read_records(folder / PAIRS)), limit, seed)
    return _Graded(
        folder.resolve().name, tuple(r.text("a") for r in records), tuple(r.text("b") for r in records),
        tuple(r.number("score") for r in records), tuple(r.text("set", "") for r in records),
        files_hash([folder / PAIRS]),
    )  # fmt: skip


def _judged(folder: Path, limit: int | None, seed: int) -> _Judged:
    corpus = [d for d in documents(folder / "corpus.jsonl") if d.text.strip()]
    texts = [d.text if d.text.startswith(d.title) else headed(d.title, d.text) for d in corpus]
    rows = {d.source_id: n for n, d in enumerate(corpus)}
    grades = read_grades(folder / "qrels.tsv")
    queries = {r.text("id"): r.text("text") for r in read_records(folder / "queries.jsonl")}
    right = {
        q: frozenset(rows[d] for d, grade in grades.get(q, {}).items() if grade > 0 and d in rows)
        for q in queries
    }
    asked = sample([q for q in queries if right[q]], limit, seed)
    return _Judged(
        folder.resolve().name, tuple(texts), tuple(queries[q] for q in asked), tuple(right[q] for q in asked),
        files_hash([folder / name for name in JUDGED]),
    )  # fmt: skip


def _multihop(folder: Path, limit: int | None, seed: int) -> _Judged:
    data = read_multihop(folder)
    titled = with_titles(data, None)
    rows = {d.source_id: n for n, d in enumerate(data.documents)}
    asked = sample([q for q in data.questions if q.gold], limit, seed)
    return _Judged(
        data.name, tuple(headed(d.title if titled else "", d.text) for d in data.documents),
        tuple(q.question for q in asked), tuple(frozenset(rows[g] for g in q.gold) for q in asked),
        data.sha256,
    )  # fmt: skip


# --- measuring ----------------------------------------------------------------------------------------


def _ranked(
    data: _Judged, encoders: Mapping[str, Encode]
) -> tuple[dict[str, dict[str, Statistic]], dict[str, dict[str, Statistic]]]:
    columns: Columns = {}
    for name, encode in encoders.items():
        rankings = rank(encode(data.questions, "query"), encode(data.texts, "document"), K)
        rights = [{str(row) for row in right} for right in data.right]
        pairs = list(zip(rankings, rights, strict=True))
        columns[name] = {
            f"ndcg@{K}": np.array([ndcg_at(ranking, right, K) for ranking, right in pairs]),
            f"recall@{K}": np.array([recall_at(ranking, right, K) for ranking, right in pairs]),
        }
    measured = {name: {m: mean_of(c) for m, c in one.items()} for name, one in columns.items()}
    compared = {
        f"{b} - {a}": {m: mean_of(columns[b][m] - columns[a][m]) for m in columns[a]}
        for a, b in combinations(columns, 2)
    }
    return measured, compared


def rank(questions: Vectors, texts: Vectors, k: int) -> list[list[tuple[str, float]]]:
    """For each of (m, d) the k best of (n, d) and all that tie with the last: (row as text, score)."""
    found = []
    for at in range(0, len(questions), _ROWS):
        for scores in questions[at : at + _ROWS] @ texts.T:
            least = np.partition(scores, -min(k, len(scores)))[-min(k, len(scores))]
            rows = np.flatnonzero(scores >= least)
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            found.append([(str(row), float(scores[row])) for row in rows.tolist()])
    return found


def _correlated(
    data: _Graded, encoders: Mapping[str, Encode]
) -> tuple[dict[str, dict[str, Statistic]], dict[str, dict[str, Statistic]]]:
    found = {
        name: np.einsum("nd,nd->n", encode(data.a, "document"), encode(data.b, "document"))
        for name, encode in encoders.items()
    }
    names = sorted(set(data.sets))
    sets = np.array([names.index(one) for one in data.sets], np.float64)
    grades = np.array(data.grades)
    measured: dict[str, dict[str, Statistic]] = {}
    for name, scores in found.items():
        measured[name] = {one: _correlation(sets == n, grades, scores) for n, one in enumerate(names)} | {
            MEAN: _mean_correlation(sets, grades, scores)
        }
    compared: dict[str, dict[str, Statistic]] = {}
    for a, b in combinations(found, 2):
        compared[f"{b} - {a}"] = {
            one: _correlation(sets == n, grades, found[b], found[a]) for n, one in enumerate(names)
        } | {MEAN: _mean_correlation(sets, grades, found[b], found[a])}
    return measured, compared


def _correlation(rows: Floats, grades: Floats, scores: Vectors, minus: Vectors | None = None) -> Statistic:
    """Of one set's pairs; with `minus`, how much more than by these scores."""
    kept = [np.asarray(codes(c[rows]), np.float64) for c in (grades, scores, minus) if c is not None]
    return Statistic(tuple(kept), _of_columns)


def _mean_correlation(
    sets: Floats, grades: Floats, scores: Vectors, minus: Vectors | None = None
) -> Statistic:
    """The mean over the sets, each counting the same."""
    kept = [np.asarray(codes(c), np.float64) for c in (grades, scores, minus) if c is not None]

    def of(numbers: Floats, *columns: Floats) -> float:
        values = [
            _of_columns(*(column[numbers == n] for column in columns)) for n in np.unique(numbers).tolist()
        ]
        return float(np.mean(values))

    return Statistic((sets, *kept), of)


def _of_columns(grades: Floats, scores: Floats, minus: Floats | None = None) -> float:
    told = grades.astype(np.int64)
    found = of_codes(told, scores.astype(np.int64))
    return found if minus is None else found - of_codes(told, minus.astype(np.int64))


# --- vectors ------------------------------------------------------------------------------------------


def _coder(
    encoder: Encoder, head: Path | None, cache: Path | None, backend: str, watch: Callable[[int], None]
) -> Encode:
    """The encoder, its vectors kept in a folder; heads without adapters share what the trunk read."""
    made = load_head(head) if head is not None else None
    if made is not None and not made.adapters and cache is not None:
        files = model_files(made.card.trunk_name)
        means, (weight, bias) = TokenMeans(files, cache, made.card.max_length, backend), made.outputs[VECTOR]
        return lambda texts, side: normalised(means.of(texts) @ weight.T + bias)

    def encode(texts: Sequence[str], side: Side) -> Vectors:
        found = kept_vectors(encoder, texts, side, cache) if cache else encoder.encode(texts, side)
        watch(len(texts))
        return found

    return encode


def together(reports: Sequence[Report], seed: int) -> Report | SetsReport:
    """One report as it is; several side by side, with the mean of the metrics that all have."""
    if len(reports) == 1:
        return reports[0]
    return combine(BENCHMARK, ", ".join(r.data for r in reports), seed, reports)
