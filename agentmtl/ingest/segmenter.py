"""Where the topic changes: boundaries between sentences from their local context.

Each gap between two sentences gets a logit from what stands on either side of it: likeness of sentence
vectors over windows of one, two and four, shared words, shared names, a word that opens a new train of
thought, a paragraph mark (the local-context idea of arXiv 2301.01935, with sentence vectors as they are). A
dynamic programme then chooses the cuts with the highest sum of logits whose pieces keep to a length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEATURES = (
    "neighbours", "two", "four", "depth two", "depth four", "shared words", "shared words of three",
    "shared names", "cue", "paragraph",
)  # fmt: skip
_CUE_WORDS = """
however meanwhile but yet in during after before according another today later finally although while
"""
_CUES = frozenset(_CUE_WORDS.split())
_CONTENT = re.compile(r"[^\W\d_]{4,}")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z]\w+")


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A logistic regression over the features of a gap. `threshold`: the logit from which a gap is a
    boundary, where nothing else is asked of the pieces."""

    weights: Floats
    bias: float
    threshold: float = 0.0
    card: Mapping[str, Any] = field(default_factory=dict)

    def logits(
        self, sentences: Sequence[str], vectors: NDArray[Any], paragraphs: Sequence[bool] = ()
    ) -> Floats:
        """(n − 1,): of the gap after each sentence but the last. `vectors` (n, d) of unit length;
        `paragraphs` (n − 1,): whether a paragraph ends there."""
        return gap_features(sentences, vectors, paragraphs) @ self.weights + self.bias

    def boundaries(self, sentences: Sequence[str], vectors: NDArray[Any]) -> list[int]:
        """The first sentence of each new segment."""
        return [int(i) + 1 for i in np.flatnonzero(self.logits(sentences, vectors) > self.threshold)]


@lru_cache(maxsize=1)
def shipped() -> Segmenter:
    """The weights that come with the package for any encoder's vectors; `agentmtl.ingest.topics` holds what
    was learned for the default one's."""
    data = json.loads(files("agentmtl.ingest").joinpath("weights/segmenter.json").read_text("utf-8"))
    return Segmenter(
        np.array([data["weights"][f] for f in FEATURES]), data["bias"], data["threshold"], data["card"]
    )


def gap_features(sentences: Sequence[str], vectors: NDArray[Any], paragraphs: Sequence[bool] = ()) -> Floats:
    """(n − 1, f)"""
    n = len(sentences)
    if n < 2:
        return np.zeros((0, len(FEATURES)))
    rows = np.asarray(vectors, np.float64)
    likeness = {w: _window_likeness(rows, w) for w in (1, 2, 4)}
    content = [frozenset(w.casefold() for w in _CONTENT.findall(s)) for s in sentences]
    names = [frozenset(_NAME.findall(s)) for s in sentences]
    marks = np.array([float(p) for p in paragraphs]) if len(paragraphs) else np.zeros(n - 1)
    columns = [
        likeness[1], likeness[2], likeness[4], _depth(likeness[2]), _depth(likeness[4]),
        _overlap(content, 1), _overlap(content, 3), _overlap(names, 4),
        np.array([float(_opens(sentences[i + 1])) for i in range(n - 1)]), marks,
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def _window_likeness(rows: Floats, width: int) -> Floats:
    """Cosine of the mean vectors of `width` sentences before and after each gap."""
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    gaps = np.arange(1, len(rows))
    before = sums[gaps] - sums[np.maximum(gaps - width, 0)]
    after = sums[np.minimum(gaps + width, len(rows))] - sums[gaps]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return np.asarray(np.einsum("gd,gd->g", before, after) / np.maximum(norms, 1e-9))


def _depth(likeness: Floats) -> Floats:
    """How far the likeness falls below the nearest peaks on both sides (TextTiling's depth score, Hearst,
    Computational Linguistics 23(1), 1997, section 5.3)."""
    depths = np.zeros(len(likeness))
    for i, here in enumerate(likeness):
        left = right = here
        for j in range(i - 1, -1, -1):
            if likeness[j] < left:
                break
            left = likeness[j]
        for j in range(i + 1, len(likeness)):
            if likeness[j] < right:
                break
            right = likeness[j]
        depths[i] = left + right - 2 * here
    return depths


def _overlap(sets: Sequence[frozenset[str]], width: int) -> Floats:
    """Jaccard of what stands in `width` sentences before and after each gap."""
    found = np.zeros(len(sets) - 1)
    for i in range(1, len(sets)):
        before = frozenset().union(*sets[max(0, i - width) : i])
        after = frozenset().union(*sets[i : i + width])
        found[i - 1] = len(before & after) / max(1, len(before | after))
    return found


def _opens(sentence: str) -> bool:
    first = sentence.split(maxsplit=1)[:1]
    return bool(first) and first[0].strip("\"'“,;").casefold() in _CUES


def best_cuts(logits: Floats, sizes: Sequence[int], least: int, most: int, penalty: float = 0.0) -> list[int]:
    """The cuts (first sentence of each new piece) with the highest Σ (logit − penalty).

    Every piece has `most` words at most, unless a single sentence is longer, and `least` at least, where the
    sentences allow it. `sizes` (n,) words. O(n · sentences a piece).
    """
    n = len(sizes)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    score = np.full(n + 1, -np.inf)
    score[0] = 0.0
    came_from = np.zeros(n + 1, np.int64)
    for end in range(1, n + 1):
        for start in range(end - 1, -1, -1):
            words = int(ends[end] - ends[start])
            if words > most and start < end - 1:
                break
            gain = score[start] + (logits[start - 1] - penalty if start else 0.0)
            gain -= _SHORT * max(0, least - words) / max(least, 1)
            if gain > score[end]:
                score[end], came_from[end] = gain, start
    cuts, at = [], n
    while at > 0:
        at = int(came_from[at])
        if at:
            cuts.append(at)
    return cuts[::-1]


_SHORT = 50.0  # logits that a piece without any words would cost: a bound that yields only to `most`
