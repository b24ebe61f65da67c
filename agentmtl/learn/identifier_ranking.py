"""Trains the decoder that proposes identifiers to rank, after `agentmtl.learn.identifiers`.

The score that the index gives a sentence, from the decoder's ln P(n | q) of the n-grams in it
(`agentmtl.retrieval.identifiers.scoring`), is differentiable but for which occurrences count. A gold sentence
must lead the others of the first that the search finds (LTRGR, arXiv 2306.15222, section 3.3) by what they
are ranked by in the end (`agentmtl.retrieval.fusion.ranked_again`): this score, standardised and weighed,
added to what the search says without it. So the decoder learns what the others do not know. Generation stays
part of the loss.

Keys are the words of the sentences found, and the query's n-grams of two tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.learn.encoder import batches_of
from agentmtl.learn.identifier_examples import KeyExample, Tokens
from agentmtl.learn.identifiers import KeysTask, remembered
from agentmtl.retrieval.fusion import PROPOSED_WEIGHTS
from agentmtl.retrieval.identifiers.kernel import greedy_cover
from agentmtl.retrieval.identifiers.scoring import Scoring
from agentmtl.retrieval.identifiers.teacher import LIKELIEST, key_logps, shares_of
from agentmtl.schema import Level
from agentmtl.trunk.query_states import States

if TYPE_CHECKING:
    import torch

WEIGHT = PROPOSED_WEIGHTS["sentence"]
SHARPNESS = 0.5  # of the softmax over fused scores, of four that without a decoder foretell best on dev
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class RankedExample:
    """A question with the first sentences that the search finds, as tokens. `offsets`: each one's score
    there. `pairs`: the question's n-grams of two tokens."""

    example: KeyExample
    units: tuple[Tokens, ...]
    gold: tuple[bool, ...]
    offsets: tuple[float, ...]
    pairs: frozenset[Tokens]


