"""What a chunker is for: `agentmtl eval chunking`.

Every article of a reading set is put together from its contexts, a paragraph each, and cut again by each
chunker. Chunks are retrieved best first until a token budget is full (the one that crosses it counts for
nothing), and a question counts where its answer stands in one of them, at its own place in the article.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agentmtl.errors import IndexMissingError, IngestError
from agentmtl.evaluate.bootstrap import Floats, Statistic, mean_of
from agentmtl.evaluate.datasets import sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, silent
from agentmtl.evaluate.jsonl import files_hash, read_records
from agentmtl.evaluate.report import Report, figures
from agentmtl.index.batch import Progress
from agentmtl.index.identifiers import load_tokenizer
from agentmtl.ingest import Chunking
from agentmtl.ingest.topics import LIKENESS, segmenter_for
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.schema import Document, Level
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Vectors

BENCHMARK = "chunking"
BUDGETS = (128, 256, 512, 1024)
DEPTH = 100
CHUNKERS: Mapping[str, Chunking] = {
    "fixed": Chunking(190, 0),  # about 256 tokens
    "sentences": Chunking(),
    "likeness": Chunking(chunker="topics", segmenter=LIKENESS),
    "topics": Chunking(chunker="topics"),
}
OURS = "topics"
_JOIN = "\n\n"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A question with the places of its answers, [start, end) in its article."""

    question: str
    article: str
    places: tuple[tuple[int, int], ...]


def evaluate_chunking(
    data: Path,
    *,
    index_root: Path = DEFAULT_ROOT,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    segmenter: str = "",
    chunkers: Mapping[str, Chunking] = CHUNKERS,
    commands: Sequence[str] = (),
    progress: Progress = silent,
) -> Report:
    """Evidence recall of every chunker at every budget (tokens of the bundled tokeniser), fused search;
    `segmenter`: the folder of one that topics are cut by.

    Raises IngestError where no question has an answer with a place, and what building an index raises.
    """
    started = time.perf_counter()
    path = data / f"{split}.jsonl"
    articles, evidence = read_articles(path)
    asked = sample(evidence, limit, seed)
    if not asked:
        raise IngestError(
            f"No question of {path} has an answer with a start.", "Give answers with text, start."
        )
    sha256 = files_hash([path])
    columns: dict[str, dict[str, Floats]] = {}
    details: dict[str, object] = {"budgets": list(BUDGETS), "files": [path.name], "sha256": sha256}
    vectors = None
    trunk = load_encoder(encoder, backend=backend).identity.space
    for name, cutting in chunkers.items():
        if name == OURS and segmenter:
            cutting = replace(cutting, segmenter=segmenter)
        folder = index_root / f"chunks-{data.resolve().name}-{split}-{sha256[:8]}-{_label(cutting, trunk)}"
        begun = time.perf_counter()
        index = _index(folder, cutting, articles, encoder, backend, progress)
        details[name] = {
            "chunks": index.snapshot.count("passage"), "chunking": cutting.to_json(),
            "seconds": round(time.perf_counter() - begun, 1),
        }  # fmt: skip
        if vectors is None:
            vectors = index.encoder.encode([a.question for a in asked], "query")
        columns[name] = _measure(index, asked, vectors)
    measured = {n: {m: mean_of(c) for m, c in cs.items()} for n, cs in columns.items()}
    compared: dict[str, dict[str, Statistic]] = {
        f"{OURS} - {other}": {m: mean_of(columns[OURS][m] - columns[other][m]) for m in columns[OURS]}
        for other in columns
        if other != OURS and OURS in columns
    }
    return Report(
        BENCHMARK, data.resolve().name, len(asked), seed, figures(measured, seed), "sentences",
        time.perf_counter() - started, tuple(commands), figures(compared, seed), details=details,
        measured=measured, compared=compared,
    )  # fmt: skip


def _label(chunking: Chunking, trunk: str) -> str:
    """Of a folder's name: the settings, and a hash of the segmenter's card, since what cuts may change."""
    parts = [str(v) for n, v in chunking.to_json().items() if n != "segmenter"]
    if chunking.chunker != "topics":
        return "-".join(parts)
    told = json.dumps(dict(segmenter_for(trunk, chunking.segmenter).card), sort_keys=True)
    return "-".join([*parts, hashlib.sha256(told.encode()).hexdigest()[:8]])


def _index(
    folder: Path,
    chunking: Chunking,
    articles: Sequence[Document],
    encoder: EncoderSpec,
    backend: str,
    progress: Progress,
) -> Index:
    try:
        index = Index.open(folder, encoder=encoder, backend=backend)
    except IndexMissingError:
        levels: tuple[Level, ...] = ("passage", "sentence")
        index = Index.create(folder, encoder=encoder, backend=backend, levels=levels, chunking=chunking)
    index.add(articles, progress=progress)
    return index


def read_articles(path: Path) -> tuple[list[Document], list[Evidence]]:
    """The articles of a reading set's file, and its answerable questions with the places of their answers."""
    texts: dict[str, str] = {}
    starts: dict[tuple[str, str], int] = {}
    evidence: list[Evidence] = []
    for record in read_records(path):
        title, context = record.text("title"), record.text("context")
        if (title, context) not in starts:
            before = texts.get(title, "")
            starts[title, context] = len(before) + (len(_JOIN) if before else 0)
            texts[title] = f"{before}{_JOIN}{context}" if before else context
        if record.flag("answerable"):
            base = starts[title, context]
            answers = [a for a in record.items("answers") if isinstance(a.get("start"), int)]
            places = {(base + a["start"], base + a["start"] + len(a["text"])) for a in answers}
            if places:
                evidence.append(Evidence(record.text("question"), title, tuple(sorted(places))))
    return [Document(title, text, title) for title, text in texts.items()], evidence


def _measure(index: Index, asked: Sequence[Evidence], vectors: Vectors) -> dict[str, Floats]:
    tokenizer = load_tokenizer()
    sizes: dict[str, int] = {}
    rows: list[list[float]] = []
    for one, vector in zip(asked, vectors, strict=True):
        hits = index.retriever.retrieve(one.question, level="passage", k=DEPTH, vector=vector)
        spent, found_at = 0, float("inf")
        for hit in hits:
            unit = hit.unit
            if unit.id not in sizes:
                sizes[unit.id] = len(tokenizer.encode(unit.text))
            spent += sizes[unit.id]
            inside = any(unit.start <= a and b <= unit.end for a, b in one.places)
            if unit.source_id == one.article and inside:
                found_at = spent
            if found_at < float("inf") or spent > max(BUDGETS):
                break
        rows.append([float(found_at <= budget) for budget in BUDGETS])
    return {f"evidence-recall@{b}": np.array([r[i] for r in rows]) for i, b in enumerate(BUDGETS)}


def with_topics(least: int, most: int, penalty: float) -> Chunking:
    """The topic chunker with other lengths; for tuning."""
    return replace(Chunking(chunker="topics"), max_words=most, min_words=least, penalty=penalty)
