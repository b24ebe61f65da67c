"""The hops head: is this passage the next piece of evidence, given the question and the chain so far?

A cross-encoder reads the beam's few best chains (Beam Retrieval: Zhang et al., arXiv 2308.08973, section 3.2,
kept to a handful of candidates). Its logit and the chain's score by features are put together by a logistic
model, so that chains that were read and chains that were not stay comparable; where even the best one is
unlikely the beam stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.index.tokens import words
from agentmtl.ingest.sentences import split_sentences
from agentmtl.retrieval.hops.beam import Chain
from agentmtl.retrieval.hops.graph import PassageGraph
from agentmtl.retrieval.rerank import headed, logits_of
from agentmtl.schema import Unit
from agentmtl.trunk.head_network import HeadNetwork, open_head
from agentmtl.trunk.heads import shipped_head

STEP = "step"
OUTPUTS = {STEP: 1}
READ = 10  # chains of each hop that are read
_STEP_CHARACTERS = 200  # of each passage that the chain has come through


@dataclass(frozen=True, slots=True)
class Weights:
    """log-odds = `score` · the chain's by features + `head` · the head's logit + `bias`."""

    score: float
    head: float
    bias: float

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Weights | None:
        """Those of a head's calibration; None where it has none yet."""
        return cls(*(float(card[name]) for name in ("score", "head", "bias"))) if card else None


class HopJudge:
    """Scores chains again by reading them. Safe to call from several threads, which take turns."""

    def __init__(self, network: HeadNetwork, read: int = READ) -> None:
        """Raises EncoderError for another task's head, or one without a calibration."""
        network.head.check_output(STEP)
        weights = Weights.of(network.head.card.calibration)
        if weights is None:
            raise EncoderError("The hops head has no calibration.", "Make it again: agentmtl train hops")
        self._network, self._weights, self.read = network, weights, read

    def is_trained_on(self, sha256: str) -> bool:
        """Whether the head learned from the set with this hash."""
        return self._network.head.card.is_trained_on(sha256)

    def __call__(self, graph: PassageGraph, question: str, chains: Sequence[Chain]) -> list[float]:
        """New log-odds of each chain. Raises EncoderError where the head cannot run."""
        if not chains:
            return []
        own = logits_of(self._network, STEP, *texts_of(graph, question, chains))
        before = np.array([chain.score for chain in chains])
        weights = self._weights
        found: list[float] = (weights.score * before + weights.head * own + weights.bias).tolist()
        return found


def load_judge(folder: Path | None = None, backend: str = "auto") -> HopJudge | None:
    """The judge of a head's folder, or the one that comes with the package; None where none does.

    Raises EncoderError for a head that does not fit.
    """
    head = folder or shipped_head("hops")
    return HopJudge(open_head(head, backend)) if head is not None else None


def texts_of(graph: PassageGraph, question: str, chains: Sequence[Chain]) -> tuple[list[str], list[str]]:
    """What the head reads of each chain: the question with the way so far, and the passage it comes to."""
    paths = [chain.passages() for chain in chains]
    numbers = sorted({passage for path in paths for passage in path})
    addresses = graph.addresses(np.array(numbers, np.int64))
    units = dict(zip(numbers, graph.snapshot.units("passage", addresses), strict=True))
    asked = frozenset(words(question))
    firsts, seconds = [], []
    for chain in chains:
        steps, at = list[str](), chain
        while at.parent is not None:
            name = " ".join(graph.spellings[at.via]) if at.via >= 0 else ""
            steps.append(_step(units[at.parent.passage], name, asked))  # the nearest first: the end is cut
            at = at.parent
        firsts.append(" | ".join([question, *steps]))
        seconds.append(headed(units[chain.passage]))
    return firsts, seconds


def _step(unit: Unit, name: str, asked: frozenset[str]) -> str:
    """A passage's title and the sentence that names what it leads to, or shares most with the question."""
    spans = split_sentences(unit.text)
    sentences = [unit.text[start:end] for start, end in spans] or [unit.text]
    named = [s for s in sentences if name and name in " ".join(words(s))]
    best = named[0] if named else max(sentences, key=lambda s: len(asked & set(words(s))))
    return (f"{unit.title}. {best}" if unit.title else best)[:_STEP_CHARACTERS]
