"""Merges heads that embed into one: what each changed in the trunk, weighed, added, and cut to a rank again.

    plain         the mean of the changes (a model soup)
    delta         λ_k = δ_k^p / Σ_j δ_j^p for every single weight, δ_k = |θ_k − θ_0| plus its tensor's mean
                  (delta-guided fusion of CoDiEmb, arXiv 2508.11442; p = 0 is the plain mean)
    positioned    θ_0 + s · Σ_i softmax(w)_i τ_i, (w, s) by gradient descent on a small balanced probe
                  set, all else fixed (Self Positioning, arXiv 2410.15035)

All heads began at the trunk with an output that changes nothing, which is θ_0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.trunk.head_module import low_rank
from agentmtl.trunk.headed import VECTOR
from agentmtl.trunk.heads import Head, HeadCard, Tensor

if TYPE_CHECKING:
    import torch

    from agentmtl.learn.training import TrainTask

POWER = 1.0
STEPS = 12
RATE = 0.1
_WEIGHT, _BIAS = "output.weight", "output.bias"
_TINY = 1e-12

Change = Mapping[str, Tensor]  # layer → what was added to its weight (out, in); the output's weight and bias


@dataclass(frozen=True, slots=True)
class Position:
    """Shares of the changes, summing to 1, and by what their sum is multiplied."""

    shares: tuple[float, ...]
    scale: float


def change_of(head: Head) -> dict[str, Tensor]:
    """What a head changed in the trunk, and in an output that changes nothing."""
    weight, bias = head.outputs[VECTOR]
    found = {name: np.asarray(head.card.scale * b @ a, np.float32) for name, (a, b) in head.adapters.items()}
    return {**found, _WEIGHT: weight - np.eye(len(weight), dtype=np.float32), _BIAS: bias}


def weighted(changes: Sequence[Change], position: Position) -> dict[str, Tensor]:
    """scale · Σ share · change; plain averaging where shares are equal and the scale is 1."""
    return {
        name: np.asarray(
            position.scale * sum(w * c[name] for w, c in zip(position.shares, changes, strict=True)),
            np.float32,
        )
        for name in changes[0]
    }


def plain(changes: Sequence[Change]) -> dict[str, Tensor]:
    """The mean of the changes."""
    return weighted(changes, Position((1 / len(changes),) * len(changes), 1.0))


def delta_guided(changes: Sequence[Change], power: float = POWER) -> dict[str, Tensor]:
    """Every weight's change by the heads that moved it most: see the top of this module."""
    return {name: _guided([np.asarray(c[name], np.float64) for c in changes], power) for name in changes[0]}


def _guided(parts: Sequence[NDArray[np.float64]], power: float) -> Tensor:
    sizes = [np.abs(part) + np.abs(part).mean() + _TINY for part in parts]
    powers = [size**power for size in sizes]
    total = np.sum(powers, axis=0)
    return np.asarray(sum(p / total * part for p, part in zip(powers, parts, strict=True)), np.float32)


def head_from(change: Change, card: HeadCard) -> Head:
    """The head whose change to the trunk is the best approximation of `change` of the card's rank."""
    weight = change[_WEIGHT] + np.eye(len(change[_WEIGHT]), dtype=np.float32)
    layers = {name: values for name, values in change.items() if name not in (_WEIGHT, _BIAS)}
    adapters = {name: low_rank(values, card.rank, card.scale) for name, values in layers.items()}
    return Head(card, adapters, {VECTOR: (weight, np.asarray(change[_BIAS], np.float32))})


def card_of(heads: Sequence[Head], how: str, details: Mapping[str, Any]) -> HeadCard:
    """The first head's card, with the data of all and how they were merged."""
    data = {name: entry for head in heads for name, entry in head.card.data.items()}
    first = heads[0].card
    return replace(first, data=data, recipe={**first.recipe, "merged": how, **details}, metrics={})


def position(
    start: torch.nn.Module,
    changes: Sequence[Change],
    tasks: Sequence[TrainTask],
    steps: int = STEPS,
    rate: float = RATE,
) -> Position:
    """Where between the heads, and how far out, the probe's loss is least: (w, s) from (0, 1) by Adam.

    Each step takes a batch of every task; a task's loss counts relative to the trunk's own on its first
    batch, so that neither task outweighs the other. `start`: the module that all began as.
    """
    import torch

    module = _placed(start, changes)
    optimizer = torch.optim.Adam([module.w, module.s], lr=rate)
    batches = [list(islice(cycle(task.batches(0)), steps)) for task in tasks]
    with torch.no_grad():
        module.place(0.0)
        units = [float(t.loss(module, b[0])) for t, b in zip(tasks, batches, strict=True)]
    for step in range(steps):
        module.place()
        losses = [
            task.loss(module, rows[step]) / max(unit, _TINY)
            for task, rows, unit in zip(tasks, batches, units, strict=True)
        ]
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    shares = torch.softmax(module.w.detach(), 0).tolist()
    return Position(tuple(float(share) for share in shares), float(module.s.detach()))


def _placed(start: Any, changes: Sequence[Change]) -> Any:
    """A module whose weights are a function of (w, s) alone."""
    import torch

    inner = start.eval().requires_grad_(False)
    own = dict(inner.named_parameters())
    names = {_WEIGHT: f"outputs.{VECTOR}.weight", _BIAS: f"outputs.{VECTOR}.bias"}
    moved = {
        names.get(name, f"trunk.{name}.weight"): torch.stack([torch.from_numpy(c[name]) for c in changes])
        for name in changes[0]
    }

    class Placed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            self.means = getattr(inner, "means", None)
            self.w = torch.nn.Parameter(torch.zeros(len(changes)))
            self.s = torch.nn.Parameter(torch.ones(()))
            self.now: dict[str, torch.Tensor] = {}

        def place(self, scale: float | None = None) -> None:
            """Compute the weights; with a `scale`, in place of s."""
            shares = (self.s if scale is None else scale) * torch.softmax(self.w, 0)
            self.now = {n: own[n] + torch.tensordot(shares, moved[n], dims=1) for n in moved}

        def forward(self, *given: torch.Tensor) -> dict[str, torch.Tensor]:
            found: dict[str, torch.Tensor] = torch.func.functional_call(self.inner, self.now, given)
            return found

    return Placed()