@dataclass(frozen=True, slots=True)
class Frequencies:
    """How often each n-gram of one or two tokens occurs: `ones` (v,), and sorted codes of pairs."""

    ones: NDArray[np.int64]
    pairs: NDArray[np.int64]
    counts: NDArray[np.int64]
    says: NDArray[np.bool_]  # whether a token is more than a stop word or a piece of punctuation
    begins: NDArray[np.bool_]  # whether it begins a word

    @property
    def tokens(self) -> int:
        return int(self.ones.sum())

    def of(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
        """The counts of n-grams; `second` is −1 for those of one token."""
        codes = first * len(self.ones) + second
        at = np.minimum(np.searchsorted(self.pairs, codes), max(0, len(self.pairs) - 1))
        paired = (
            np.where(self.pairs[at] == codes, self.counts[at], 0) if len(self.pairs) else np.zeros_like(at)
        )
        return np.where(second < 0, self.ones[first], paired)


@dataclass(frozen=True, slots=True)
class Occurring:
    """The n-grams in units: `keys` of each query, and for every occurrence its unit, its key's number over
    all queries, and its place."""

    keys: list[list[Tokens]]
    units: NDArray[np.int64]
    numbers: NDArray[np.int64]
    places: NDArray[np.int64]
    counts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def occurring(
    units: Sequence[Sequence[Tokens]], pairs: Sequence[Set[Tokens]], frequencies: Frequencies
) -> Occurring:
    """The n-grams in each query's units that may be keys: of one token, and those of two that are among the
    query's `pairs`."""
    columns: list[NDArray[np.int64]] = []
    number = 0
    for query, mine in enumerate(units):
        for unit in mine:
            tokens = np.array(unit, np.int64)
            begins, says = frequencies.begins[tokens], frequencies.says[tokens]
            one = np.flatnonzero(begins & says)
            asked = [pair in pairs[query] for pair in zip(unit, unit[1:], strict=False)]
            two = np.flatnonzero(begins[:-1] & (says[:-1] | says[1:]) & np.array(asked, np.bool_))
            first = np.concatenate([tokens[one], tokens[two]])
            second = np.concatenate([np.full(len(one), -1), tokens[two + 1]])
            place = np.concatenate([one, two])
            same = np.full(len(first), number)
            columns.append(np.stack([np.full(len(first), query), first, second, same, place], 1))
            number += 1
    rows = np.concatenate(columns)
    size = len(frequencies.ones) + 1
    codes = (rows[:, 0] * size + rows[:, 1]) * size + rows[:, 2] + 1
    _, at, numbers = np.unique(codes, return_index=True, return_inverse=True)
    distinct = rows[at]
    keys: list[list[Tokens]] = [[] for _ in units]
    for query, first, second in distinct[:, :3].tolist():
        keys[query].append((first,) if second < 0 else (first, second))
    counts = frequencies.of(distinct[:, 1], distinct[:, 2])
    return Occurring(keys, rows[:, 3], numbers.reshape(-1), rows[:, 4], counts, 1 + (distinct[:, 2] >= 0))


def unit_scores(
    logps: torch.Tensor, there: Occurring, count: int, tokens: int, settings: Scoring
) -> torch.Tensor:
    """(count,): SEAL's score of every unit, differentiable in ln P(n | q) (n,) of all keys."""
    import torch

    present = torch.from_numpy((there.counts + settings.smoothing) / (tokens + settings.smoothing))
    logps = logps.double().clamp(max=LIKELIEST)
    odds = logps + torch.log1p(-present) - torch.log(present) - torch.log1p(-torch.exp(logps))
    weights = torch.relu(odds)
    weights = torch.where(torch.from_numpy(there.lengths) > 1, weights**settings.alpha, weights)
    counted, shares = _counted(weights.detach().numpy(), there, count, settings)
    scores = torch.zeros(count, dtype=weights.dtype)
    parts = weights[torch.from_numpy(there.numbers[counted])] * torch.from_numpy(shares)
    return scores.index_add(0, torch.from_numpy(there.units[counted]), parts)


def _counted(
    weights: NDArray[np.float64], there: Occurring, count: int, settings: Scoring
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(occurrences that count, the share of its weight that each brings)."""
    order = np.lexsort((np.arange(len(weights)), -weights))
    rank = np.empty(len(weights), np.int64)
    rank[order] = np.arange(len(weights))
    kept = np.flatnonzero(weights[there.numbers] > 0)
    kept = kept[np.lexsort((there.places[kept], rank[there.numbers[kept]], there.units[kept]))]
    tokens = np.full((len(weights), 2), -1, np.int64)
    for row, key in enumerate(key for mine in there.keys for key in mine):
        tokens[row, : len(key)] = key
    rows = np.stack(
        [there.units[kept], rank[there.numbers[kept]], np.zeros(len(kept), np.int64), there.places[kept]], 1
    )
    _, shares = greedy_cover(
        rows, count, tokens[order], there.lengths[order].astype(np.int64), weights[order], settings.beta
    )
    return kept[shares > 0], shares[shares > 0]


class RankingTask:
    """A `TrainTask` over questions with sentences; `keys` gives the generation part of the loss. `margin` of
    a hinge between the gold sentence and each other; 0: a softmax over all."""

    name = "ranking"

    def __init__(
        self,
        train: Sequence[RankedExample],
        dev: Sequence[RankedExample],
        states: Mapping[str, States],
        frequencies: Mapping[str, Frequencies],
        keys: KeysTask,
        batch: int = 16,
        margin: float = 0.0,
        generation: float = 0.1,
        seed: int = 0,
        settings: Scoring | None = None,
    ) -> None:
        self._train, self._dev, self._states, self._frequencies = train, dev, states, frequencies
        self._keys, self._batch, self._seed = keys, batch, seed
        self._margin, self._generation = margin, generation
        self._epoch, self._settings = 0, settings or Scoring()

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        """Each of one set, since counts are of its corpus."""
        self._epoch = epoch
        sets = [one.example.set for one in self._train]
        return batches_of(sets, self._batch, f"ranking:{self._seed}:{epoch}")

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        groups = [self._train[i] for i in batch]
        losses = [
            ranking_loss(fused, group.gold, self._margin)
            for fused, group in zip(self.fused(module, groups), groups, strict=True)
        ]
        generation = self._keys.generation(module, [g.example for g in groups], self._epoch)
        return torch.stack(losses).mean().float() + self._generation * generation

    def fused(self, module: Any, groups: Sequence[RankedExample]) -> list[torch.Tensor]:
        """What each question's units are ranked by. All questions are of one set."""
        import torch

        parts = self.scores(module, groups)
        return [
            torch.tensor(group.offsets, dtype=part.dtype)
            + WEIGHT * (part - part.mean()) / part.std(unbiased=False).clamp(min=_TINY)
            for group, part in zip(groups, parts, strict=True)
        ]

    def scores(self, module: Any, groups: Sequence[RankedExample]) -> list[torch.Tensor]:
        """The channel's scores of each question's units. All questions are of one set."""
        import torch

        frequencies = self._frequencies[groups[0].example.set]
        there = occurring([g.units for g in groups], [g.pairs for g in groups], frequencies)
        prior = shares_of(module, frequencies.ones, frequencies.tokens, self._settings.smoothing)
        levels: list[Level] = ["sentence"] * len(groups)
        memory = remembered(module, [g.example for g in groups], levels, self._states, prior)
        logps = key_logps(module, memory, there.keys)
        sizes = [len(g.units) for g in groups]
        found = unit_scores(logps, there, sum(sizes), frequencies.tokens, self._settings)
        return list(torch.split(found, sizes))

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Mean reciprocal rank of the first gold sentence among a dev question's, "score"; and without the
        decoder's part, "others"."""
        ranks: dict[str, list[float]] = {"score": [], "others": []}
        for group in self._dev:
            (mine,) = self.fused(module, [group])
            ranks["score"].append(reciprocal_rank(mine.detach().numpy(), group.gold))
            ranks["others"].append(reciprocal_rank(np.array(group.offsets), group.gold))
        return {name: float(np.mean(found)) for name, found in ranks.items()}


def ranking_loss(scores: torch.Tensor, gold: Sequence[bool], margin: float = 0.0) -> torch.Tensor:
    """−ln of the gold units' share in a softmax of `SHARPNESS` times the `scores` (n,); with a `margin` the
    mean hinge of the best gold unit against each other."""
    import torch

    right = torch.tensor(gold)
    if margin:
        return torch.relu(scores[~right] - scores[right].max() + margin).mean()
    sharp = SHARPNESS * scores
    return torch.logsumexp(sharp, 0) - torch.logsumexp(sharp[right], 0)


def reciprocal_rank(scores: NDArray[np.floating[Any]], gold: Sequence[bool]) -> float:
    """Of the best gold unit, halfway among those that tie with it."""
    right = np.array(gold)
    best, others = scores[right].max(), scores[~right]
    return float(1.0 / (1 + (others > best).sum() + 0.5 * (others == best).sum()))
