"""Questions with the tokens of their gold units, and n-grams drawn from them by importance.

A span's weight is the sum, over the query's trigrams, of how alike the trigram that begins there is; spans
are drawn from a softmax of the weights (SEAL, arXiv 2204.10628, section 4: "unsupervised examples" aside).
Alike means Dice's coefficient of the words' character bigrams, averaged over the three places. A span does
not begin with a stop word or inside a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from agentmtl.evaluate.datasets import DataSet, Question, kind_of, read_multihop, read_reading, sample
from agentmtl.evaluate.identifiers import with_sentences
from agentmtl.index.identifiers import StreamTokenizer
from agentmtl.index.tokens import words
from agentmtl.retrieval.identifiers.keys import STOP_WORDS
from agentmtl.schema import Level

Tokens = tuple[int, ...]
Floats = NDArray[np.float64]

TRIGRAM = 3
SHARPNESS = 4.0  # a weight of 1 makes a span e⁴ times as likely: 3 query trigrams a third alike do so


@dataclass(frozen=True, slots=True)
class GoldUnit:
    """A gold document of a question: the tokens of its title, its text, and its gold sentences."""

    title: Tokens
    text: Tokens
    sentences: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class KeyExample:
    """`group` keeps what belongs together (an article, a question) on one side of a split. `sources`: the
    source ids of the gold documents, and `sentences` the texts of the gold sentences there."""

    id: str
    set: str
    group: str
    question: str
    golds: tuple[GoldUnit, ...]
    sentences: Mapping[str, Sequence[str]]


def read_key_examples(
    folder: Path, tokenizer: StreamTokenizer, limit: int = 0, seed: int = 0
) -> tuple[DataSet, list[KeyExample]]:
    """The set, and its questions that have gold sentences: of a reading set's training file, or of a
    multi-hop set. Raises IngestError for a bad line."""
    data = read_reading(folder, "train") if kind_of(folder) == "reading" else read_multihop(folder)
    documents = {d.source_id: d for d in data.documents}
    asked = sample([a for a in with_sentences(data) if any(a.sentences.values())], limit or None, seed)
    encoded: dict[str, Tokens] = {}

    def encode(text: str) -> Tokens:
        if text not in encoded:
            encoded[text] = tuple(tokenizer.encode(text))
        return encoded[text]

    found = []
    for one in asked:
        golds = tuple(
            GoldUnit(
                encode(documents[source].title), encode(documents[source].text),
                tuple(encode(sentence) for sentence in sentences),
            )
            for source, sentences in one.sentences.items()
        )  # fmt: skip
        group = _group(data, one.question, documents[next(iter(one.sentences))].title)
        found.append(
            KeyExample(one.question.id, data.name, group, one.question.question, golds, one.sentences)
        )
    return data, found


def _group(data: DataSet, question: Question, title: str) -> str:
    return title or question.gold[0] if data.kind == "reading" else f"{data.name}:{question.id}"


class TargetSampler:
    """Draws the n-grams that a decoder learns to say. The same for the same arguments."""

    def __init__(self, tokenizer: StreamTokenizer, longest: int, seed: int = 0) -> None:
        self._tokenizer, self._longest, self._seed = tokenizer, longest, seed
        self._weights: dict[tuple[str, Tokens], tuple[NDArray[np.int64], Floats]] = {}

    def draw(self, example: KeyExample, level: Level, count: int, round_: int) -> list[Tokens]:
        """`count` n-grams of at most `longest` tokens of a gold unit of the level; for an entity its title,
        between the title's markers. Fewer where a unit has none."""
        random = Random(f"targets:{self._seed}:{round_}:{level}:{example.id}")
        gold = random.choice(example.golds)
        if level == "entity":
            return [self._title(gold)] if gold.title else []
        unit = random.choice(gold.sentences) if level == "sentence" and gold.sentences else gold.text
        starts, shares = self.importance(example.question, unit)
        if not len(starts):
            return []
        drawn = random.choices(starts.tolist(), shares.tolist(), k=count)
        found = [unit[start : start + self._longest] for start in drawn]
        if level == "document" and gold.title:
            found[0] = self._title(gold)
        return found

    def _title(self, gold: GoldUnit) -> Tokens:
        return (self._tokenizer.title, *gold.title, self._tokenizer.title_end)[: self._longest]

    def importance(self, question: str, unit: Tokens) -> tuple[NDArray[np.int64], Floats]:
        """(places where a span may begin, the share of each)."""
        key = question, unit
        if key not in self._weights:
            self._weights[key] = self._importance(question, unit)
        return self._weights[key]

    def _importance(self, question: str, unit: Tokens) -> tuple[NDArray[np.int64], Floats]:
        asked = [self._word(t) for t in self._tokenizer.encode(question)]
        there = [self._word(t) for t in unit]
        alike = np.array([[_dice(a, b) for b in there] for a in asked]).reshape(len(asked), len(there))
        alike = np.pad(alike, ((0, TRIGRAM - 1), (0, TRIGRAM - 1)))
        n, m = len(asked), len(there)
        weights = np.sum([alike[k : k + n, k : k + m] for k in range(TRIGRAM)], axis=(0, 1)) / TRIGRAM
        starts = np.array([i for i, word in enumerate(there) if _begins(word)], np.int64)
        if not len(starts):
            return starts, np.empty(0)
        powers = SHARPNESS * weights[starts]
        shares = np.exp(powers - powers.max())
        return starts, shares / shares.sum()

    def _word(self, token: int) -> str:
        return _spelt(self._tokenizer, token)


@lru_cache(maxsize=100_000)
def _spelt(tokenizer: StreamTokenizer, token: int) -> str:
    return tokenizer.decode([token])


def _begins(word: str) -> bool:
    if word.startswith("##"):
        return False
    return any(w not in STOP_WORDS for w in words(word))


@lru_cache(maxsize=1_000_000)
def _dice(a: str, b: str) -> float:
    """2 |A ∩ B| / (|A| + |B|) of the character bigrams; 0 between different words of stop words alone."""
    if a == b:
        return 1.0
    left, right = _bigrams(a), _bigrams(b)
    return 2.0 * len(left & right) / (len(left) + len(right)) if left and right else 0.0


@lru_cache(maxsize=100_000)
def _bigrams(word: str) -> frozenset[str]:
    bare = word.removeprefix("##")
    return frozenset(bare[i : i + 2] for i in range(len(bare) - 1))
