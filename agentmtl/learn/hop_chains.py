"""Trains the hops head: of the chains that the beam holds for best, which are made of evidence alone.

The loss is binary cross-entropy over all chains of a question, so that the logit says when to stop, plus
−log of the share of the right ones in a softmax over them, where there are any.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agentmtl.evaluate.datasets import DataSet, Question, read_multihop, sample
from agentmtl.evaluate.indexes import index_for
from agentmtl.learn.hops import parts_of
from agentmtl.learn.reader import run_module
from agentmtl.learn.training import by_length
from agentmtl.retrieval.hops.beam import Chain, expand
from agentmtl.retrieval.hops.graph import PassageGraph
from agentmtl.retrieval.hops.judge import STEP, texts_of
from agentmtl.retrieval.hops.model import shipped
from agentmtl.retrieval.hops.question import ask
from agentmtl.retrieval.hops.search import HopSettings, graph_of
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.pairs import PairCutter

if TYPE_CHECKING:
    import torch

CHAINS = 10  # of each hop, that are learned from
HOPS = 3
TRAIN_PART = "train"  # of sets whose questions name their part
_DEV_PAIRS = 32  # scored at once


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains of a question at one hop, best first, all (n,): what the head reads (`firsts`, `seconds`),
    their log-odds by features, and which consist of gold passages alone."""

    id: str
    set: str
    firsts: tuple[str, ...]
    seconds: tuple[str, ...]
    scores: tuple[float, ...]
    gold: tuple[bool, ...]

    @property
    def group(self) -> str:
        return f"{self.set}:{self.id}"


@dataclass
class _Recorder:
    """A judge that changes nothing and keeps what it was shown."""

    read: int = CHAINS
    shown: list[list[Chain]] = field(default_factory=list)

    def __call__(self, graph: PassageGraph, question: str, chains: Sequence[Chain]) -> list[float]:
        self.shown.append(list(chains))
        return [chain.score for chain in chains]


def chains_of(folder: Path, indexes: Path, limit: int = 0, seed: int = 0) -> list[Chains]:
    """The chains of `limit` questions (0: all) of a multi-hop set, by weights that have not seen them.

    Where questions name their official part, only those of the train part. Raises what building the set's
    index raises.
    """
    data = read_multihop(folder)
    index = index_for(data, indexes)
    index.add_stream()
    parts = parts_of(folder)
    pool = [q for q in data.questions if q.gold and parts.get(q.id, TRAIN_PART) == TRAIN_PART]
    questions = sample(pool, limit or None, seed)
    graph = graph_of(index.retriever)
    units = index.snapshot.units("passage", graph.addresses(np.arange(graph.passages)))
    sources = [unit.source_id for unit in units]
    vectors = index.encoder.encode([q.question for q in questions], "query")
    found: list[Chains] = []
    for question, vector in zip(questions, vectors, strict=True):
        found += _of_question(data, graph, sources, question, vector)
    return found


def _of_question(
    data: DataSet, graph: PassageGraph, sources: Sequence[str], question: Question, vector: Vectors
) -> list[Chains]:
    asked = ask(graph, question.question, vector)
    if asked is None:
        return []
    model, settings, seen = shipped().without(question.id), HopSettings(hops=HOPS), _Recorder()
    expand(graph, asked, model, settings.updaters, settings.limits, time.perf_counter(), seen)
    gold = set(question.gold)
    found = []
    for chains in seen.shown:
        if chains:
            firsts, seconds = texts_of(graph, question.question, chains)
            ways = [[sources[p] for p in chain.passages()] for chain in chains]
            right = tuple(set(way) <= gold and len(set(way)) == len(way) for way in ways)
            scores = tuple(chain.score for chain in chains)
            found.append(Chains(question.id, data.name, tuple(firsts), tuple(seconds), scores, right))
    return found


class HopTask:
    """A `TrainTask` over chains."""

    name = "hops"

    def __init__(
        self,
        cutter: PairCutter,
        train: Sequence[Chains],
        dev: Sequence[Chains],
        batch: int = 4,
        seed: int = 0,
    ) -> None:
        self._cutter, self._train, self._dev = cutter, train, dev
        self._batch, self._seed = batch, seed

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        lengths = [sum(map(len, chains.seconds)) // len(chains.seconds) for chains in self._train]
        return by_length(lengths, self._batch, f"hops:{self._seed}:{epoch}")

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        items = [self._train[i] for i in batch]
        firsts = [text for chains in items for text in chains.firsts]
        seconds = [text for chains in items for text in chains.seconds]
        logits = run_module(module, self._cutter, self._cutter.first_windows(firsts, seconds))[STEP][:, 0, 0]
        wanted = torch.tensor([g for chains in items for g in chains.gold], device=logits.device)
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted.float())
        shares, at = [], 0
        for chains in items:
            n, right = len(chains.gold), torch.tensor(chains.gold, device=logits.device)
            mine, at = logits[at : at + n], at + n
            if any(chains.gold) and not all(chains.gold):
                shares.append(torch.logsumexp(mine, 0) - torch.logsumexp(mine[right], 0))
        return each + (torch.stack(shares).mean() if shares else 0.0 * each)

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Mean reciprocal rank of the first right chain by the head alone, "score", and by the features.

        0 where no question of dev has a right one.
        """
        own = [head_logits(module, self._cutter, chains) for chains in self._dev]
        pairs = [(c, mine) for c, mine in zip(self._dev, own, strict=True) if any(c.gold)]
        if not pairs:
            return {"mrr-features": 0.0, "score": 0.0}
        by_features = [first_right(c.gold, c.scores) for c, _ in pairs]
        by_head = [first_right(c.gold, mine) for c, mine in pairs]
        return {"mrr-features": float(np.mean(by_features)), "score": float(np.mean(by_head))}


def first_right(gold: Sequence[bool], scores: Sequence[float]) -> float:
    """1 / the rank of the first right one; of equal scores the earlier comes first."""
    order = np.argsort(-np.asarray(scores), kind="stable").tolist()
    return 1.0 / (1 + next(at for at, n in enumerate(order) if gold[n]))


def head_logits(module: torch.nn.Module, cutter: PairCutter, chains: Chains) -> list[float]:
    """The head's logit of each chain."""
    windows = cutter.first_windows(chains.firsts, chains.seconds)
    found: list[float] = []
    for at in range(0, len(windows), _DEV_PAIRS):
        found += run_module(module, cutter, windows[at : at + _DEV_PAIRS])[STEP][:, 0, 0].tolist()
    return found
