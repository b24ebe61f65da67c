"""MultiHop-RAG (arXiv 2401.15391): `agentmtl eval multihop-rag`.

The folder holds the official files, which you supply: corpus.json [{title, author, source, category,
published_at, url, body}] and MultiHopRAG.json [{query, answer, question_type, evidence_list}]. The official
metrics are computed as its script does and named so; what they leave out stands beside them:

    official-hits@k   queries with one fact, or more, in the first k chunks
    official-map@10   no average precision: the cumulative count is missing, so a perfect ranking of 2, 3 or 4
                      facts scores .750, .611 or .521
    evidence-recall@k mean share of the facts found; all-hits@k: all of them; doc-recall@k: by url

A fact counts where it is a substring of a chunk with blanks and newlines taken out of both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import IngestError, UsageError
from agentmtl.evaluate.abstention import abstention_metrics
from agentmtl.evaluate.bootstrap import Statistic, mean_of
from agentmtl.evaluate.datasets import DataSet, sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent
from agentmtl.evaluate.jsonl import files_hash
from agentmtl.evaluate.report import Report, figures
from agentmtl.index.batch import Progress
from agentmtl.index.identifiers import load_tokenizer
from agentmtl.retrieval.facets import (
    dictionary_of,
    facets_of,
    retrieve_filtered,
    select_covering,
    sources_in,
)
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.schema import Document, Hit

BENCHMARK = "multihop-rag"
CORPUS, QUESTIONS = "corpus.json", "MultiHopRAG.json"
NULL = "null_query"
DEPTH = 10
_METADATA = ("author", "source", "category", "published_at", "url")

Rank = Callable[[str], list[Hit]]


@dataclass(frozen=True, slots=True)
class Query:
    """A query with the facts and urls that answer it; none for a null query."""

    text: str
    kind: str
    facts: tuple[str, ...]
    urls: frozenset[str]


def evaluate_multihop_rag(
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
    """Official and honest retrieval metrics, for each channel and with metadata facets.

    Metrics of a question type carry its name. Raises UsageError where a file is missing, IngestError for one
    of another form, and what building an index raises.
    """
    started = time.perf_counter()
    corpus, queries = read_corpus(data / CORPUS), read_queries(data / QUESTIONS)
    asked = sample(queries, limit, seed)
    sha256 = files_hash([data / CORPUS, data / QUESTIONS])
    data_set = DataSet("multihop", data.resolve().name, data, (CORPUS,), corpus, (), sha256, sha256)
    index = index_for(data_set, index_root, encoder=encoder, backend=backend, progress=progress)
    answered = [q for q in asked if q.kind != NULL]
    measured = {
        name: _columns([official_and_honest(rank(q.text), q) for q in answered], answered)
        for name, rank in methods_of(index).items()
    }
    chunking = index.settings.chunking
    return Report(
        BENCHMARK, data.resolve().name, len(answered), seed, figures(measured, seed), "fused + coverage",
        time.perf_counter() - started, tuple(commands),
        details={
            "files": [CORPUS, QUESTIONS], "sha256": sha256, "chunk words": chunking.max_words,
            "overlap sentences": chunking.overlap_sentences, "metadata embedded": "title",
            "null queries": len(asked) - len(answered), "abstention": abstention(index, asked, seed),
        },
        measured=measured,
    )  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------


def read_corpus(path: Path) -> tuple[Document, ...]:
    """The articles, by url."""
    return tuple(
        Document(
            _text(article, "url", path),
            _text(article, "body", path),
            _text(article, "title", path),
            metadata={name: article[name] for name in _METADATA if isinstance(article.get(name), str)},
        )
        for article in _list(path)
    )


def read_queries(path: Path) -> list[Query]:
    """The queries with their evidence."""
    found = []
    for record in _list(path):
        evidence = record.get("evidence_list") or []
        facts = tuple(_text(e, "fact", path) for e in evidence)
        urls = frozenset(_text(e, "url", path) for e in evidence)
        found.append(Query(_text(record, "query", path), _text(record, "question_type", path), facts, urls))
    return found


def _list(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UsageError(
            f"There is no {path.name} in {path.parent}.", "Get the official files of yixuantt/MultiHop-RAG."
        )
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise IngestError(f"{path} is no JSON: {error}.", "Give the official file.") from error
    if not isinstance(data, list) or not data or not all(isinstance(r, dict) for r in data):
        raise IngestError(f"{path} is not a list of records.", "Give the official file.")
    return data


def _text(record: Mapping[str, Any], field: str, path: Path) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise IngestError(f"{path} has a record without {field}.", "Give the official file.")
    return value


# --- metrics ----------------------------------------------------------------------------------------


def bare(text: str) -> str:
    """A text as the official script compares it."""
    return text.replace(" ", "").replace("\n", "")


def official_and_honest(hits: Sequence[Hit], query: Query) -> dict[str, float]:
    """Every metric of one ranking of chunks."""
    chunks = [bare(hit.text) for hit in hits[:DEPTH]]
    facts = [bare(fact) for fact in query.facts]
    found = [{i for i, fact in enumerate(facts) if fact in chunk} for chunk in chunks]
    urls = [hit.unit.source_id for hit in hits[:DEPTH]]
    tokenizer = load_tokenizer()
    return {
        **official(found, len(facts)),
        **{f"evidence-recall@{k}": len(set().union(*found[:k])) / len(facts) for k in (4, 10)},
        **{f"all-hits@{k}": float(len(set().union(*found[:k])) == len(facts)) for k in (4, 10)},
        "doc-recall@10": len(query.urls & set(urls)) / len(query.urls),
        "ndcg@10": _ndcg([bool(f) for f in found], len(facts)),
        "tokens@10": float(sum(len(tokenizer.encode(hit.text)) for hit in hits[:DEPTH])),
    }


def official(found: Sequence[set[int]], facts: int) -> dict[str, float]:
    """The official script's figures of one query; `found[r]`: the facts in the chunk at rank r + 1."""
    seen: set[int] = set()
    total = 0.0
    for rank, here in enumerate(found[:DEPTH], 1):
        total += len(here - seen) / rank
        seen |= here
    first = next((rank for rank, here in enumerate(found[:DEPTH], 1) if here), 0)
    return {
        "official-hits@4": float(any(found[:4])),
        "official-hits@10": float(any(found[:10])),
        "official-mrr@10": 1.0 / first if first else 0.0,
        "official-map@10": total / min(facts, DEPTH),
    }


