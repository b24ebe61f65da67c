"""Trains the decoder that proposes identifiers, in two phases.

`KeysTask`, generation: cross-entropy of n-grams drawn from a gold unit of a level. The first token's is over
the whole vocabulary, later ones' over the batch's tokens and a sample (weighed by one over its share). ln Z
of every sum is held near 0.

`RankingTask`: the score that the index gives a sentence, from the decoder's ln P(n | q) of the n-grams in it
(`agentmtl.retrieval.identifiers.scoring`), is differentiable but for which occurrences count. A gold sentence
must lead others of its passage and those that words alone find (LTRGR, arXiv 2306.15222, section 3.3), and
generation stays part of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.learn.identifier_examples import KeyExample, TargetSampler, Tokens
from agentmtl.retrieval.identifiers.kernel import greedy_cover
from agentmtl.retrieval.identifiers.scoring import Scoring
from agentmtl.retrieval.identifiers.teacher import LIKELIEST, key_logps, shift_to
from agentmtl.schema import Level
from agentmtl.trunk.decoder import ASKED, Memory, padded
from agentmtl.trunk.query_states import States

if TYPE_CHECKING:
    import torch

LEVEL_SHARES: Mapping[Level, float] = {"sentence": 0.5, "passage": 0.2, "document": 0.15, "entity": 0.15}
DRAWN = 8  # n-grams of a query in a batch
SAMPLED = 3_000  # tokens that stand for the vocabulary after the first
NEAR_ZERO = 0.05  # weight of ln² Z
PAD = -1


class KeysTask:
    """A `TrainTask` over questions. `states`: each question as the trunk reads it."""

    name = "keys"

    def __init__(
        self,
        train: Sequence[KeyExample],
        dev: Sequence[KeyExample],
        states: Mapping[str, States],
        sampler: TargetSampler,
        batch: int = 32,
        seed: int = 0,
    ) -> None:
        self._train, self._dev, self._states, self._sampler = train, dev, states, sampler
        self._batch, self._seed, self._epoch = batch, seed, 0

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        self._epoch = epoch
        order = list(range(len(self._train)))
        Random(f"keys:{self._seed}:{epoch}").shuffle(order)
        return [order[at : at + self._batch] for at in range(0, len(order), self._batch)]

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        return self.generation(module, [self._train[i] for i in batch], self._epoch)

    def generation(self, module: Any, examples: Sequence[KeyExample], round_: int) -> torch.Tensor:
        """The loss of n-grams drawn for the questions, each of a level drawn for it."""
        levels = self.levels(examples, round_)
        drawn = [
            self._sampler.draw(e, level, DRAWN, round_) for e, level in zip(examples, levels, strict=True)
        ]
        memory = remembered(module, examples, levels, self._states)
        return generation_loss(
            module, memory, drawn, Random(f"sampled:{self._seed}:{round_}:{examples[0].id}")
        )

    def levels(self, examples: Sequence[KeyExample], round_: int) -> list[Level]:
        """The level that each question is asked at, drawn for it."""
        names, shares = zip(*LEVEL_SHARES.items(), strict=True)
        return [Random(f"level:{self._seed}:{round_}:{e.id}").choices(names, shares)[0] for e in examples]

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Perplexity a token of n-grams drawn from dev's gold units; "score" is one over its root."""
        losses = [
            float(self.generation(module, self._dev[at : at + self._batch], 0))
            for at in range(0, len(self._dev), self._batch)
        ]
        mean = float(np.mean(losses))
        return {"perplexity": float(np.exp(mean)), "score": float(np.exp(-mean / 2))}


def remembered(
    module: Any, examples: Sequence[KeyExample], levels: Sequence[Level], states: Mapping[str, States]
) -> Memory:
    """What the decoder attends to for the questions, each asked at its level."""
    import torch

    read = padded([states[e.question] for e in examples])
    memory: Memory = module.remember(read, torch.tensor([ASKED.index(level) for level in levels]))
    return memory


def generation_loss(
    module: Any, memory: Memory, drawn: Sequence[Sequence[Tokens]], random: Random
) -> torch.Tensor:
    """Mean cross-entropy a token of n-grams (some for each query), with the penalty on ln² Z."""
    import torch

    longest = max((len(key) for mine in drawn for key in mine), default=1)
    ids = np.full((len(drawn), max(1, *map(len, drawn)), longest), PAD, np.int64)
    for row, mine in enumerate(drawn):
        for column, key in enumerate(mine):
            ids[row, column, : len(key)] = key
    wanted = torch.from_numpy(ids)
    present = wanted >= 0
    wanted = wanted.clamp(min=0)
    hidden, past = module.begin(memory)
    first = module.scores(memory, hidden)
    total = torch.logsumexp(first, -1)
    lost = (total - first[:, 0].gather(1, wanted[:, :, 0]))[present[:, :, 0]]
    losses, penalty = [lost], [total.flatten() ** 2]
    subset, weights = _subset(module, wanted[:, :, 1:][present[:, :, 1:]], random)
    for length in range(1, longest):
        hidden, past = module.step(memory, wanted[:, :, length - 1], past, _rows(length, wanted))
        here = present[:, :, length]
        logits = module.scores(memory, hidden, subset)[here]
        total = torch.logsumexp(logits + weights, -1)
        places = torch.searchsorted(subset, wanted[:, :, length][here])
        losses.append(total - logits.gather(1, places[:, None])[:, 0])
        penalty.append(total**2)
    return torch.cat(losses).mean() + NEAR_ZERO * torch.cat(penalty).mean()


