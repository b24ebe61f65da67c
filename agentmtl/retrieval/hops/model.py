"""The weights of the hop search: linear scores of passages and of steps, fitted by `agentmtl.learn.hops`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from agentmtl.index.snapshot import Snapshot
from agentmtl.retrieval.hops.question import QUESTION_FEATURES, Floats
from agentmtl.retrieval.hops.updaters import BRIDGE_FEATURES, TEXT_FEATURES

FEATURES: Mapping[str, tuple[str, ...]] = {
    "question": QUESTION_FEATURES,
    "bridge": BRIDGE_FEATURES,
    "text": TEXT_FEATURES,
}
_NAMES = {kind: set(names) for kind, names in FEATURES.items()}
RANKING = ("chain", "mass", "facet")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Linear:
    """features (n, f) → log-odds (n,)."""

    weights: Floats
    bias: float

    def __call__(self, features: Floats) -> Floats:
        return np.asarray(features @ self.weights + self.bias)


Scorers = Mapping[str, Linear]


@dataclass(frozen=True, slots=True)
class HopModel:
    """`scorers`: of hop 1 ("question") and of the two kinds of steps; `card`: how they came about.

    A passage's rank is that of: the question's own probability + `chain` · the best chain's + `mass` · the
    logarithm of its PageRank mass; and with facets, + `facet` · the best facet's score.

    `folds` are scorers that have not seen the questions of one fold each, so that what was fitted on a set
    can be measured on it too.
    """

    scorers: Scorers
    card: Mapping[str, Any]
    folds: tuple[Scorers, ...] = ()
    chain: float = 4.0
    mass: float = 0.2
    facet: float = 0.5

    def __call__(self, kind: str, features: Floats) -> Floats:
        return self.scorers[kind](features)

    def without(self, question_id: str) -> HopModel:
        """The model that has not seen this question; this one where there are no folds."""
        if not self.folds:
            return self
        return replace(self, scorers=self.folds[fold_of(question_id, len(self.folds))], folds=())

    def to_json(self) -> dict[str, Any]:
        folds = [_plain(scorers) for scorers in self.folds]
        ranking = {name: getattr(self, name) for name in RANKING}
        return {"scorers": _plain(self.scorers), "folds": folds, "card": dict(self.card), "ranking": ranking}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HopModel:
        folds = tuple(map(_scorers, data["folds"]))
        return cls(_scorers(data["scorers"]), data["card"], folds, **data.get("ranking", {}))

    @classmethod
    def of(cls, snapshot: Snapshot) -> HopModel:
        """The weights that an index was made with; this version's where it keeps none that fit."""
        kept = snapshot.manifest.fitted.get("hops")
        if kept is None:
            return shipped()
        if {kind: set(s["weights"]) for kind, s in kept["scorers"].items()} != _NAMES:
            logger.warning(
                "the hop weights of %s are for other features than this version's, whose own are used;"
                " agentmtl index refit %s stores those",
                snapshot.folder,
                snapshot.folder,
            )
            return shipped()
        return cls.from_json(kept)


def fold_of(question_id: str, folds: int) -> int:
    """The fold of a question, from its id alone."""
    return int.from_bytes(hashlib.sha256(question_id.encode()).digest()[:4], "big") % folds


def _plain(scorers: Scorers) -> dict[str, Any]:
    return {
        kind: {"bias": s.bias, "weights": dict(zip(FEATURES[kind], s.weights.tolist(), strict=True))}
        for kind, s in scorers.items()
    }


def _scorers(data: Mapping[str, Any]) -> Scorers:
    return {
        kind: Linear(np.array([given["weights"][name] for name in FEATURES[kind]]), given["bias"])
        for kind, given in data.items()
    }


@lru_cache(maxsize=1)
def shipped() -> HopModel:
    """The weights that come with the package."""
    text = files("agentmtl.retrieval.hops").joinpath("weights.json").read_text("utf-8")
    return HopModel.from_json(json.loads(text))


def probability(log_odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(log_odds, -40.0, 40.0))))
