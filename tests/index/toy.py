"""A deterministic encoder, documents that share sentences and names, and naive oracles for every channel."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.index.batch import entity_id, index_text
from agentmtl.index.build import BuildReport, add_documents, add_paths
from agentmtl.index.manifest import IndexSettings
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.store import Store
from agentmtl.index.tokens import words
from agentmtl.ingest import Chunking, cut
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Document, Level
from agentmtl.trunk.encoder import EncoderIdentity, Side, Vectors

DIMENSION = 16
LEVELS: tuple[Level, ...] = ("document", "passage", "sentence", "entity")
CHUNKING = Chunking(max_words=14, overlap_sentences=1)


class ToyEncoder:
    """Maps a text to a unit vector made of its hash. `texts` are all it was ever given, in order."""

    def __init__(self, name: str = "toy", dimension: int = DIMENSION) -> None:
        self.identity = EncoderIdentity(weights=f"sha256:{name}", dimension=dimension, name=name)
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        self.texts += texts
        return (
            np.stack([self.vector(text) for text in texts]) if texts else np.empty((0, DIMENSION), np.float32)
        )

    def vector(self, text: str) -> Vectors:
        size = self.identity.dimension
        raw = hashlib.shake_128(f"{self.identity.name}\0{text}".encode()).digest(size)
        numbers = np.frombuffer(raw, np.uint8).astype(np.float32) - 127.5
        vector: Vectors = numbers / np.linalg.norm(numbers)
        return vector


def settings(encoder: ToyEncoder, **others: Any) -> IndexSettings:
    return IndexSettings(**{"encoder": encoder.identity, "chunking": CHUNKING, **others})


SENTENCES = (
    "Ada Lovelace met Charles Babbage in London.",
    "The engine was never built.",
    "Rivers run down to the sea near Paris.",
    "It rained in London for nine days.",
    "In those years Grace Hopper wrote a compiler.",
    "Nothing else is known of the engine or of the rivers.",
    "Later, Ada Lovelace saw engines in Paris.",
    "The compilers of Grace Hopper were built at Harvard.",
    "?!",
    "Änne Öztürk lived in São Paulo.",
    "東京 is far from London.",
    "A short one.",
)
TITLES = ("", "Ada Lovelace", "Rivers", "Paris (Texas)", "The engine was")


def document(key: str, numbers: Sequence[int] = (0, 1, 2), title: int = 0, **metadata: Any) -> Document:
    """A document of some of SENTENCES, by their numbers."""
    text = " ".join(SENTENCES[n % len(SENTENCES)] for n in numbers)
    return Document(key, text, TITLES[title % len(TITLES)], metadata)


def several(count: int, start: int = 0) -> list[Document]:
    """`count` documents, all different, sharing sentences."""
    return [
        document(f"d{i}", [i, i * 5 + 1, i * 7 + 3, i // 3], i, year=1900 + i, lang="en" if i % 2 else "de")
        for i in range(start, start + count)
    ]


def build(folder: Path, documents: Iterable[Document], encoder: ToyEncoder, **others: Any) -> BuildReport:
    """Add documents to the index in `folder`, made if it is not there."""
    with Store(folder).write(settings(encoder, **others), encoder) as transaction:
        return add_documents(transaction, documents)


def delete(folder: Path, keys: Iterable[str]) -> int:
    with Store(folder).write() as transaction:
        return sum(transaction.delete(key) for key in list(keys))


def compact(folder: Path) -> None:
    with Store(folder).write(merge_all=True):
        pass


def read(folder: Path, source: Path, encoder: ToyEncoder, **how: Any) -> BuildReport:
    """Read the files under `source` into the index in `folder`."""
    with Store(folder).write(settings(encoder), encoder) as transaction:
        return add_paths(transaction, [source], **how)


def write_lines(path: Path, records: Mapping[str, str]) -> None:
    """A .jsonl file of these ids and texts."""
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in records.items()))


# --- what an index answers ------------------------------------------------------------------------------

QUERIES = ("Ada Lovelace in London", "engines rivers", "compiler", "東京", "unseen words")
FILTERS = (None, 'lang == "en"', "year >= 1905 or not year")


def answers(
    snapshot: Snapshot,
    encoder: ToyEncoder,
    depths: Sequence[int] = (1, 3, 1000),
    queries: Sequence[str] = QUERIES,
) -> dict[str, list[tuple[str, float]]]:
    """(unit id, score) lists for every level, channel, filter, query and depth."""
    retriever = Retriever(snapshot, encoder)
    found = {}
    for level in snapshot.settings.levels:
        for where in FILTERS:
            for query in queries:
                vector = encoder.vector(query)
                for channel in ("dense", "lexical", "fused"):
                    for k in depths:
                        hits = retriever.retrieve(
                            query,
                            level=level,
                            k=k,
                            where=where,
                            channel=channel,
                            vector=vector,  # type: ignore[arg-type]
                        )
                        name = f"{level}/{channel}/{where}/{query}/{k}"
                        found[name] = list(zip(hits.ids, map(float, hits.scores), strict=True))
    return found


def assert_same_answers(got: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Same ids in the same order; dense scores equal to the bit, the others to 1e-5."""
    assert got.keys() == wanted.keys()
    for name, expected in wanted.items():
        found = got[name]
        assert [i for i, _ in found] == [i for i, _ in expected], name
        if "/dense/" in name:
            assert found == expected, name
        else:
            np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=0, atol=1e-5)


