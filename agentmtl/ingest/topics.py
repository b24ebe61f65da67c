"""Where the topic changes, by a head on the sentence vectors of the default trunk.

A linear map takes a sentence's vector to dimensions in which sentences of one topic are normally distributed
about the topic's mean, and topics' means about the text's (Prince & Elder, "Probabilistic linear discriminant
analysis", ICCV 2007). How much likelier the sentences of a segment are with one mean in common than each at
the text's has then a closed form, for segments of any length. Segments' evidence and the logits of their gaps
(the features of `agentmtl.ingest.segmenter`) add up to the score of a segmentation, and sums over all
segmentations are exact (semi-Markov: Sarawagi & Cohen, "Semi-Markov conditional random fields", NeurIPS 2004,
section 2). Texts differ in how long their topics are: a text is of one of several kinds, each with its own
lengths, and what it says tells of which (the kind is a latent variable: Quattoni et al., "Hidden conditional
random fields", TPAMI 29(10), 2007).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.ingest.segmenter import Floats, Segmenter, gap_features, shipped

TENSORS, CARD = "segmenter.safetensors", "card.json"
FORMAT = 2
LIKENESS = "likeness"
CENTRE = 20.0  # sentences that the training texts' centre counts as, beside the text's own
LONGEST = 64  # sentences of a segment whose evidence is looked at: what is longer is cut
_SURE = 30.0  # logits are kept within this


@dataclass(frozen=True, slots=True)
class TopicSegmenter:
    """`projection` (d, r) and `offset` (r,) of the map; `spread` (r,): the variance of topics' means where
    that of a topic's sentences is 1; `scale` of the evidence; `kinds` (k, 5) of texts: what being of each
    adds, what a cut adds, and what a segment of one sentence, of two, and each logarithm of their
    number adds; `weights` (f,) and `bias` of a gap; `threshold`: the log-odds from which a gap is a boundary,
    where nothing else is asked of the pieces. `card` says of what it is made; its "trunk" is whose vectors it
    reads."""

    projection: Floats
    offset: Floats
    spread: Floats
    scale: float
    kinds: Floats
    weights: Floats
    bias: float
    threshold: float
    card: Mapping[str, Any]

    def logits(
        self, sentences: Sequence[str], vectors: NDArray[Any], paragraphs: Sequence[bool] = ()
    ) -> Floats:
        """(n − 1,): log-odds that a topic ends after each sentence but the last, all segmentations
        considered. `vectors` (n, d) of unit length."""
        if len(sentences) < 2:
            return np.zeros(0)
        return boundary_odds(self.evidence(vectors), self.gaps(sentences, vectors, paragraphs), self.kinds)

    def boundaries(self, sentences: Sequence[str], vectors: NDArray[Any]) -> list[int]:
        """The first sentence of each new segment: see `threshold`."""
        return [int(i) + 1 for i in np.flatnonzero(self.logits(sentences, vectors) > self.threshold)]

    def gaps(
        self, sentences: Sequence[str], vectors: NDArray[Any], paragraphs: Sequence[bool] = ()
    ) -> Floats:
        """(n − 1,): what a cut after each sentence adds to a segmentation's score."""
        return gap_features(sentences, vectors, paragraphs) @ self.weights + self.bias

    def evidence(self, vectors: NDArray[Any], longest: int = LONGEST) -> Floats:
        """(n, m) of the segment that ends with each sentence and has 1 … m sentences: log likelihood with a
        common mean less without any, times the scale; −inf where it would begin before the text. Raises
        UsageError for vectors of other dimensions."""
        if vectors.shape[1] != len(self.projection):
            raise UsageError(
                f"The segmenter reads vectors of {len(self.projection)} dimensions, not {vectors.shape[1]}.",
                "Make one for this encoder: agentmtl train segmenter --encoder … --data … --out DIR",
            )
        places = np.asarray(vectors, np.float64) @ self.projection + self.offset
        places -= places.sum(axis=0) / (len(places) + CENTRE)
        sums = np.concatenate([np.zeros((1, places.shape[1])), np.cumsum(places, axis=0)])
        found = np.full((len(places), min(longest, len(places))), -np.inf)
        for size in range(1, found.shape[1] + 1):
            shrunk = 1.0 + size * self.spread
            squares = (sums[size:] - sums[:-size]) ** 2
            found[size - 1 :, size - 1] = squares @ (self.spread / shrunk) - np.log(shrunk).sum()
        return np.asarray(0.5 * self.scale * found)


