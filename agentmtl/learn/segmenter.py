"""Fits the topic segmenter: `agentmtl/ingest/weights/segmenter.json`.

    python -m agentmtl.learn.segmenter --data reading/squad/train.jsonl --out segmenter.json

Documents are made by putting pieces of 3 to 11 sentences of different articles one after the other; a gap
between two pieces is a boundary. The threshold is the one with the lowest P_k on held-out articles. Needs
scikit-learn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.segmentation_metrics import half_segment, pk
from agentmtl.ingest import split_sentences
from agentmtl.ingest.segmenter import FEATURES, Floats, Segmenter, gap_features
from agentmtl.retrieval.index import EncoderSpec
from agentmtl.trunk import load_encoder

DOCUMENTS = 300
PIECES = 10
PIECE_SENTENCES = (3, 11)
HELD_OUT = 6  # articles


@dataclass(frozen=True, slots=True)
class Made:
    """A document put together of pieces. `features` (n − 1, f), `boundaries` first sentences of pieces."""

    features: Floats
    boundaries: tuple[int, ...]
    sentences: int


def train_segmenter(data: Path, out: Path, seed: int = 0, encoder: EncoderSpec = "default") -> Segmenter:
    """Fit on a reading set's file and write the weights to `out`. Raises UsageError for another file."""
    articles = _articles(data)
    names = sorted(articles)
    Random(f"segmenter:{seed}").shuffle(names)
    parts = (names[HELD_OUT:], names[:HELD_OUT])
    train, held_out = (
        _made(articles, part, seed, encoder, DOCUMENTS // (1 + i)) for i, part in enumerate(parts)
    )
    fitted = _fit(train)
    threshold, score = _threshold(fitted, held_out)
    card = {
        "command": "python -m agentmtl.learn.segmenter", "data": data.name, "seed": seed,
        "sha256": hashlib.sha256(data.read_bytes()).hexdigest(), "articles": len(articles),
        "held_out": {"articles": HELD_OUT, "documents": len(held_out), "pk": round(score, 4)},
    }  # fmt: skip
    written = {
        "weights": {f: float(f"{w:.6g}") for f, w in zip(FEATURES, fitted.weights, strict=True)},
        "bias": float(f"{fitted.bias:.6g}"), "threshold": threshold, "card": card,
    }  # fmt: skip
    out.write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    return Segmenter(fitted.weights, fitted.bias, threshold)


def _articles(data: Path) -> dict[str, list[str]]:
    """The sentences of every article, its contexts in their order."""
    found: dict[str, dict[str, None]] = {}
    try:
        for line in data.read_text("utf-8").splitlines():
            record: dict[str, Any] = json.loads(line)
            found.setdefault(record["title"], {}).setdefault(record["context"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{data} is not a reading set ({error}).", "Give a train.jsonl.") from error
    return {
        title: [context[a:b] for context in contexts for a, b in split_sentences(context)]
        for title, contexts in found.items()
    }


def _made(
    articles: dict[str, list[str]], names: Sequence[str], seed: int, encoder: EncoderSpec, count: int
) -> list[Made]:
    loaded = load_encoder(encoder)
    every = sorted({s for name in names for s in articles[name]})
    vectors = dict(zip(every, loaded.encode(every), strict=True))
    random = Random(f"segmenter documents:{seed}:{len(names)}")
    made = []
    for _ in range(count):
        pieces = [_piece(articles[name], random) for name in _different(names, random)]
        sentences = [s for piece in pieces for s in piece]
        starts = np.cumsum([len(piece) for piece in pieces])[:-1]
        features = gap_features(sentences, np.stack([vectors[s] for s in sentences]))
        made.append(Made(features, tuple(starts.tolist()), len(sentences)))
    return made


def _different(names: Sequence[str], random: Random) -> list[str]:
    """Articles in a row, no two neighbours the same."""
    chosen: list[str] = []
    while len(chosen) < PIECES:
        name = random.choice(names)
        if not chosen or name != chosen[-1]:
            chosen.append(name)
    return chosen


def _piece(sentences: Sequence[str], random: Random) -> Sequence[str]:
    size = random.randint(*PIECE_SENTENCES)
    start = random.randrange(max(1, len(sentences) - size))
    return sentences[start : start + size]


def _fit(made: Sequence[Made]) -> Segmenter:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([m.features for m in made])
    labels = np.concatenate([np.isin(np.arange(1, m.sentences), m.boundaries) for m in made])
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(features), labels)
    spread = np.where(scaler.scale_ > 0, scaler.scale_, 1.0)
    weights = model.coef_[0] / spread
    return Segmenter(weights, float(model.intercept_[0] - weights @ scaler.mean_))


def _threshold(fitted: Segmenter, made: Sequence[Made]) -> tuple[float, float]:
    """The threshold with the lowest mean P_k, and that."""
    found = []
    for threshold in np.linspace(-3, 3, 61):
        scores = []
        for document in made:
            logits = document.features @ fitted.weights + fitted.bias
            cuts = [int(i) + 1 for i in np.flatnonzero(logits > threshold)]
            half = half_segment(document.boundaries, document.sentences)
            scores.append(pk(document.boundaries, cuts, document.sentences, half))
        found.append((float(np.mean(scores)), round(float(threshold), 2)))
    score, threshold = min(found)
    return threshold, score


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit the topic segmenter.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    fitted = train_segmenter(given.data, given.out, given.seed)
    sys.stdout.write(f"threshold {fitted.threshold}\n")


if __name__ == "__main__":
    main()
