"""Adapts an encoder to a corpus without labels: what its cycles learn from, and their losses.

A cycle (Trans-Encoder, arXiv 2109.13059, for retrieval): the bi-encoder finds and labels candidates of
every query made from the corpus (`agentmtl.learn.pseudo_queries`); a cross-encoder that begins at its
weights learns these labels, and so reads each pair with all its words; the bi-encoder learns what the
cross-encoder then says.

A label lies between 0 and 1 as cosines do: the bi-encoder's are cosines, a source's moved half of the way
to 1. A distribution over a query's candidates is a softmax of labels, or of the student's cosines, over τ =
.05.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from agentmtl.evaluate.metrics import recall_at
from agentmtl.learn.pseudo_queries import Pseudo
from agentmtl.learn.reader import run_module
from agentmtl.learn.text_vectors import encoded, vectors_of
from agentmtl.learn.training import by_length
from agentmtl.retrieval.rerank import SCORE
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.pairs import PairCutter

if TYPE_CHECKING:
    import torch

    from agentmtl.retrieval.index import Index

TEMPERATURE = 0.05
MINED = 3  # candidates of each channel besides the sources
SOURCE = 0.5  # how far a source's label goes to 1
DEPTH = 10
_AT_ONCE = 32  # pairs that the cross-encoder reads together


@dataclass(frozen=True, slots=True)
class Listed:
    """A query with the rows of its candidates, its sources first, and their labels."""

    query: Pseudo
    rows: tuple[int, ...]
    labels: tuple[float, ...]


def mined(
    queries: Sequence[Pseudo], vectors: Vectors, passages: Vectors, lexical: Sequence[Sequence[int]]
) -> list[Listed]:
    """Candidates of each query (vectors (m, d)): its sources, and the first others by cosine to `passages`
    (n, d)
    and by `lexical` rows; labelled by cosine."""
    found = []
    for query, vector, words in zip(queries, vectors, lexical, strict=True):
        scores = passages @ vector
        near = np.argsort(-scores, kind="stable")[: MINED + len(query.sources)].tolist()
        rows = list(query.sources)
        for order in (near, words):
            rows += [row for row in order if row not in rows][:MINED]
        labels = np.clip(scores[rows], 0.0, 1.0)
        labels[: len(query.sources)] += SOURCE * (1 - labels[: len(query.sources)])
        found.append(Listed(query, tuple(rows), tuple(labels.tolist())))
    return found


def lexical_rows(index: Index, queries: Sequence[Pseudo], rows: dict[str, int]) -> list[list[int]]:
    """Of each query the passages that the index finds by words, as rows by unit id."""
    found = []
    for query in queries:
        hits = index.retriever.retrieve(query.text, k=MINED + len(query.sources), channel="lexical")
        units = hits.snapshot.units(hits.level, hits.addresses)
        found.append([rows[unit.id] for unit in units if unit.id in rows])
    return found


class PairsTask:
    """A `TrainTask` of the cross-encoder: labelled (query, passage) pairs by soft cross-entropy."""

    name = "cross"

    def __init__(
        self,
        cutter: PairCutter,
        texts: Sequence[str],
        train: Sequence[Listed],
        dev: Sequence[Listed],
        batch: int = 32,
        seed: int = 0,
    ) -> None:
        self._cutter, self._texts, self._dev = cutter, texts, dev
        self._pairs = [
            (one.query.text, texts[row], label)
            for one in train
            for row, label in zip(one.rows, one.labels, strict=True)
        ]
        self._batch, self._seed = batch, seed

    @property
    def size(self) -> int:
        return len(self._pairs)

    def batches(self, epoch: int) -> list[list[int]]:
        lengths = [len(query) + len(text) for query, text, _ in self._pairs]
        return by_length(lengths, self._batch, f"cross:{self._seed}:{epoch}")

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        queries, texts, labels = zip(*(self._pairs[n] for n in batch), strict=True)
        logits = run_module(module, self._cutter, self._cutter.first_windows(queries, texts))[SCORE][:, 0, 0]
        wanted = torch.tensor(labels, dtype=logits.dtype, device=logits.device)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Of held-out queries' sources the share that is among as many first candidates, as "score"."""
        values = []
        for one in relabelled(module, self._cutter, self._texts, self._dev):
            count = len(one.query.sources)
            first = np.argsort(-np.array(one.labels), kind="stable")[:count]
            values.append(float((first < count).mean()))
        return {"score": float(np.mean(values))}


