"""Trains an encoder for retrieval, for similarity, or for both at once: batches of one task and one set.

The losses are those of CoDiEmb (`agentmtl.learn.encoder_losses`); each set gives as many batches as it has
full ones, and all are shuffled, so that updates are shared out and not losses weighed (arXiv 2508.11442).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from agentmtl.evaluate.correlation import spearman
from agentmtl.evaluate.metrics import ndcg_at
from agentmtl.learn.encoder_data import Asked, Graded
from agentmtl.learn.encoder_losses import ir_loss, sts_loss
from agentmtl.learn.text_vectors import encoded, vectors_of
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.pairs import PairCutter

if TYPE_CHECKING:
    import torch

IR, STS = "ir", "sts"
SLOTS = 2  # positives of a question in a batch
HARD = 4  # its negatives
DEPTH = 10  # of the ranking that dev is judged by


class IrTask:
    """A `TrainTask` over questions."""

    name = IR

    def __init__(
        self, cutter: PairCutter, train: Sequence[Asked], dev: Sequence[Asked], batch: int = 16, seed: int = 0
    ) -> None:
        self._cutter, self._train, self._dev = cutter, train, dev
        self._batch, self._seed, self._epoch = batch, seed, 0

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        self._epoch = epoch
        return batches_of([one.set for one in self._train], self._batch, f"ir:{self._seed}:{epoch}")

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        asked = [self._train[n] for n in batch]
        drawn = [drawn_of(one, Random(f"{self._seed}:{self._epoch}:{one.id}")) for one in asked]
        texts = [one.question for one in asked] + [text for texts in drawn for text in texts]
        vectors = encoded(module, self._cutter, texts)[0]
        with torch.autocast(vectors.device.type, enabled=False):
            queries = vectors[: len(asked)]
            rest = vectors[len(asked) :].view(len(asked), SLOTS + HARD, -1)
            wrong = torch.from_numpy(wrong_of(asked, drawn)).to(vectors.device)
            return ir_loss(queries, rest[:, :SLOTS], rest[:, SLOTS:], wrong)

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """nDCG@10 of the right texts among those of all questions of dev of the set, as "score"."""
        found = []
        for name in dict.fromkeys(one.set for one in self._dev):
            asked = [one for one in self._dev if one.set == name]
            pool = sorted({text for one in asked for text in (*one.positives, *one.negatives[:HARD])})
            vectors = vectors_of(module, self._cutter, [*(one.question for one in asked), *pool])
            scores = vectors[: len(asked)] @ vectors[len(asked) :].T
            values = [
                ndcg_at(_ranking(row, pool), set(one.positives), DEPTH)
                for one, row in zip(asked, scores, strict=True)
            ]
            found.append(float(np.mean(values)))
        return {"score": float(np.mean(found))}


def _ranking(scores: Vectors, pool: Sequence[str]) -> list[tuple[str, float]]:
    order = np.argsort(-scores, kind="stable")[: 4 * DEPTH]
    return [(pool[n], float(scores[n])) for n in order]


class StsTask:
    """A `TrainTask` over graded pairs. `middle`: the InfoNCE reads the trunk's middle layer."""

    name = STS

    def __init__(
        self,
        cutter: PairCutter,
        train: Sequence[Graded],
        dev: Sequence[Graded],
        batch: int = 32,
        seed: int = 0,
        middle: bool = True,
    ) -> None:
        self._cutter, self._train, self._dev = cutter, train, dev
        self._batch, self._seed, self._middle = batch, seed, middle

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        return batches_of([one.set for one in self._train], self._batch, f"sts:{self._seed}:{epoch}")

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        pairs = [self._train[n] for n in batch]
        texts = [one.a for one in pairs] + [one.b for one in pairs]
        last, middle = encoded(module, self._cutter, texts, self._middle)
        with torch.autocast(last.device.type, enabled=False):
            grades = torch.tensor([one.grade for one in pairs], device=last.device)
            n = len(pairs)
            return sts_loss(last[:n], last[n:], (middle[:n], middle[n:]), grades)

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Spearman's correlation, the mean over the sets, as "score"."""
        vectors = vectors_of(module, self._cutter, [t for one in self._dev for t in (one.a, one.b)])
        scores = np.einsum("nd,nd->n", vectors[::2], vectors[1::2])
        grades = np.array([one.grade for one in self._dev])
        sets = np.array([one.set for one in self._dev])
        found = [spearman(scores[sets == name], grades[sets == name]) for name in sorted(set(sets.tolist()))]
        return {"score": float(np.nanmean(found))}


class BothTask:
    """A `TrainTask` over the batches of both, shuffled together: plain joint training."""

    name = "joint"

    def __init__(self, ir: IrTask, sts: StsTask, seed: int = 0) -> None:
        self.ir, self.sts, self._seed = ir, sts, seed

    @property
    def size(self) -> int:
        return self.ir.size + self.sts.size

    def batches(self, epoch: int) -> list[list[int]]:
        found = self.ir.batches(epoch)
        found += [[n + self.ir.size for n in batch] for batch in self.sts.batches(epoch)]
        Random(f"both:{self._seed}:{epoch}").shuffle(found)
        return found

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        if batch[0] < self.ir.size:
            return self.ir.loss(module, batch)
        return self.sts.loss(module, [n - self.ir.size for n in batch])

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Both scores and their mean, "score"."""
        found = {task.name: task.evaluate(module)["score"] for task in (self.ir, self.sts)}
        return {**found, "score": float(np.mean(list(found.values())))}


def batches_of(sets: Sequence[str], size: int, seed: str) -> list[list[int]]:
    """Batches of one set each, shuffled; a set's rest joins no batch, unless it has no full one."""
    random = Random(seed)
    found = []
    for name in dict.fromkeys(sets):
        rows = [n for n, one in enumerate(sets) if one == name]
        random.shuffle(rows)
        full = len(rows) // size * size or len(rows)
        found += [rows[at : min(at + size, full)] for at in range(0, full, size)]
    random.shuffle(found)
    return found


def drawn_of(asked: Asked, random: Random) -> list[str]:
    """`SLOTS` positives and `HARD` negatives; some more than once where there are fewer."""
    return [*_drawn(asked.positives, SLOTS, random), *_drawn(asked.negatives, HARD, random)]


def _drawn(texts: Sequence[str], count: int, random: Random) -> list[str]:
    order = random.sample(texts, len(texts))
    return [order[n % len(order)] for n in range(count)]


def wrong_of(asked: Sequence[Asked], drawn: Sequence[Sequence[str]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(n, n, texts): whether row j's text is a wrong answer to question i."""
    return np.array([[[text not in one.right for text in texts] for texts in drawn] for one in asked])
