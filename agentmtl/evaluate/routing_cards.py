"""Choosing an expert by its description alone: `agentmtl eval routing --cards FILE`.

A set is a file of {text or query, domain or tool}, cards a TOML or JSON file of name → description. Beside
the descriptions a router fitted on the train rows says what the labels are worth, and with a file of queries
that no expert serves how well it knows its limits.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import auroc, ece
from agentmtl.evaluate.bootstrap import Floats, Statistic, mean_of
from agentmtl.evaluate.jsonl import read_records
from agentmtl.evaluate.report import Report, figures
from agentmtl.routing.description import DescriptionRouter, described
from agentmtl.trunk.encoder import Encoder

BENCHMARK = "routing-cards"
NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Labelled:
    """Queries with the names of the experts they are for."""

    texts: tuple[str, ...]
    names: tuple[str, ...]


def read_cards(path: Path) -> dict[str, str]:
    """Name → description, of a .json object or the [cards] of a .toml file. Raises UsageError for others."""
    try:
        raw = path.read_text("utf-8")
        data = tomllib.loads(raw).get("cards") if path.suffix == ".toml" else json.loads(raw)
    except (OSError, ValueError) as error:
        raise UsageError(f"The cards {path} cannot be read: {error}.", "Give name → description.") from error
    if not isinstance(data, dict) or not all(isinstance(card, str) for card in data.values()):
        raise UsageError(f"{path} holds no cards.", "Give name → description.")
    return data


def read_labelled(path: Path, split: str | None = None) -> Labelled:
    """{text | query, domain | tool, split?} a line. Raises IngestError for a bad line."""
    texts, names = [], []
    for record in read_records(path):
        if split is not None and record.text("split") != split:
            continue
        texts.append(record.text("text", "") or record.text("query"))
        names.append(record.text("domain", "") or record.text("tool"))
    return Labelled(tuple(texts), tuple(names))


def evaluate_cards(
    cards: Path,
    train: Labelled,
    test: Labelled,
    encoder: Encoder,
    *,
    outside: Sequence[str] = (),
    name: str = "",
    seed: int = 0,
    commands: Sequence[str] = (),
) -> Report:
    """accuracy and ece of the description router, of neighbours among the train rows, and of the most common
    name; with `outside`, queries that no expert serves, the AUROC of telling them.

    Raises UsageError where a row names an expert that has no card.
    """
    started = time.perf_counter()
    known = read_cards(cards)
    missing = sorted({*train.names, *test.names} - set(known))
    if missing:
        raise UsageError(f"There is no card of {missing[0]!r}.", "Describe every expert.")
    router = DescriptionRouter(described(known), encoder)
    vectors = encoder.encode(test.texts, "query")
    seen, away = encoder.encode(train.texts, "query"), encoder.encode(list(outside), "query")
    chances = router.probabilities(np.asarray(vectors, np.float64))
    chosen = np.array(router.experts)[chances.argmax(axis=1)]
    right = (chosen == np.array(test.names)).astype(float)
    voted, shares = _voted(seen, train.names, vectors)
    common = max(sorted(set(train.names)), key=train.names.count)
    measured = {
        "most common": {"accuracy": mean_of(np.array([float(common == n) for n in test.names]))},
        "descriptions": {
            "accuracy": mean_of(right),
            "ece": Statistic((chances.max(axis=1), right), ece),
        },
        "fitted": {
            "accuracy": mean_of((voted == np.array(test.names)).astype(float)),
            "ece": Statistic((shares, (voted == np.array(test.names)).astype(float)), ece),
        },
    }
    if len(outside):
        inside = np.concatenate([np.ones(len(vectors)), np.zeros(len(away))])
        both = np.concatenate([vectors, away]).astype(np.float64)
        by_card = router.likeness(both).max(axis=1)
        by_rows = np.concatenate([_nearest(seen, v) for v in (vectors, away)])
        measured["descriptions"]["auroc"] = Statistic((by_card, inside), auroc)
        measured["fitted"]["auroc"] = Statistic((by_rows, inside), auroc)
    return Report(
        BENCHMARK, name or cards.stem, len(test.texts), seed, figures(measured, seed), "descriptions",
        time.perf_counter() - started, tuple(commands), measured=measured,
        details={"cards": len(known), "train": len(train.texts), "outside": len(outside)},
    )  # fmt: skip


def _voted(seen: np.ndarray, names: Sequence[str], vectors: np.ndarray) -> tuple[np.ndarray, Floats]:
    """The name that weighs most among each query's nearest rows, and its share."""
    labels, codes = np.unique(np.array(names), return_inverse=True)
    chosen, shares = [], []
    for row in vectors:
        cosines = seen @ row
        nearest = np.argpartition(-cosines, NEIGHBOURS)[:NEIGHBOURS]
        weights = np.exp(10.0 * (cosines[nearest] - cosines[nearest].max()))
        votes = np.bincount(codes[nearest], weights, len(labels))
        chosen.append(labels[votes.argmax()])
        shares.append(float(votes.max() / votes.sum()))
    return np.array(chosen), np.array(shares)


def _nearest(seen: np.ndarray, vectors: np.ndarray) -> Floats:
    """(n,) mean cosine of the five nearest rows."""
    return np.array([np.sort(seen @ row)[-5:].mean() for row in vectors])
