"""Reranking: the first hits read together with the query by the trunk's reranker head, a cross-encoder.

Source: Nogueira & Cho, "Passage Re-ranking with BERT", arXiv 1901.04085. The head's log-odds are added,
with a fitted weight, to the standardised score of the first stage, which knows what a cross-encoder does
not: how the whole corpus compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError, UsageError
from agentmtl.retrieval.hits import Hits
from agentmtl.schema import Unit
from agentmtl.trunk.head_network import HeadNetwork, open_head
from agentmtl.trunk.heads import shipped_head

SCORE = "score"
OUTPUTS = {SCORE: 1}
DEPTH = 20  # hits read, at most

Floats = NDArray[np.float64]


class Reranker:
    """Reorders hits of any level. Safe to call from several threads, which take turns."""

    def __init__(self, network: HeadNetwork) -> None:
        """Raises EncoderError for another task's head, or one that was not calibrated."""
        network.head.check_output(SCORE)
        weight = network.head.card.calibration.get("weight")
        if not isinstance(weight, float):
            raise EncoderError("The reranker's head has no weight.", "Make it again: agentmtl train reranker")
        self._network = network
        self.weight = weight

    def is_trained_on(self, sha256: str) -> bool:
        """Whether the head learned from the set with this hash."""
        return self._network.head.card.is_trained_on(sha256)

    def rerank(self, query: str, hits: Hits, *, depth: int = DEPTH, instruction: str = "") -> Hits:
        """The hits with the first `depth` of them in their new order; the others follow as they were.

        `instruction`: the task card's, read in front of the query. Raises EncoderError where the head cannot
        run.
        """
        first = list(hits[:depth])
        if not first:
            return hits
        asked = f"{instruction} {query}".strip()
        own = self.score(asked, [hit.unit for hit in first])
        total = standardised(np.array([hit.score for hit in first])) + self.weight * own
        return hits.rescored("reranker", own.tolist(), total.tolist())

    def score(self, query: str, units: Sequence[Unit]) -> Floats:
        """(n,) log-odds of each unit answering the query; of a long one the best window's."""
        texts = [headed(unit) for unit in units]
        return pair_scores(self._network, [query] * len(texts), texts)


def headed(unit: Unit) -> str:
    """A unit as a cross-encoder reads it: its text under its title."""
    return f"{unit.title}. {unit.text}" if unit.title else unit.text


def load_reranker(folder: Path | None = None, backend: str = "auto") -> Reranker:
    """The reranker of a head's folder, or the one that comes with the package.

    Raises UsageError where none does, EncoderError for a head that does not fit.
    """
    head = folder or shipped_head("reranker")
    if head is None:
        raise UsageError("No reranker is installed.", "Train one: agentmtl train reranker --data … --out DIR")
    return Reranker(open_head(head, backend))


def pair_scores(network: HeadNetwork, queries: Sequence[str], texts: Sequence[str]) -> Floats:
    """(n,) of (query, text) pairs."""
    windows = network.cutter.windows(queries, texts)
    found = np.full(len(texts), -np.inf)
    for window, logits in zip(windows, network.run(windows), strict=True):
        found[window.pair] = max(found[window.pair], float(logits[SCORE][0, 0]))
    return found


def logits_of(network: HeadNetwork, output: str, firsts: Sequence[str], seconds: Sequence[str]) -> Floats:
    """(n,) first logit of a head's output at [CLS] for pairs of texts, cut at the head's length."""
    windows = network.cutter.first_windows(firsts, seconds)
    return np.array([float(logits[output][0, 0]) for logits in network.run(windows)])


def standardised(scores: Floats) -> Floats:
    """Mean 0 and deviation 1; 0 where all are equal."""
    spread = float(scores.std())
    return (scores - scores.mean()) / spread if spread > 0 else np.zeros(len(scores))