def relabelled(
    module: torch.nn.Module, cutter: PairCutter, texts: Sequence[str], lists: Sequence[Listed]
) -> list[Listed]:
    """The lists with the cross-encoder's probabilities for labels."""
    import torch

    pairs = [(one.query.text, texts[row]) for one in lists for row in one.rows]
    order = sorted(range(len(pairs)), key=lambda n: sum(map(len, pairs[n])))
    said = np.empty(len(pairs))
    with torch.no_grad():
        for at in range(0, len(order), _AT_ONCE):
            part = order[at : at + _AT_ONCE]
            windows = cutter.first_windows([pairs[n][0] for n in part], [pairs[n][1] for n in part])
            logits = run_module(module, cutter, windows)[SCORE][:, 0, 0]
            said[part] = torch.sigmoid(logits.float()).cpu().numpy()
    return with_labels(lists, said.tolist())


def with_labels(lists: Sequence[Listed], labels: Sequence[float]) -> list[Listed]:
    """The lists with these labels, one a candidate in turn."""
    found, at = [], 0
    for one in lists:
        found.append(replace(one, labels=tuple(labels[at : at + len(one.rows)])))
        at += len(one.rows)
    return found


class SoftTask:
    """A `TrainTask` of the bi-encoder: the labels' distribution over a query's candidates, and InfoNCE of
    one of its
    sources among the batch's passages. Dev: `pool` are the rows that held-out queries find their sources
    among."""

    name = "bi"

    def __init__(
        self,
        cutter: PairCutter,
        texts: Sequence[str],
        train: Sequence[Listed],
        dev: Sequence[Pseudo],
        pool: Sequence[int],
        batch: int = 32,
        seed: int = 0,
    ) -> None:
        self._cutter, self._texts, self._train, self._dev = cutter, texts, train, dev
        self._pool, self._batch, self._seed = pool, batch, seed

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        order = list(range(len(self._train)))
        Random(f"bi:{self._seed}:{epoch}").shuffle(order)
        return [order[at : at + self._batch] for at in range(0, len(order), self._batch)]

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        lists = [self._train[n] for n in batch]
        rows = list(dict.fromkeys(row for one in lists for row in one.rows))
        texts = [one.query.text for one in lists] + [self._texts[row] for row in rows]
        vectors = encoded(module, self._cutter, texts)[0]
        with torch.autocast(vectors.device.type, enabled=False):
            scores = vectors[: len(lists)] @ vectors[len(lists) :].T / TEMPERATURE
            places = {row: n for n, row in enumerate(rows)}
            return torch.stack(
                [
                    soft_loss(row, [places[r] for r in one.rows], one)
                    for row, one in zip(scores, lists, strict=True)
                ]
            ).mean()

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Recall@10 of held-out queries' sources among the pool, as "score"."""
        texts = [self._texts[row] for row in self._pool]
        vectors = vectors_of(module, self._cutter, [*(one.text for one in self._dev), *texts])
        names = [str(row) for row in self._pool]
        values = []
        for one, scores in zip(
            self._dev, vectors[: len(self._dev)] @ vectors[len(self._dev) :].T, strict=True
        ):
            order = np.argsort(-scores, kind="stable")[: 4 * DEPTH]
            ranking = [(names[n], float(scores[n])) for n in order]
            values.append(recall_at(ranking, {str(row) for row in one.sources}, DEPTH))
        return {"score": float(np.mean(values))}


def soft_loss(scores: torch.Tensor, places: Sequence[int], listed: Listed) -> torch.Tensor:
    """KL(softmax(labels/τ) ‖ softmax(own scores)) + the mean over the sources of −log of its share among all
    passages of the batch but the other sources. `scores` (passages,), over τ; `places` of the candidates."""
    import torch

    own = torch.log_softmax(scores[list(places)], 0)
    labels = torch.tensor(listed.labels, dtype=scores.dtype, device=scores.device)
    told = torch.log_softmax(labels / TEMPERATURE, 0)
    apart = (told.exp() * (told - own)).sum()
    sources = list(places[: len(listed.query.sources)])
    others = torch.ones_like(scores, dtype=torch.bool)
    others[sources] = False
    rest = torch.logsumexp(scores[others], 0)
    hard = torch.logaddexp(scores[sources], rest) - scores[sources]
    return apart + hard.mean()