def content(snapshot: Snapshot) -> dict[str, Any]:
    """All that an index holds and a reader can see, whatever its segments: documents and units by id."""
    documents = {
        row[1]: row[2:]
        for _, row in snapshot.live_rows(
            "SELECT row, key, source_id, file, title, text, metadata FROM documents"
        )
    }
    units = {}
    for level in snapshot.settings.levels:
        places = [(v.number, int(p)) for v in snapshot.views(level) for p in np.flatnonzero(v.alive)]
        for unit in snapshot.units(level, places):
            assert unit.id not in units, "an id is held twice"
            units[unit.id] = unit
    return {"documents": documents, "units": units}


def keys(folder: Path) -> set[str]:
    """Of the live documents."""
    return set(content(Store(folder).open())["documents"])


# --- oracles ---------------------------------------------------------------------------------------------


def oracle_units(
    documents: Iterable[Document], config: IndexSettings
) -> dict[Level, dict[str, tuple[str, Any]]]:
    """Level → unit id → (indexed text, passage texts of a document or None)."""
    found: dict[Level, dict[str, tuple[str, Any]]] = {level: {} for level in LEVELS}
    for item in documents:
        pieces = cut(item, config.chunking)
        passages = [index_text(p, config) for p in pieces.passages]
        found["document"][pieces.document.id] = (index_text(pieces.document, config), passages)
        for unit in (*pieces.passages, *pieces.sentences):
            found[unit.level][unit.id] = (index_text(unit, config), None)
        for mention in pieces.mentions:
            found["entity"][entity_id(mention.name).hex()] = (mention.name, None)
    return found


def oracle_dense(
    units: Mapping[str, tuple[str, Any]], encoder: ToyEncoder, query: Vectors
) -> dict[str, float]:
    """Unit id → inner product, in double precision."""
    scores = {}
    for id_, (text, passages) in units.items():
        vector = encoder.vector(text).astype(np.float64)
        if passages is not None:
            vector = np.mean([encoder.vector(p).astype(np.float64) for p in passages], axis=0)
            vector /= np.linalg.norm(vector)
        scores[id_] = float(vector @ query.astype(np.float64))
    return scores


def oracle_bm25(units: Mapping[str, tuple[str, Any]], query: str, k1: float, b: float) -> dict[str, float]:
    """Unit id → BM25 of the units that share a word with the query."""
    bags = {id_: Counter(words(text)) for id_, (text, _) in units.items()}
    if not bags:
        return {}
    mean = sum(sum(bag.values()) for bag in bags.values()) / len(bags)
    scores: dict[str, float] = {}
    for term in words(query):
        df = sum(term in bag for bag in bags.values())
        idf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5))
        for id_, bag in bags.items():
            if tf := bag[term]:
                norm = k1 * (1 - b + b * sum(bag.values()) / mean)
                scores[id_] = scores.get(id_, 0.0) + idf * tf / (tf + norm)
    return scores


def assert_ranked(found: Sequence[tuple[str, float]], scores: Mapping[str, float], k: int) -> None:
    """`found` is the top k of `scores` by (score, id), where scores may differ by rounding."""
    assert len(found) == min(k, len(scores))
    assert found == sorted(found, key=lambda hit: (-hit[1], hit[0])), "not in order of score, then id"
    best = sorted(scores.values(), reverse=True)[:k]
    np.testing.assert_allclose([s for _, s in found], best, rtol=0, atol=1e-5)
    np.testing.assert_allclose([s for _, s in found], [scores[i] for i, _ in found], rtol=0, atol=1e-5)


def distinct_texts(documents: Sequence[Document], encoder: ToyEncoder) -> set[str]:
    """The texts a build must encode: all but those of documents, whose vectors are means."""
    units = oracle_units(documents, settings(encoder))
    levels: tuple[Level, ...] = ("passage", "sentence", "entity")
    return {text for level in levels for text, _ in units[level].values()}


def python_path() -> str:
    """PYTHONPATH for another process that imports what this one does."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
