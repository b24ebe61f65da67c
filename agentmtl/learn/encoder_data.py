"""What an encoder learns from: questions with what answers them and what does not, and graded pairs.

A question of a reading set is answered by the sentence that holds the answer and by its whole context; one of
a multi-hop set by its gold passages. Negatives are hits of the frozen trunk's dense and of the lexical search
that are not gold, whole and as single sentences, so that length tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.evaluate.datasets import DataSet, Question, kind_of, read_multihop, read_reading, sample
from agentmtl.evaluate.indexes import index_for
from agentmtl.evaluate.jsonl import files_hash, read_records
from agentmtl.evaluate.reading_examples import is_dev
from agentmtl.ingest.sentences import split_sentences
from agentmtl.learn.recipe import LICENCES, describe
from agentmtl.retrieval.index import Index
from agentmtl.trunk.encoder import Vectors

PAIRS = "train.jsonl"
MINED = 4  # hits of each channel that negatives are drawn from


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: `positives` answer it, `negatives` look like it, `right` are all texts that answer it."""

    id: str
    set: str
    split_by: str
    question: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    right: frozenset[str]


@dataclass(frozen=True, slots=True)
class Graded:
    """Two texts and how alike they are, 0 to 5."""

    set: str
    a: str
    b: str
    grade: float

    @property
    def split_by(self) -> str:
        return self.a


@dataclass(frozen=True, slots=True)
class Parts:
    """Asked or graded ones: to learn from, to choose by, and a small set to place a merged head by."""

    asked: tuple[Asked, ...]
    graded: tuple[Graded, ...]

    @property
    def size(self) -> int:
        return len(self.asked) + len(self.graded)


@dataclass(frozen=True, slots=True)
class EncoderData:
    """`sets`: a record of each set for the card."""

    train: Parts
    dev: Parts
    probe: Parts
    sets: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        """All that is read, each once."""
        parts = (self.train, self.dev, self.probe)
        asked = [one for part in parts for one in part.asked]
        found = [text for one in asked for text in (one.question, *one.positives, *one.negatives)]
        found += [text for part in parts for one in part.graded for text in (one.a, one.b)]
        return list(dict.fromkeys(found))


def is_pairs(folder: Path) -> bool:
    """Whether a folder holds graded pairs: train.jsonl of {"a", "b", "score"}."""
    path = folder / PAIRS
    first = next(read_records(path), None) if path.is_file() else None
    return first is not None and {"a", "b", "score"} <= first.fields.keys()


def gather(folders: Sequence[Path], indexes: Path, limit: int, seed: int, encoder: str) -> EncoderData:
    """All sets, read, mined and split: a fifth is held out, half of it to choose by and half as a probe.

    `limit`: questions of each set, pairs of each of the sets within a set of pairs; 0 for all. Raises
    UsageError for a folder of neither form or where nothing is left to learn from.
    """
    asked, graded, sets = list[Asked](), list[Graded](), dict[str, Any]()
    for folder in folders:
        if is_pairs(folder):
            found = list(read_pairs(folder / PAIRS, limit, seed))
            graded += found
            held = sum(_held(one.split_by) for one in found)
            sets[folder.name] = {
                "sha256": files_hash([folder / PAIRS]), "train": len(found) - held, "dev": held,
                "licence": LICENCES.get(folder.name, "not stated"),
            }  # fmt: skip
        elif kind_of(folder):
            mined = list(read_asked(folder, indexes, limit, seed, encoder))
            asked += mined
            held = sum(_held(one.split_by) for one in mined)
            sets[folder.name] = describe(folder, len(mined) - held, held)
        else:
            raise UsageError(
                f"{folder} holds no set.", "Give reading or multi-hop sets, or train.jsonl of a, b, score."
            )
    train, dev, probe = (Parts(_part(asked, side), _part(graded, side)) for side in range(3))
    if not train.size or not dev.size:
        raise UsageError("There is too little to train on and to stop by.", "Give larger sets.")
    return EncoderData(train, dev, probe, sets)


def _held(group: str) -> bool:
    return is_dev(group, 0.2)


def _part(items: Iterable[Any], side: int) -> tuple[Any, ...]:
    """Side 0: to learn from; 1: dev; 2: the probe."""
    return tuple(
        one
        for one in items
        if (2 if is_dev(one.split_by, 0.1) else 1 if is_dev(one.split_by, 0.2) else 0) == side
    )


def read_pairs(path: Path, limit: int = 0, seed: int = 0) -> Iterator[Graded]:
    """Graded pairs; `limit` of each set, drawn with the seed. Raises IngestError for a bad line."""
    by_set: dict[str, list[Graded]] = {}
    for record in read_records(path):
        one = Graded(
            record.text("set", path.parent.name), record.text("a"), record.text("b"), record.number("score")
        )
        by_set.setdefault(one.set, []).append(one)
    for found in by_set.values():
        yield from sample(found, limit or None, seed)


def read_asked(
    folder: Path, indexes: Path, limit: int = 0, seed: int = 0, encoder: str = "default"
) -> Iterator[Asked]:
    """The questions of a set's training part that have an answer, mined in its index of passages.

    Raises what building the index raises.
    """
    data = read_reading(folder, "train") if kind_of(folder) == "reading" else read_multihop(folder)
    index = index_for(data, indexes, encoder=encoder, levels=("passage",))
    questions = sample([q for q in data.questions if q.gold and q.answerable], limit or None, seed)
    vectors = index.encoder.encode([q.question for q in questions], "query")
    texts = {d.source_id: d.text for d in data.documents}
    groups = {d.source_id: d.title or d.source_id for d in data.documents}
    random = Random(f"negatives:{data.name}:{seed}")
    for question, vector in zip(questions, vectors, strict=True):
        positives = positives_of(question, data, texts)
        negatives = _negatives(index, question, vector, random)
        if positives and negatives:
            group = groups[question.gold[0]] if data.kind == "reading" else f"{data.name}:{question.id}"
            right = frozenset((*positives, *(texts[g] for g in question.gold)))
            yield Asked(question.id, data.name, group, question.question, positives, negatives, right)


def positives_of(question: Question, data: DataSet, texts: dict[str, str]) -> tuple[str, ...]:
    """What answers a question; of a reading set the sentence first."""
    golds = [texts[g] for g in question.gold if texts[g].strip()]
    if data.kind != "reading":
        return tuple(golds)
    sentences = [
        text[a:b]
        for text in golds
        for a, b in split_sentences(text)
        if any(answer in text[a:b] for answer in question.answers)
    ]
    return tuple(dict.fromkeys((*sentences[:1], *golds)))


def _negatives(index: Index, question: Question, vector: Vectors, random: Random) -> tuple[str, ...]:
    """Texts of hits that are no gold, every second cut down to one of its sentences."""
    found: dict[str, None] = {}
    for channel in ("dense", "lexical"):
        hits = index.retriever.retrieve(
            question.question, k=MINED, where=question.where, channel=channel, vector=vector
        )
        units = hits.snapshot.units(hits.level, hits.addresses)
        found |= dict.fromkeys(unit.text for unit in units if unit.source_id not in question.gold)
    texts = []
    for n, text in enumerate(found):
        spans = split_sentences(text)
        a, b = random.choice(spans) if n % 2 and spans else (0, len(text))
        texts.append(text[a:b])
    return tuple(texts)
