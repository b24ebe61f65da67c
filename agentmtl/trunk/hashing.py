"""An encoder that needs no model: feature hashing of words and character trigrams.

It tells texts apart by the words they share, not by what they mean. Tests use it in place of a model, and
it serves where no model may be installed.

Source of the method: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009 (signed
hashing); Bojanowski et al., "Enriching Word Vectors with Subword Information", 2017 (words with edge marks).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError
from agentmtl.trunk.encoder import EncoderIdentity, Side, Vectors

_WORD = re.compile(r"\w+")
_WORD_WEIGHT = 3  # a whole word counts as much as three of its trigrams


@lru_cache(maxsize=65_536)
def _word_features(word: str) -> tuple[tuple[int, int], ...]:
    """(hash, signed weight) of a word and of its trigrams."""
    marked = f"<{word}>"
    grams = [marked[i : i + 3] for i in range(len(marked) - 2)]
    weighted = [(f"w:{word}", _WORD_WEIGHT), *((f"g:{gram}", 1) for gram in grams)]
    features = []
    for name, weight in weighted:
        digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
        number = int.from_bytes(digest, "little")
        features.append((number >> 1, weight if number & 1 else -weight))
    return tuple(features)


class HashingEncoder:
    """Signed feature hashing into `dimension` places, unit length, no dependency.

    The same text gives the same bits alone, in a batch, in another process and on another machine: the
    counts are whole numbers, and only the last division is in floating point.
    """

    def __init__(self, dimension: int = 256) -> None:
        if dimension < 1:
            raise EncoderError(f"A hashing encoder needs at least 1 dimension, not {dimension}.", "Use 256.")
        self._identity = EncoderIdentity(
            weights="name:hashing-v1",
            dimension=dimension,
            pooling="sum",
            max_length=0,  # no limit: every word counts
            name=f"hashing:{dimension}",
        )

    @property
    def identity(self) -> EncoderIdentity:
        return self._identity

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """Unit vectors of shape (len(texts), dimension), float32; both sides are encoded alike."""
        vectors = np.zeros((len(texts), self._identity.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._unit(self._counts(text))
        return vectors

    def _counts(self, text: str) -> NDArray[np.int64]:
        counts = np.zeros(self._identity.dimension, dtype=np.int64)
        for word in _WORD.findall(text.lower()):
            for number, weight in _word_features(word):
                counts[number % len(counts)] += weight
        return counts

    def _unit(self, counts: NDArray[np.int64]) -> NDArray[np.float32]:
        if not counts.any():  # no words, or all cancelled: a fixed direction stands for "nothing"
            counts[0] = 1
        length = float(np.sqrt(np.dot(counts, counts)))
        return (counts / length).astype(np.float32)
