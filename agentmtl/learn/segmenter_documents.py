"""Texts that a segmenter learns from: documents put together of pieces of others, so that every boundary is
known (arXiv 2301.01935, section 3: labels of "same topic" for free).

A topic is a title with its texts: an article of a reading set, a passage of a corpus. A document is 2 to 20
pieces of consecutive sentences of different topics, by turns all of one set or of several, short and long,
of any topics or of neighbouring ones that are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import TypeAlias

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.datasets import kind_of, read_multihop, read_reading
from agentmtl.evaluate.reading_examples import is_dev
from agentmtl.ingest import split_sentences
from agentmtl.ingest.segmenter import Floats, gap_features
from agentmtl.trunk.encoder import Encoder, Vectors
from agentmtl.trunk.kept import kept_vectors

Topics: TypeAlias = Mapping[str, tuple[str, ...]]  # title → sentences

LENGTHS = ((3, 5), (6, 8), (9, 11), (3, 11), (3, 15))  # sentences of a piece; a document keeps to one
PIECES = (2, 20)  # of a document: its length does not tell how long its pieces are
MIXED = 0.3  # of the documents are made of all sets
ALIKE = 0.25  # of the pieces are of a topic like the one before
DEV_SHARE = 0.15
MAP_SHARE = 0.55  # of the other titles
_LEAST = 3  # sentences of a topic
_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Made:
    """A document put together of pieces. `vectors` (n, d), `features` (n − 1, f) of gaps, `starts`: the first
    sentences of all pieces but the first, `topics` a name for each piece."""

    sentences: tuple[str, ...]
    vectors: Vectors
    features: Floats
    starts: tuple[int, ...]
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopicSet:
    """The topics of a set, by what they are for: the `map`, the `fit` of the rest, `dev`."""

    name: str
    map: Topics
    fit: Topics
    dev: Topics
    sha256: str

    @property
    def topics(self) -> Topics:
        return {**self.map, **self.fit, **self.dev}


def read_topics(folder: Path, limit: int = 0) -> TopicSet:
    """The topics of a reading set's train.jsonl or a multi-hop set's corpus, split by the title's hash.

    `limit`: sentences of a topic, its first ones; 0 for all. A text without a title is a topic of its own.
    Raises UsageError for another folder.
    """
    kind = kind_of(folder)
    if kind is None:
        raise UsageError(f"{folder} holds no texts with titles.", "Give a reading or a multi-hop set.")
    data = read_reading(folder, "train") if kind == "reading" else read_multihop(folder)
    found: dict[str, list[str]] = {}
    for document in data.documents:
        cut = [document.text[a:b] for a, b in split_sentences(document.text)]
        found.setdefault(document.title or document.source_id, []).extend(cut)
    sides: dict[str, dict[str, tuple[str, ...]]] = {"map": {}, "fit": {}, "dev": {}}
    for title, sentences in found.items():
        name = f"{folder.name}/{title}"
        side = "dev" if is_dev(name, DEV_SHARE) else "map" if is_dev(f"map:{name}", MAP_SHARE) else "fit"
        if len(sentences) >= _LEAST:
            sides[side][name] = tuple(sentences[: limit or None])
    return TopicSet(folder.name, sides["map"], sides["fit"], sides["dev"], data.sha256)


def encoded(
    topics: Topics, encoder: Encoder, cache: Path, watch: Callable[[int, int], None]
) -> dict[str, Vectors]:
    """The vector of every sentence, rounded to float16; what was encoded once is kept in `cache`."""
    texts = sorted({s for sentences in topics.values() for s in sentences})
    vectors = kept_vectors(encoder, texts, "document", cache, watch).astype(np.float16)
    return dict(zip(texts, vectors.astype(np.float32), strict=True))


def made_documents(
    sets: Sequence[Topics],
    vectors: Mapping[str, Vectors],
    count: int,
    seed: str,
    lengths: Sequence[tuple[int, int]] = LENGTHS,
) -> list[Made]:
    """Documents of pieces of the topics. Raises UsageError where a set has fewer than two topics."""
    if any(len(topics) < 2 for topics in sets) or not sets:
        raise UsageError("A set has fewer than two topics.", "Give sets of more titles.")
    random = Random(f"segmenter documents:{seed}")
    means = {t: _mean(s, vectors) for topics in sets for t, s in topics.items()}
    made = []
    for _ in range(count):
        one, length = random.choice(sets), random.choice(lengths)
        mixed = random.random() < MIXED
        pieces: list[tuple[str, tuple[str, ...]]] = []
        wanted = random.randint(*PIECES)
        while len(pieces) < wanted:
            topics = random.choice(sets) if mixed else one
            size = random.randint(*length)
            title = _next(topics, means, pieces[-1][0] if pieces else "", size, random)
            start = random.randrange(max(1, len(topics[title]) - size + 1))
            pieces.append((title, topics[title][start : start + size]))
        made.append(_document(pieces, vectors))
    return made


def _mean(sentences: Sequence[str], vectors: Mapping[str, Vectors]) -> Vectors:
    mean = np.mean([vectors[s] for s in sentences], axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)


def _next(topics: Topics, means: Mapping[str, Vectors], last: str, size: int, random: Random) -> str:
    """Another topic than the last: of some that are drawn one that is long enough, or like the last."""
    drawn = [title for title in random.choices(list(topics), k=_CANDIDATES) if title != last]
    while not drawn:
        drawn = [title for title in random.choices(list(topics), k=_CANDIDATES) if title != last]
    drawn = [title for title in drawn if len(topics[title]) >= size] or [
        max(drawn, key=lambda title: len(topics[title]))
    ]
    if last and random.random() < ALIKE:
        return max(drawn, key=lambda title: float(means[title] @ means[last]))
    return drawn[0]


def _document(pieces: Sequence[tuple[str, Sequence[str]]], vectors: Mapping[str, Vectors]) -> Made:
    sentences = tuple(s for _, piece in pieces for s in piece)
    rows = np.stack([vectors[s] for s in sentences]).astype(np.float32)
    starts = tuple(accumulate(len(piece) for _, piece in pieces[:-1]))
    return Made(sentences, rows, gap_features(sentences, rows), starts, tuple(title for title, _ in pieces))
