"""Trains the reranker: of passages that the fused search found for a question, which one is gold.

A group is a question with one gold passage and hard negatives, drawn from the first hits of the fused search;
the loss is −log of the gold one's share in a softmax over the group's scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.evaluate.datasets import DataSet, Question, kind_of, read_multihop, read_reading, sample
from agentmtl.evaluate.indexes import index_for, with_titles
from agentmtl.evaluate.reading_examples import headed
from agentmtl.learn.reader import run_module
from agentmtl.learn.training import by_length
from agentmtl.retrieval.rerank import SCORE, standardised
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.pairs import PairCutter, Window

if TYPE_CHECKING:
    import torch

    from agentmtl.retrieval.index import Index

DEPTH = 20  # hits that negatives are drawn from, and that dev reorders
NEGATIVES = 5
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_DEV_PAIRS = 32  # scored at once


@dataclass(frozen=True, slots=True)
class Group:
    """A question's hits, best first: `texts`, their fused `scores` and which are `gold`, all (n,), and their
    `vectors` (n, d)."""

    id: str
    set: str
    split_by: str
    question: str
    texts: tuple[str, ...]
    scores: tuple[float, ...]
    gold: tuple[bool, ...]
    vectors: Vectors


def groups_of(
    folder: Path,
    indexes: Path,
    limit: int = 0,
    seed: int = 0,
    split: str = "train",
    encoder: str = "default",
) -> list[Group]:
    """The groups of a set whose hits hold a gold passage and another: of a reading set's file for the split,
    or of a multi-hop set. Raises what building its index raises."""
    data = read_reading(folder, split) if kind_of(folder) == "reading" else read_multihop(folder)
    index = index_for(data, indexes, encoder=encoder)
    index.add_stream()
    titles = {d.source_id: d.title for d in data.documents}
    questions = sample([q for q in data.questions if q.gold], limit or None, seed)
    found = []
    for question, vector in zip(questions, _vectors(index, questions), strict=True):
        group = _group(index, data, question, vector, titles)
        if any(group.gold) and not all(group.gold):
            found.append(group)
    return found


def _vectors(index: Index, questions: Sequence[Question]) -> Iterator[Vectors]:
    yield from index.encoder.encode([q.question for q in questions], "query")


def _group(
    index: Index,
    data: DataSet,
    question: Question,
    vector: Vectors,
    titles: dict[str, str],
) -> Group:
    hits = index.retriever.retrieve(question.question, k=DEPTH, where=question.where, vector=vector)
    titled = with_titles(data, None)
    gold = set(question.gold)
    return Group(
        question.id,
        data.name,
        titles.get(question.gold[0], "") if data.kind == "reading" else f"{data.name}:{question.id}",
        question.question,
        tuple(headed(hit.unit.title if titled else "", hit.text) for hit in hits),
        tuple(float(score) for score in hits.scores),
        tuple(hit.unit.source_id in gold for hit in hits),
        hits.vectors(),
    )


class RankingTask:
    """A `TrainTask` over groups."""

    name = "reranker"

    def __init__(
        self, cutter: PairCutter, train: Sequence[Group], dev: Sequence[Group], batch: int = 8, seed: int = 0
    ) -> None:
        self._cutter, self._train, self._dev = cutter, train, dev
        self._batch, self._seed = batch, seed

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        self._epoch = epoch
        lengths = [len(group.texts[group.gold.index(True)]) for group in self._train]
        return by_length(lengths, self._batch, f"reranker:{self._seed}:{epoch}")

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        windows: list[Window] = []
        for i in batch:
            group = self._train[i]
            drawn = _drawn(group, Random(f"{self._seed}:{self._epoch}:{group.id}"))
            texts = [group.texts[n] for n in drawn]
            windows += self._cutter.first_windows([group.question] * len(texts), texts)
        scores = run_module(module, self._cutter, windows)[SCORE][:, 0, 0].view(len(batch), -1)
        return torch.nn.functional.cross_entropy(
            scores, torch.zeros(len(batch), dtype=torch.long, device=scores.device)
        )

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """MRR of the dev groups' gold by the fused score, and with the head's at its best weight, "score"."""
        own = [dev_scores(module, self._cutter, group) for group in self._dev]
        weight, score = best_weight(self._dev, own)
        return {"mrr-fused": mean_mrr(self._dev, own, 0.0), "weight": weight, "score": score}


def _drawn(group: Group, random: Random) -> list[int]:
    """A gold passage, then negatives: better-ranked ones are likelier."""
    golds = [n for n, gold in enumerate(group.gold) if gold]
    others = [n for n, gold in enumerate(group.gold) if not gold]
    weights = [1.0 / (2 + n) for n in others]
    return [random.choice(golds), *random.choices(others, weights, k=NEGATIVES)]


def dev_scores(module: torch.nn.Module, cutter: PairCutter, group: Group) -> list[float]:
    """The head's score of each of a group's texts."""
    windows = cutter.first_windows([group.question] * len(group.texts), group.texts)
    found: list[float] = []
    for at in range(0, len(windows), _DEV_PAIRS):
        found += run_module(module, cutter, windows[at : at + _DEV_PAIRS])[SCORE][:, 0, 0].tolist()
    return found


def best_weight(groups: Sequence[Group], own: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The weight of the head's score that ranks best, and the MRR it gives."""
    scored = [(mean_mrr(groups, own, weight), -weight) for weight in WEIGHTS]
    mrr, negative = max(scored)
    return -negative, mrr


def mean_mrr(groups: Sequence[Group], own: Sequence[Sequence[float]], weight: float) -> float:
    """Mean reciprocal rank of the first gold text, by fused + weight · own; every set weighs the same."""
    ranks: dict[str, list[float]] = {}
    for group, mine in zip(groups, own, strict=True):
        total = standardised(np.array(group.scores)) + weight * np.array(mine)
        ranks.setdefault(group.set, []).append(first_gold_rank(group, total))
    return float(np.mean([np.mean(of_set) for of_set in ranks.values()]))


def first_gold_rank(group: Group, scores: NDArray[np.floating[Any]]) -> float:
    """1 / the rank of the first gold one by `scores` (n,); of equal ones the earlier comes first."""
    order = np.argsort(-scores, kind="stable").tolist()
    return 1.0 / (1 + next(at for at, n in enumerate(order) if group.gold[n]))
