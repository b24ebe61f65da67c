"""Ad hoc retrieval on a judged collection, by a standard library: `agentmtl eval ir`.

corpus.jsonl and queries.jsonl {id, text, title?}, qrels.tsv (query id, corpus id, grade; a header line).
Documents are ranked by their best passage; nDCG@10, MAP and recall@100 are those of ir-measures, so that they
compare with published figures. A BM25 of bm25s over whole documents stands beside our own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import IngestError, UsageError
from agentmtl.evaluate.bootstrap import Floats, mean_of
from agentmtl.evaluate.datasets import DataSet, Question, documents, sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent
from agentmtl.evaluate.jsonl import files_hash, read_records
from agentmtl.evaluate.multihop import rank_sources
from agentmtl.evaluate.report import Report, figures
from agentmtl.index.batch import Progress
from agentmtl.index.tokens import words
from agentmtl.retrieval.index import EncoderSpec
from agentmtl.retrieval.retriever import Channel

BENCHMARK = "ir"
METHODS: tuple[Channel, ...] = ("dense", "lexical", "fused")
DEPTH = 1000
FILES = ("corpus.jsonl", "queries.jsonl", "qrels.tsv")
NAMES = {"nDCG@10": "ndcg@10", "AP": "map", "R@100": "recall@100"}

Run = dict[str, dict[str, float]]  # query → document → score
Grades = dict[str, dict[str, int]]


def evaluate_ir(
    data: Path,
    *,
    index_root: Path = DEFAULT_ROOT,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    limit: int | None = None,
    seed: int = 0,
    commands: Sequence[str] = (),
    progress: Progress = silent,
) -> Report:
    """nDCG@10, MAP and recall@100 of dense, lexical and fused search, and of an independent BM25.

    Raises UsageError where a file or ir-measures is missing, IngestError for a bad line.
    """
    started = time.perf_counter()
    for name in FILES:
        if not (data / name).is_file():
            raise UsageError(f"There is no {name} in {data}.", f"A judged collection has {', '.join(FILES)}.")
    corpus = documents(data / "corpus.jsonl")
    grades = read_grades(data / "qrels.tsv")
    queries = {r.text("id"): r.text("text") for r in read_records(data / "queries.jsonl")}
    asked = sample([q for q in queries if any(grades.get(q, {}).values())], limit, seed)
    sha256 = files_hash([data / FILES[0]])
    questions = tuple(Question(q, queries[q]) for q in asked)
    data_set = DataSet("multihop", data.resolve().name, data, FILES, corpus, questions, sha256, sha256)
    index = index_for(data_set, index_root, encoder=encoder, backend=backend, progress=progress)
    vectors = index.encoder.encode([queries[q] for q in asked], "query")
    runs: dict[str, Run] = {
        channel: {
            q: dict(rank_sources(index, queries[q], v, channel, "passage", DEPTH)[:DEPTH])
            for q, v in zip(asked, vectors, strict=True)
        }
        for channel in METHODS
    }
    runs |= _independent(corpus, {q: queries[q] for q in asked})
    columns = {name: measured_by_library(run, grades, asked) for name, run in runs.items()}
    measured = {name: {m: mean_of(c) for m, c in cs.items()} for name, cs in columns.items()}
    compared = {
        f"{a} - {b}": {m: mean_of(columns[a][m] - columns[b][m]) for m in columns[a]}
        for a, b in (("fused", "dense"), ("fused", "lexical"), ("lexical", "bm25s"))
        if b in columns
    }
    return Report(
        BENCHMARK, data.resolve().name, len(asked), seed, figures(measured, seed), "fused",
        time.perf_counter() - started, tuple(commands), figures(compared, seed),
        details={"files": list(FILES), "sha256": files_hash([data / n for n in FILES])},
        measured=measured, compared=compared,
    )  # fmt: skip


def read_grades(path: Path) -> Grades:
    """query → document → grade. Raises IngestError for a line that is no judgement."""
    grades: Grades = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines()[1:], 2):
        parts = line.split("\t")
        if len(parts) != 3 or not parts[2].strip().lstrip("-").isdigit():
            raise IngestError(
                f"{path}, line {number}, is no judgement.", "A line: query id, corpus id, grade."
            )
        grades.setdefault(parts[0], {})[parts[1]] = int(parts[2])
    return grades


def measured_by_library(run: Run, grades: Grades, asked: Sequence[str]) -> dict[str, Floats]:
    """Per-query values (n,) of every metric by ir-measures."""
    try:
        import ir_measures
    except ImportError as error:
        raise UsageError("This needs ir-measures.", "pip install 'agentmtl[eval]'") from error
    measures = [ir_measures.parse_measure(name) for name in NAMES]
    wanted = {q: grades[q] for q in asked}
    values: dict[tuple[str, str], float] = {
        (str(found.measure), found.query_id): found.value
        for found in ir_measures.iter_calc(measures, wanted, run)
    }
    return {ours: np.array([values.get((name, q), 0.0) for q in asked]) for name, ours in NAMES.items()}


def _independent(corpus: Iterable[Any], queries: Mapping[str, str]) -> dict[str, Run]:
    """The run of bm25s over whole documents with our words; nothing where it is not installed."""
    try:
        import bm25s
    except ImportError:
        return {}
    kept = [d for d in corpus if d.text.strip()]
    index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    index.index([words(f"{d.title}\n{d.text}") for d in kept], show_progress=False)
    run: Run = {}
    for query, text in queries.items():
        rows, scores = index.retrieve([words(text)], k=min(DEPTH, len(kept)), show_progress=False)
        pairs = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        run[query] = {kept[row].source_id: score for row, score in pairs}
    return {"bm25s": run}