def _ndcg(relevant: Sequence[bool], facts: int) -> float:
    gain = sum(1.0 / log2(rank + 1) for rank, r in enumerate(relevant[:DEPTH], 1) if r)
    ideal = sum(1.0 / log2(rank + 1) for rank in range(1, min(facts, DEPTH) + 1))
    return min(1.0, gain / ideal)


def _columns(rows: Sequence[Mapping[str, float]], queries: Sequence[Query]) -> dict[str, Statistic]:
    if not rows:
        raise IngestError("No query has evidence.", "Give the official files.")
    columns = {metric: mean_of([row[metric] for row in rows]) for metric in rows[0]}
    for kind in sorted({q.kind for q in queries}):
        mine = [row for row, q in zip(rows, queries, strict=True) if q.kind == kind]
        for metric in ("official-hits@10", "evidence-recall@10", "all-hits@10"):
            columns[f"{metric} {kind}"] = mean_of([row[metric] for row in mine])
    return columns


# --- methods ----------------------------------------------------------------------------------------


def methods_of(index: Index) -> dict[str, Rank]:
    """Ways of ranking chunks by name."""
    retriever, known = index.retriever, dictionary_of(index.snapshot)
    field = known.source_field or ""

    def covering(query: str) -> list[Hit]:
        facets = facets_of(query, known)
        return select_covering(retrieve_filtered(retriever, query, facets, 4 * DEPTH), facets, field, DEPTH)

    return {
        "dense": lambda q: list(retriever.retrieve(q, k=DEPTH, channel="dense")),
        "lexical": lambda q: list(retriever.retrieve(q, k=DEPTH, channel="lexical")),
        "fused": lambda q: list(retriever.retrieve(q, k=DEPTH)),
        "fused + filter": lambda q: retrieve_filtered(retriever, q, facets_of(q, known), DEPTH),
        "fused + preference": lambda q: retrieve_filtered(
            retriever, q, facets_of(q, known), DEPTH, hard=False
        ),
        "fused + coverage": covering,
        "hops": lambda q: list(index.search_hops(q, k=DEPTH).hits),
    }


def abstention(index: Index, queries: Sequence[Query], seed: int) -> dict[str, Any]:
    """How well queries without an answer are told: by the best cosine, and with a bonus where the query names
    a source of the corpus, which exploits how this set's null queries were made and is named so."""
    answerable = [q.kind != NULL for q in queries]
    if all(answerable) or not any(answerable):
        return {"note": "needs null queries and others"}
    best = [index.retrieve(q.text, k=1, channel="dense") for q in queries]
    cosine = np.array([float(hits.scores[0]) if len(hits) else -1.0 for hits in best])
    known = dictionary_of(index.snapshot)
    named = np.array([bool(sources_in(q.text, known.spellings)) for q in queries])
    return {
        "best cosine": abstention_metrics(cosine, answerable, seed),
        "best cosine + known source (exploits the template)": abstention_metrics(
            cosine + 2.0 * named, answerable, seed
        ),
    }
