"""What a reader's scores say: which words answer, yes or no, or that nothing here does.

A window's span logits are (tokens, 2): of being the first and the last token of the answer. Those of the
first token, [CLS], stand for "no answer here" (BERT on SQuAD 2.0: Devlin et al., arXiv 1810.04805, section
4.3). Its kind logits at [CLS] are of a span, yes and no; its "here" logit there is of this being the text to
answer from, of several: one that is not may still look as if it answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.trunk.heads import HeadCard
from agentmtl.trunk.pairs import Window

SPAN, KIND, HERE = "span", "kind", "here"
KINDS = ("span", "yes", "no")
OUTPUTS: Mapping[str, int] = {SPAN: 2, KIND: len(KINDS), HERE: 1}
LONGEST = 30  # tokens of an answer
A_TOKEN = 0.1  # log-odds that each token after the first costs: the shorter of two is oftener exact
_A_WINDOW = 8  # spans kept of each window
ASKED = ("worth", "gap", "place", "here", "places", "type")  # what the confidence of an answer is made from
_UNFITTED = (0.4, *[0.0] * len(ASKED))  # until a head's answers were measured
_NOTHING = -30.0  # margin where a text has no token

Floats = NDArray[np.float32]
Features = tuple[float, ...]  # what a logistic model reads


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end) in characters of the text of `pair`.

    `score`: the sum of its two logits less what its length costs; `margin`: the same less that of no answer
    in its window.
    """

    pair: int
    start: int
    end: int
    score: float
    margin: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in a text: its spans by margin, the logits of `KINDS`, and of the answer being here."""

    spans: tuple[Span, ...]
    kinds: tuple[float, ...]
    here: float = 0.0

    @property
    def kind(self) -> str:
        """ "span", "yes" or "no"."""
        return KINDS[int(np.argmax(self.kinds))]

    @property
    def margin(self) -> float:
        """How far the best span stands above no answer, in log-odds."""
        return self.spans[0].margin if self.spans else _NOTHING

    @property
    def features(self) -> Features:
        """What the calibration reads: the margin, the log of the best span's share among the spans, and how
        far yes or no stands above a span."""
        scores = np.array([span.score for span in self.spans] or [0.0])
        share = -float(np.log(np.exp(scores - scores.max()).sum()))
        return self.margin, share, max(self.kinds[1:]) - self.kinds[0]


def readings_of(windows: Sequence[Window], logits: Sequence[Mapping[str, Floats]]) -> dict[int, Reading]:
    """The reading of every pair, by its number, from its windows and their logits.

    A long text's kind, and whether it is the one to read, are those of its window with the best span.
    """
    spans: dict[int, list[Span]] = {}
    best_at: dict[int, tuple[float, Mapping[str, Floats]]] = {}
    for window, found in zip(windows, logits, strict=True):
        best = spans_of(window, found[SPAN])
        spans.setdefault(window.pair, []).extend(best)
        margin = best[0].margin if best else _NOTHING
        if window.pair not in best_at or best_at[window.pair][0] < margin:
            best_at[window.pair] = (margin, found)
    return {pair: _reading(mine, best_at[pair][1]) for pair, mine in spans.items()}


def _reading(spans: Iterable[Span], logits: Mapping[str, Floats]) -> Reading:
    """Of a text, by the logits of its best window. A head without the output `HERE` takes all texts alike."""
    here = float(logits[HERE][0, 0]) if HERE in logits else 0.0
    return Reading(tuple(best_of(spans)), tuple(map(float, logits[KIND][0])), here)


def spans_of(window: Window, logits: Floats) -> list[Span]:
    """The best spans of a window, best first. `logits` (tokens, 2)."""
    places = np.flatnonzero(window.starts >= 0)
    if not len(places):
        return []
    none = float(logits[0, 0] + logits[0, 1])
    total = logits[places, 0][:, None] + logits[places, 1][None, :]
    i, j = np.indices(total.shape, sparse=True)
    total = total - A_TOKEN * np.maximum(j - i, 0)
    flat = np.where((j >= i) & (j < i + LONGEST), total, -np.inf).ravel()
    count = min(_A_WINDOW, int(np.isfinite(flat).sum()))
    best = np.argpartition(-flat, count - 1)[:count]
    best = best[np.lexsort((best, -flat[best]))]
    firsts, lasts = np.unravel_index(best, total.shape)
    return [
        Span(
            window.pair,
            int(window.starts[places[a]]),
            int(window.ends[places[b]]),
            float(total[a, b]),
            float(total[a, b]) - none,
        )
        for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]


def best_of(spans: Iterable[Span]) -> list[Span]:
    """Spans by margin, each place once: windows and passages compete by how far above "no answer" each of
    their spans stands. Ties by place."""
    found: dict[tuple[int, int, int], Span] = {}
    for span in spans:
        key = (span.pair, span.start, span.end)
        if key not in found or found[key].margin < span.margin:
            found[key] = span
    return sorted(found.values(), key=lambda s: (-s.margin, s.pair, s.start, s.end))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic models: over `Reading.features`, that a text holds an answer and that the one given is right;
    over what the reader makes of all passages (`ASKED`), that the answer to a question is right; and, over
    how far yes and no stand apart, that the one said is right (`side`).

    `threshold`: of `of_answer`, below which nothing is said of a text; `asked_threshold`: of `of_asked`.
    """

    answerable: tuple[float, ...]  # weights, then the bias
    right: tuple[float, ...]
    asked: tuple[float, ...] = _UNFITTED
    threshold: float = 0.5
    asked_threshold: float = 0.5
    side: tuple[float, ...] = (1.0, 0.0)

    def of_answer(self, reading: Reading) -> float:
        """The probability that the text holds an answer."""
        return _probability(self.answerable, reading.features)

    def of_right(self, reading: Reading) -> float:
        """The probability that the answer given is exactly right."""
        return _probability(self.right, reading.features)

    def of_asked(self, features: Features) -> float:
        """The probability that an answer out of several passages is right."""
        return _probability(self.asked, features)

    def of_side(self, apart: float) -> float:
        """The probability that yes or no is right, from the difference of their logits (not negative)."""
        return _probability(self.side, (apart,))

    def to_json(self) -> dict[str, Any]:
        return {
            "side": list(self.side),
            "answerable": list(self.answerable),
            "right": list(self.right),
            "asked": list(self.asked),
            "threshold": self.threshold,
            "asked_threshold": self.asked_threshold,
        }

    @classmethod
    def of(cls, card: HeadCard) -> Calibration | None:
        """A head's calibration; None where it has none yet."""
        data = card.calibration
        if not data:
            return None
        asked = tuple(data.get("asked", _UNFITTED))
        thresholds = data["threshold"], data.get("asked_threshold", 0.5)
        side = tuple(data.get("side", (1.0, 0.0)))
        return cls(tuple(data["answerable"]), tuple(data["right"]), asked, *thresholds, side)


def _probability(model: tuple[float, ...], features: tuple[float, ...]) -> float:
    *weights, bias = model
    odds = bias + sum(w * f for w, f in zip(weights, features, strict=True))
    return float(1.0 / (1.0 + np.exp(-np.clip(odds, -40, 40))))
