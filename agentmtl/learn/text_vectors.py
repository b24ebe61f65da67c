"""Texts to vectors by a module that is being trained: means of tokens, of unit length."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from agentmtl.learn.reader import run_module
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.headed import VECTOR
from agentmtl.trunk.pairs import PairCutter

if TYPE_CHECKING:
    import torch

_TOGETHER = 16  # texts that are read together
_LAYER = re.compile(r"encoder\.layer\.\d+$")


def encoded(
    module: Any, cutter: PairCutter, texts: Sequence[str], middle: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, d) of unit length from the output, and the same from the trunk's middle layer where asked for (else
    the first again). Every text is read once, with others of like length."""
    import torch

    means = getattr(module, "means", None)
    if means is not None:  # the trunk is frozen: see agentmtl.learn.frozen
        made = module(torch.from_numpy(means.of(texts)))[VECTOR]
        frozen = torch.nn.functional.normalize(made, dim=1)
        return frozen, frozen
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    parts = [distinct[at : at + _TOGETHER] for at in range(0, len(distinct), _TOGETHER)]
    found = [_read(module, cutter, part, middle) for part in parts]
    places = {text: n for n, text in enumerate(distinct)}
    rows = [places[text] for text in texts]
    last, between = (torch.cat(column)[rows] for column in zip(*found, strict=True))
    return last, between


def vectors_of(module: Any, cutter: PairCutter, texts: Sequence[str]) -> Vectors:
    """The same without gradients, (n, d)."""
    import torch

    with torch.no_grad():
        return np.asarray(encoded(module, cutter, texts)[0].float().cpu().numpy(), np.float32)


def _read(
    module: Any, cutter: PairCutter, texts: Sequence[str], middle: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    windows = cutter.singles(texts)
    lengths = [len(window.ids) for window in windows]
    if not middle:
        last = _pooled(run_module(module, cutter, windows)[VECTOR], lengths)
        return last, last
    with _middle_of(module) as kept:
        last = _pooled(run_module(module, cutter, windows)[VECTOR], lengths)
        return last, _pooled(kept[-1], lengths)


def _pooled(hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    import torch

    counts = torch.tensor(lengths, device=hidden.device)
    mask = torch.arange(hidden.shape[1], device=hidden.device)[None] < counts[:, None]
    pooled = (hidden.float() * mask[:, :, None]).sum(1) / counts[:, None]
    return torch.nn.functional.normalize(pooled, dim=1)


@contextmanager
def _middle_of(module: Any) -> Iterator[list[torch.Tensor]]:
    """What the middle one of the trunk's layers gives, while the module runs."""
    layers = [layer for name, layer in module.named_modules() if _LAYER.search(name)]
    kept: list[torch.Tensor] = []

    def keep(_layer: object, _given: object, made: Any) -> None:
        kept.append(made[0] if isinstance(made, tuple) else made)

    handle = layers[len(layers) // 2 - 1].register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()
