"""Does the evidence answer the question? The confidence of the embedded sentence answerer.

A logistic model over the features of `experts.support_features`: no reader, no further encoder pass. Its
weights and how they came about lie in `weights/support.json`; `agentmtl.learn.support` makes that file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.experts.support_features import PassageEvidence, SentenceEvidence, support_features
from agentmtl.schema import Evidence

FORMAT = 1


@dataclass(frozen=True, slots=True)
class SupportModel:
    """A linear score over named features, through a logistic. Immutable, so safe in several threads.

    `mean` and `scale` standardise the features, (f,) each, as do `weights`; `threshold` is the
    recommended confidence to abstain below; `card` says what it was trained on and how well it does.
    """

    features: tuple[str, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: float
    threshold: float
    card: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | None = None) -> SupportModel:
        """The packaged model, or one that `learn.support` wrote. Raises UsageError for any other file."""
        source = path or files("agentmtl") / "experts" / "weights" / "support.json"
        try:
            return cls.from_json(json.loads(source.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{source} is not a support model ({error}).",
                "Make one with: python -m agentmtl.learn.support --data train.jsonl --out support.json",
            ) from error

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SupportModel:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}, not {FORMAT}")
        names = tuple(str(name) for name in data["features"])
        mean, scale, weights = (np.array(data[k], np.float64) for k in ("mean", "scale", "weights"))
        if any(v.shape != (len(names),) or not np.isfinite(v).all() for v in (mean, scale, weights)):
            raise ValueError("not one finite number a feature")
        if not (scale > 0).all():
            raise ValueError("a scale is not positive")
        return cls(names, mean, scale, weights, float(data["bias"]), float(data["threshold"]), data["card"])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives the same model back."""
        return {
            "format": FORMAT,
            "features": list(self.features),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "weights": self.weights.tolist(),
            "bias": self.bias,
            "threshold": self.threshold,
            "card": dict(self.card),
        }

    def score(
        self,
        question: str,
        sentences: Sequence[SentenceEvidence],
        passages: Sequence[PassageEvidence],
        idf: Mapping[str, float],
    ) -> float:
        """The probability that the best sentence answers; 0 where there is none.

        The arguments are those of `support_features`.
        """
        if not sentences:
            return 0.0
        return self.probability(support_features(question, sentences, passages, idf))

    def probability(self, found: Mapping[str, float]) -> float:
        """The probability for features by name; raises KeyError where one is missing."""
        row = np.array([found[name] for name in self.features], np.float64)
        logit = float((row - self.mean) / self.scale @ self.weights) + self.bias
        return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, logit))))

    def score_evidence(self, evidence: Evidence) -> float:
        """`score` of gathered evidence."""
        sentences, passages = first_hop(evidence)
        return self.score(evidence.question, sentences, passages, evidence.idf)


def first_hop(evidence: Evidence) -> tuple[list[SentenceEvidence], list[PassageEvidence]]:
    """The sentences and passages of hop 1, best first.

    Hop 2 is left out: its cosines are with a longer question. So are sentences of no passage given.
    """
    passages = [PassageEvidence(h.text, h.channels.get("dense"), h.unit.title) for h in evidence.passages]
    sentences = []
    for hit in evidence.first_hop:
        place = _passage_of(evidence, hit.unit.source_id, hit.unit.start)
        if place is not None:
            sentences.append(SentenceEvidence(hit.text, hit.channels["dense"], place))
    return sentences[:_SENTENCES], passages


_SENTENCES = 12  # looked at; those further down say nothing more


def _passage_of(evidence: Evidence, source_id: str, start: int) -> int | None:
    for place, hit in enumerate(evidence.passages):
        if hit.unit.source_id == source_id and hit.unit.start <= start < hit.unit.end:
            return place
    return None