def _rows(length: int, wanted: torch.Tensor) -> torch.Tensor | None:
    """After the first step, in which all keys share their past, each goes on from its own row."""
    import torch

    if length == 1:
        return None
    return torch.arange(wanted.shape[1]).expand(len(wanted), -1)


def _subset(module: Any, wanted: torch.Tensor, random: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids ascending, what to add to their logits in the sum): the wanted ones, and a sample of all."""
    import torch

    size = module.vocabulary + 3
    count = min(SAMPLED, size)
    drawn = torch.tensor(random.sample(range(size), count))
    subset = torch.unique(torch.cat([wanted, drawn]))
    weights = torch.full((len(subset),), float(np.log(size / count)))
    weights[torch.isin(subset, wanted)] = 0.0
    return subset, weights


# --- ranking ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RankedExample:
    """A question with sentences, as tokens: its gold ones, others of their passages, and others found."""

    example: KeyExample
    golds: tuple[Tokens, ...]
    near: tuple[Tokens, ...]
    found: tuple[Tokens, ...]


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


def occurring(units: Sequence[Sequence[Tokens]], frequencies: Frequencies) -> Occurring:
    """The n-grams of one and two tokens in each query's units that may be keys."""
    columns: list[NDArray[np.int64]] = []
    number = 0
    for query, mine in enumerate(units):
        for unit in mine:
            tokens = np.array(unit, np.int64)
            begins, says = frequencies.begins[tokens], frequencies.says[tokens]
            one = np.flatnonzero(begins & says)
            two = np.flatnonzero(begins[:-1] & (says[:-1] | says[1:]))
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
    """A `TrainTask` over questions with sentences; `keys` gives the generation part of the loss."""

    name = "ranking"

    def __init__(
        self,
        train: Sequence[RankedExample],
        dev: Sequence[RankedExample],
        states: Mapping[str, States],
        frequencies: Mapping[str, Frequencies],
        keys: KeysTask,
        batch: int = 8,
        others: int = 11,
        margin: float = 0.0,
        scale: float = 20.0,
        generation: float = 0.3,
        seed: int = 0,
        settings: Scoring | None = None,
    ) -> None:
        self._train, self._dev, self._states, self._frequencies = train, dev, states, frequencies
        self._keys, self._batch, self._others, self._seed = keys, batch, others, seed
        self._margin, self._scale, self._generation = margin, scale, generation
        self._epoch, self._settings = 0, settings or Scoring()

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        """Each of one set, since counts are of its corpus."""
        self._epoch = epoch
        random = Random(f"ranking:{self._seed}:{epoch}")
        order = list(range(len(self._train)))
        random.shuffle(order)
        order.sort(key=lambda i: self._train[i].example.set)
        found = [order[at : at + self._batch] for at in range(0, len(order), self._batch)]
        random.shuffle(found)
        return found

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        groups = [self._train[i] for i in batch]
        units = [self._drawn(group, self._epoch) for group in groups]
        scores = self.scores(module, [g.example for g in groups], units)
        losses = []
        for mine in scores:
            if self._margin:
                losses.append(torch.relu(mine[1:] - mine[0] + self._margin).mean() / self._scale)
            else:
                losses.append(torch.logsumexp(mine / self._scale, 0) - mine[0] / self._scale)
        generation = self._keys.generation(module, [g.example for g in groups], self._epoch)
        return torch.stack(losses).mean().float() + self._generation * generation

    def scores(
        self, module: Any, examples: Sequence[KeyExample], units: Sequence[Sequence[Tokens]]
    ) -> list[torch.Tensor]:
        """The scores of each question's units. All questions are of one set."""
        import torch

        frequencies = self._frequencies[examples[0].set]
        there = occurring(units, frequencies)
        memory = remembered(module, examples, ["sentence"] * len(examples), self._states)
        shift = torch.from_numpy(
            shift_to(module.prior.numpy(), frequencies.ones, frequencies.tokens, self._settings.smoothing)
        )
        moved = torch.stack([shift[list(key)].sum() for mine in there.keys for key in mine])
        logps = key_logps(module, memory, there.keys) + moved
        sizes = [len(mine) for mine in units]
        return list(
            torch.split(unit_scores(logps, there, sum(sizes), frequencies.tokens, self._settings), sizes)
        )

    def _drawn(self, group: RankedExample, round_: int) -> list[Tokens]:
        """A gold sentence, then others: half of them of its passage where there are so many."""
        random = Random(f"others:{self._seed}:{round_}:{group.example.id}")
        near = random.sample(group.near, min(len(group.near), self._others // 2))
        rest = self._others - len(near)
        found = random.sample(group.found, min(len(group.found), rest))
        return [random.choice(group.golds), *near, *found]

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Mean reciprocal rank of the first gold sentence among all of a dev question's, "score"."""
        ranks = []
        for group in self._dev:
            units = [*group.golds, *group.near, *group.found]
            (mine,) = self.scores(module, [group.example], [units])
            values = mine.detach().numpy()
            best = values[: len(group.golds)].max()
            others = values[len(group.golds) :]
            ranks.append(1.0 / (1 + (others > best).sum() + 0.5 * (others == best).sum()))
        return {"score": float(np.mean(ranks))}
