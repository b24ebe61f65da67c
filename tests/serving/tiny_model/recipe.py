"""What the tiny model is made of and how it is trained: all numbers in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tests.serving.tiny_model import answering, conversing, routes, tickets
from tests.serving.tiny_model.answering import Example
from tests.serving.tiny_model.world import World

Maker = Callable[[World, int], Example]  # (world, most documents) → an example
MAKERS: Mapping[str, Maker] = {
    "answer": answering.answer,
    "evidence": answering.evidence,
    "repair": answering.repair,
    "fuse": answering.fuse,
    "refine": answering.refine,
    "judge": answering.judge,
    "rewrite": conversing.rewrite,
    "hop": conversing.hop,
    "json": conversing.write_json,
    "route": routes.route,
    "tickets": tickets.ticket,
    "places": tickets.place,
}
BASE_SHARES = {
    "answer": 38, "evidence": 4, "rewrite": 11, "hop": 13, "route": 13, "fuse": 6, "refine": 6, "judge": 6,
    "json": 3, "repair": 2,
}  # fmt: skip
ADAPTER_SHARES = {"tickets": {"tickets": 1}, "places": {"places": 1}}
MOST_DOCUMENTS = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the network. Head size 32 is one that vLLM's attention has on every device."""

    vocabulary: int = 1792
    hidden: int = 160
    inner: int = 416
    layers: int = 6
    heads: int = 5
    longest: int = 2048


@dataclass(frozen=True, slots=True)
class Recipe:
    """Of the training. `tokens` of a batch, padding included; `muon` and `adamw` are the highest learning
    rates; `prompt_loss` weighs the loss on prompts, of which a name's second mention teaches copying."""

    seed: int = 5
    steps: int = 2700
    tokens: int = 4096
    muon: float = 0.007
    adamw: float = 0.001
    warm_up: int = 60
    cool_down: float = 0.4
    prompt_loss: float = 0.3
    spelled_out: float = 0.08


@dataclass(frozen=True, slots=True)
class AdapterRecipe:
    """Of an adapter: LoRA on all projections."""

    seed: int = 6
    steps: int = 160
    tokens: int = 4096
    adamw: float = 0.004
    rank: int = 8
    alpha: int = 16
    base_share: float = 0.15


SHAPE, RECIPE, ADAPTER = Shape(), Recipe(), AdapterRecipe()


def as_json() -> dict[str, Any]:
    """What the model card shows."""
    return {
        "shape": asdict(SHAPE), "recipe": asdict(RECIPE), "shares": BASE_SHARES,
        "adapter": asdict(ADAPTER), "adapters": ADAPTER_SHARES,
    }  # fmt: skip


def most_documents(progress: float) -> int:
    """How many documents a prompt may have: few at first."""
    return 2 if progress < 0.12 else 3 if progress < 0.3 else 4 if progress < 0.55 else MOST_DOCUMENTS
