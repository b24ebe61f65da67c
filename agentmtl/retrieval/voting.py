"""What the nearest labelled examples say: weights by a kernel of their scores, and their outputs' tally."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentmtl.trunk.encoder import Vectors

STRENGTH = 0.25  # κ: 0 counts every demonstration the same; `docs/decisions.md` has the numbers
VOTERS = 8


def kernel_weights(scores: Sequence[float], strength: float) -> list[float]:
    """softmax(strength · z), (n,), of the scores standardised over the n demonstrations."""
    if not scores:
        return []
    values = np.array(scores)
    spread = float(values.std()) or 1.0
    scaled = np.exp(strength * (values - values.max()) / spread)
    return list((scaled / scaled.sum()).tolist())


def tally(outputs: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """The weight of each output."""
    votes: dict[str, float] = {}
    for output, weight in zip(outputs, weights, strict=True):
        votes[output] = votes.get(output, 0.0) + weight
    return votes


def voted(scores: Vectors, outputs: Sequence[str], voters: int = VOTERS) -> list[str]:
    """What the nearest of m examples say of each of n inputs; `scores` (n, m) are their cosines."""
    near = np.argsort(-scores, axis=1, kind="stable")[:, :voters]
    said = []
    for row, found in zip(scores, near, strict=True):
        votes = tally([outputs[n] for n in found], kernel_weights(row[found].tolist(), STRENGTH))
        said.append(max(votes, key=lambda output: (votes[output], output)))
    return said