def boundary_odds(evidence: Floats, gaps: Floats, kinds: Floats) -> Floats:
    """(n − 1,): log-odds that there is a boundary at each gap, over all segmentations into segments of 1 … m
    sentences and all kinds of texts. `evidence` (n, m) and `kinds` (k, 5) as of `TopicSegmenter`, `gaps`
    (n − 1,). O(k · n · m)."""
    n, m = evidence.shape
    told = length_scores(kinds, m)  # (k, m)
    cost = np.zeros((len(kinds), n + 1))  # of what begins at each place
    cost[:, 1:n] = gaps + kinds[:, 1:2]
    before, after = np.full((2, len(kinds), n + 1), -np.inf)
    before[:, 0] = after[:, n] = 0.0
    for end in range(1, n + 1):
        size = min(end, m)
        starts = slice(end - size, end)
        begun = (before[:, starts] + cost[:, starts])[:, ::-1]
        before[:, end] = _log_sum(begun + evidence[end - 1, :size] + told[:, :size])
    sizes = np.arange(m)
    for start in range(n - 1, -1, -1):
        mine = sizes[: n - start]
        ends = start + mine
        ended = evidence[ends, mine] + told[:, mine] + cost[:, ends + 1] + after[:, ends + 1]
        after[:, start] = _log_sum(ended)
    whole = _log_sum(kinds[:, 0] + before[:, n])
    here = kinds[:, :1] + before[:, 1:n] + cost[:, 1:n] + after[:, 1:n]
    chance = np.minimum(_log_sum(here.T) - whole, -1e-15)
    return np.asarray(np.clip(chance - np.log(-np.expm1(chance)), -_SURE, _SURE))


def length_scores(kinds: Floats, most: int) -> Floats:
    """(k, most): what a segment of 1 … `most` sentences adds in each kind of text."""
    n = np.arange(1, most + 1)
    parts = np.stack([n == 1, n == 2, np.log(n)])
    return np.asarray(kinds[:, 2:] @ parts, np.float64)


def _log_sum(values: Floats) -> Floats:
    """Over the last axis."""
    highest = values.max(axis=-1, keepdims=True)
    return np.asarray((highest + np.log(np.exp(values - highest).sum(axis=-1, keepdims=True)))[..., 0])


def save_segmenter(segmenter: TopicSegmenter, folder: Path) -> None:
    """Two files: the map as float16, the few other numbers as they are, and the card."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.asarray(getattr(segmenter, name), np.float32) for name in _SMALL}
    tensors |= {name: np.ascontiguousarray(getattr(segmenter, name), np.float16) for name in _LARGE}
    save_file(tensors, folder / TENSORS)
    (folder / CARD).write_text(json.dumps(segmenter.card, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load_segmenter(folder: Path) -> TopicSegmenter:
    """Raises UsageError where the folder holds no segmenter of this format."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']}")
        read = {n: t.astype(np.float64) for n, t in load_file(folder / TENSORS).items()}
        return TopicSegmenter(
            read["projection"], read["offset"], read["spread"], float(read["scale"]), read["kinds"],
            read["weights"], float(read["bias"]), float(read["threshold"]), card,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UsageError(
            f"{folder} holds no segmenter: {error}.", "Make one: agentmtl train segmenter --data … --out DIR"
        ) from error


_LARGE = ("projection",)
_SMALL = ("offset", "spread", "scale", "kinds", "weights", "bias", "threshold")


@lru_cache(maxsize=8)
def segmenter_for(trunk: str, folder: str = "") -> Segmenter | TopicSegmenter:
    """The segmenter of a folder, or the one that comes with the package for the encoder with these weights;
    where neither is, and for "likeness", the one that reads only how alike sentences are, of any encoder.

    Raises UsageError for a folder without a segmenter, or with one for another encoder.
    """
    if folder and folder != LIKENESS:
        found = load_segmenter(Path(folder))
        if found.card["trunk"] != trunk:
            raise UsageError(
                f"The segmenter {folder} reads vectors of {found.card['trunk'][:19]}…, not of {trunk[:19]}….",
                "Make one: agentmtl train segmenter --encoder … --data … --out DIR",
            )
        return found
    place = Path(str(files("agentmtl.ingest").joinpath("weights")))
    if (
        folder != LIKENESS
        and (place / CARD).is_file()
        and json.loads((place / CARD).read_text("utf-8"))["trunk"] == trunk
    ):
        return load_segmenter(place)
    return shipped()
