"""Trains the decoder that proposes identifiers to say what a gold unit holds.

Cross-entropy of n-grams drawn from a gold unit of a level. The first token's is over the whole vocabulary,
later ones' over the batch's tokens and a sample (weighed by one over its share). ln Z of every sum is held
near 0. `agentmtl.learn.identifier_ranking` is the second phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from agentmtl.learn.identifier_examples import KeyExample, TargetSampler, Tokens
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
    module: Any,
    examples: Sequence[KeyExample],
    levels: Sequence[Level],
    states: Mapping[str, States],
    prior: torch.Tensor | None = None,
) -> Memory:
    """What the decoder attends to for the questions, each asked at its level. `prior`: of the corpus that is
    asked; None: of the training texts."""
    import torch

    read = padded([states[e.question] for e in examples])
    memory: Memory = module.remember(read, torch.tensor([ASKED.index(level) for level in levels]), prior)
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
    exact = torch.cat([wanted[:, :, 1:][present[:, :, 1:]], memory.ids[memory.asked]])
    subset, weights = _subset(module, exact, random)
    for length in range(1, longest):
        hidden, past = module.step(memory, wanted[:, :, length - 1], past, _rows(length, wanted))
        here = present[:, :, length]
        logits = module.scores(memory, hidden, wanted[:, :, length - 1], subset)[here]
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
    """(ids ascending, what to add to their logits in the sum): the wanted ones, which also are all that the
    queries make likely, and a sample of all."""
    import torch

    size = module.vocabulary + 3
    count = min(SAMPLED, size)
    drawn = torch.tensor(random.sample(range(size), count))
    subset = torch.unique(torch.cat([wanted, drawn]))
    weights = torch.full((len(subset),), float(np.log(size / count)))
    weights[torch.isin(subset, wanted)] = 0.0
    return subset, weights
