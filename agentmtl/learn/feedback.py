"""What ranks demonstrations: how much each helps to say the right output for an input.

KernelScorer        labels: what it adds to a kernel predictor over frozen vectors; needs no model
OverlapScorer       other outputs: how alike the two outputs are; needs no model
LikelihoodScorer    what a language model makes of it: the likelihood of the right output after the
                    demonstration and the input (UDR, arXiv 2305.04320, section 3.2), of labels normalised
                    over all labels
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agentmtl.experts.scoring import Scorer
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task
from agentmtl.trunk.encoder import Vectors

Floats = NDArray[np.float64]

TEMPERATURE = 0.05  # of the kernel over cosines
FLOOR = 1e-3  # below which a probability of the kernel predictor says no more
BACKGROUND = 2  # examples of every label that the kernel predictor knows already
DRAWS = 3  # of these, over which its verdict is averaged


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The examples of a task that are learned from, of `total` that it has. `vectors` (n, d): frozen, of unit
    length, without the task's instruction."""

    task: Task
    examples: tuple[Demonstration, ...]
    vectors: Vectors
    total: int

    @property
    def outputs(self) -> list[str]:
        return [example.output for example in self.examples]


class FeedbackScorer(Protocol):
    """`whole`: whether every pair of a batch may be scored; else, being dear, only candidates of a query."""

    @property
    def whole(self) -> bool: ...

    def utilities(self, queries: Sequence[int], candidates: Sequence[int]) -> Floats:
        """(queries, candidates): how much each example of the pool helps with each, the higher the more."""
        ...


class KernelScorer:
    """log p(y | x, B and the candidate) − log p(y | x, B), where p is the share of the output among examples
    weighed by exp(cosine / τ), and B a few examples of every label, drawn several times; an example is never
    in its own background."""

    whole = True

    def __init__(self, pool: Pool, seed: int = 0) -> None:
        names = {name: n for n, name in enumerate(sorted(set(pool.outputs)))}
        self._labels = np.array([names[output] for output in pool.outputs])
        self._vectors = np.asarray(pool.vectors, np.float64)
        by_label = [np.flatnonzero(self._labels == n).tolist() for n in range(len(names))]
        self._backgrounds = [
            np.array([row for rows in by_label for row in _drawn(rows, f"background:{seed}:{draw}")])
            for draw in range(DRAWS)
        ]

    def utilities(self, queries: Sequence[int], candidates: Sequence[int]) -> Floats:
        """See the class. The kernel is taken relative to exp(1 / τ), which cancels out."""
        asked, given = np.asarray(queries), np.asarray(candidates)
        right = self._labels[asked][:, None] == self._labels[given]
        kernel = self._kernel(asked, given)
        found = np.zeros(kernel.shape)
        for background in self._backgrounds:
            known = self._kernel(asked, background) * (asked[:, None] != background)
            of_label = known * (self._labels[asked][:, None] == self._labels[background])
            mine, every = of_label.sum(1)[:, None], known.sum(1)[:, None] + 1e-12
            after = (mine + kernel * right) / (every + kernel)
            found += np.log(np.maximum(after, FLOOR)) - np.log(np.maximum(mine / every, FLOOR))
        return found / len(self._backgrounds)

    def _kernel(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        near: Floats = np.exp((self._vectors[rows] @ self._vectors[columns].T - 1) / TEMPERATURE)
        return near


def _drawn(rows: Sequence[int], seed: str) -> list[int]:
    return Random(f"{seed}:{rows[0]}").sample(list(rows), min(BACKGROUND, len(rows)))


@dataclass(slots=True)
class OverlapScorer:
    """F1 of the words of the two outputs, signs counted as words."""

    pool: Pool
    whole: bool = field(init=False, default=True)
    _words: list[Counter[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._words = [Counter(output.split()) for output in self.pool.outputs]

    def utilities(self, queries: Sequence[int], candidates: Sequence[int]) -> Floats:
        bags = [self._words[n] for n in (*queries, *candidates)]
        places = {word: n for n, word in enumerate(sorted({word for bag in bags for word in bag}))}
        counts = np.zeros((len(bags), max(1, len(places))))
        for row, bag in enumerate(bags):
            for word, count in bag.items():
                counts[row, places[word]] = count
        asked, given = counts[: len(queries)], counts[len(queries) :]
        shared = np.array([np.minimum(one, given).sum(1) for one in asked])
        sizes = asked.sum(1)[:, None] + given.sum(1)
        f1: Floats = 2 * shared / np.maximum(sizes, 1.0)
        return f1


@dataclass(slots=True)
class LikelihoodScorer:
    """By a language model: the mean log-probability of the output's tokens after "x_c⇥y_c⏎x⇥"; where the task
    has labels, the log of the output's share among all labels. Each pair is scored once."""

    pool: Pool
    model: Scorer
    whole: bool = field(init=False, default=False)
    _known: dict[tuple[int, int], float] = field(init=False, default_factory=dict)

    @property
    def scored(self) -> int:
        """Pairs that the model has read."""
        return len(self._known)

    def utilities(self, queries: Sequence[int], candidates: Sequence[int]) -> Floats:
        """Raises ModelError where the model fails."""
        wanted = [(q, c) for q in queries for c in candidates if (q, c) not in self._known]
        if wanted:
            self._known.update(zip(wanted, self._scores(wanted), strict=True))
        return np.array([[self._known[q, c] for c in candidates] for q in queries])

    def _scores(self, pairs: Sequence[tuple[int, int]]) -> list[float]:
        examples, labels = self.pool.examples, self.pool.task.labels
        asked = []
        for query, candidate in pairs:
            shown, own = examples[candidate], examples[query]
            prompt = f"{shown.input}\t{shown.output}\n{own.input}\t"
            asked += [(prompt, output) for output in (labels or (own.output,))]
        means = [score.mean for score in self.model.score_pairs(asked)]
        if not labels:
            return means
        shares = np.array(means).reshape(len(pairs), len(labels))
        shares -= np.logaddexp.reduce(shares, axis=1)[:, None]
        right = [labels.index(examples[query].output) for query, _ in pairs]
        return [float(shares[row, column]) for row, column in enumerate(right)]
