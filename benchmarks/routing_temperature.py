"""The temperature of the description router: chosen by the likelihood of the train rows, judged over folds.

    python benchmarks/routing_temperature.py [--data DIR] [--limit 4000] [--json]

CLINC's ten domains by the cards of clinc-domains.toml and MetaTool's 199 tools by their own descriptions.
Each fold's temperature is fitted on the other four; beside it the one that the package has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.evaluate.answer_metrics import ece
from agentmtl.evaluate.routing_cards import Labelled, read_cards, read_labelled
from agentmtl.routing.description import TEMPERATURE, DescriptionRouter, described
from agentmtl.routing.route import Floats
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Encoder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "routing"
CARDS = Path(__file__).with_name("clinc-domains.toml")
GRID = np.geomspace(0.01, 0.2, 60)
FOLDS, SEED, AT_ONCE = 5, 0, 256


def logs(likeness: Floats, temperature: float) -> Floats:
    """(n, experts) log-probabilities."""
    scaled = likeness / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def loss(likeness: Floats, gold: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood of the right expert, in nats."""
    return float(-logs(likeness, temperature)[np.arange(len(gold)), gold].mean())


def measure(cards: Mapping[str, str], rows: Labelled, encoder: Encoder, limit: int) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    picked = rng.choice(len(rows.texts), min(limit, len(rows.texts)), replace=False)
    texts = [rows.texts[n] for n in picked]
    parts = [encoder.encode(texts[n : n + AT_ONCE], "query") for n in range(0, len(texts), AT_ONCE)]
    router = DescriptionRouter(described(cards), encoder)
    likeness = router.likeness(np.concatenate(parts).astype(np.float64))
    gold = np.array([router.experts.index(rows.names[n]) for n in picked])
    right = likeness.argmax(axis=1) == gold
    fold, chosen = rng.permutation(len(gold)) % FOLDS, []
    sure, losses = np.zeros(len(gold)), []
    for number in range(FOLDS):
        seen, held = fold != number, fold == number
        best = float(min(GRID, key=lambda t: loss(likeness[seen], gold[seen], t)))
        chosen.append(round(best, 4))
        losses.append(loss(likeness[held], gold[held], best))
        sure[held] = np.exp(logs(likeness[held], best).max(axis=1))
    ours = np.exp(logs(likeness, TEMPERATURE).max(axis=1))
    return {
        "rows": len(gold), "experts": len(router.experts), "accuracy": float(right.mean()),
        "chosen by fold": chosen, "held out": {"loss": float(np.mean(losses)), "ece": ece(sure, right)},
        f"at {TEMPERATURE}": {
            "loss": loss(likeness, gold, TEMPERATURE), "ece": ece(ours, right),
            "share surer than .5": float((ours >= 0.5).mean()),
            "accuracy there": float(right[ours >= 0.5].mean()),
        },
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--limit", type=int, default=4_000, help="rows of each set")
    options.add_argument("--json", action="store_true")
    arguments = options.parse_args()
    encoder = load_encoder()
    sets = {
        "clinc-domains": (CARDS, read_labelled(arguments.data / "clinc-domains" / "train.jsonl")),
        "metatool": (
            arguments.data / "tools.json",
            read_labelled(arguments.data / "metatool.jsonl", "train"),
        ),
    }
    found = {
        name: measure(read_cards(cards), rows, encoder, arguments.limit)
        for name, (cards, rows) in sets.items()
    }
    print(
        json.dumps(
            {"schema": 1, "benchmark": "routing_temperature", **found}, indent=None if arguments.json else 1
        )
    )


if __name__ == "__main__":
    main()
