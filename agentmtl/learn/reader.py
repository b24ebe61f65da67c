"""Trains the reader: where in a context the answer stands, yes, no, or that it is not there.

The loss of a question over one context: −log of the probability that the first token of the answer is any of
the accepted ones, the same of the last (marginal over the places: Clark & Gardner, arXiv 1710.10723, section
2.3), each a softmax over the context's tokens and [CLS], which stands for no answer; and cross-entropy of
what kind of answer it is: a span (or none), yes, no. Of a context where the answer is elsewhere only this is
learned, as a logistic loss: "nothing here" is for those that are about the question and do not answer it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from agentmtl.evaluate.reading import reading_metrics
from agentmtl.evaluate.reading_examples import ReadingExample
from agentmtl.experts.reading import HERE, KIND, KINDS, SPAN, Reading, readings_of
from agentmtl.learn.training import by_length
from agentmtl.trunk.pairs import PairCutter, Window

if TYPE_CHECKING:
    import torch

KIND_WEIGHT = 0.5
HERE_WEIGHT = 0.5
_DEV_BUDGET = 8192  # tokens of a dev batch


@dataclass(frozen=True, slots=True)
class _Target:
    """Token numbers of accepted first and last tokens ([0] for none; empty: not asked), the kind (−1: not
    asked), and whether this is the context to read."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    kind: int
    here: bool = True


class ReadingTask:
    """A `TrainTask` over reading examples."""

    name = "reader"

    def __init__(
        self,
        cutter: PairCutter,
        train: Sequence[ReadingExample],
        dev: Sequence[ReadingExample],
        batch: int = 16,
        seed: int = 0,
    ) -> None:
        self._cutter = cutter
        self._dev = dev
        self._batch = batch
        self._seed = seed
        windows = cutter.windows([e.question for e in train], [e.text for e in train])
        self._items = _with_targets(train, windows)

    @property
    def size(self) -> int:
        return len(self._items)

    def batches(self, epoch: int) -> list[list[int]]:
        lengths = [len(window.ids) for window, _ in self._items]
        return by_length(lengths, self._batch, f"reader:{self._seed}:{epoch}")

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        items = [self._items[i] for i in batch]
        windows = [window for window, _ in items]
        device = next(module.parameters()).device
        logits = run_module(module, self._cutter, windows)
        allowed = _allowed(windows, logits[SPAN].shape[1]).to(device)
        parts = [
            _marginal(logits[SPAN][:, :, side], allowed, [(t.first, t.last)[side] for _, t in items])
            for side in (0, 1)
        ]
        here = torch.tensor([float(target.here) for _, target in items], device=device)
        there = torch.nn.functional.binary_cross_entropy_with_logits(logits[HERE][:, 0, 0], here)
        kinds = torch.tensor([target.kind for _, target in items], device=device)
        kind = torch.nn.functional.cross_entropy(logits[KIND][:, 0], kinds, ignore_index=-1, reduction="sum")
        kind = kind / max(1, int((kinds >= 0).sum()))
        return (parts[0] + parts[1]) / 2 + KIND_WEIGHT * kind + HERE_WEIGHT * there

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Token F1 and exact match over what a span, yes or no answers (an answer is always given), AUROC of
        the margin for telling what has one, AUROC of "here", and their mean, "score"."""
        found = read_all(module, self._cutter, self._dev_windows)
        metrics = {name: statistic.value for name, statistic in reading_metrics(self._dev, found).items()}
        told = [m for m in metrics.values() if not isnan(m)]
        return {**metrics, "score": float(np.mean(told))}

    @cached_property
    def _dev_windows(self) -> list[Window]:
        return self._cutter.windows([e.question for e in self._dev], [e.text for e in self._dev])


def run_module(module: Any, cutter: PairCutter, windows: Sequence[Window]) -> dict[str, torch.Tensor]:
    """Logits by output, each (windows, tokens, numbers)."""
    import torch

    padded = cutter.pad(windows)
    device = next(module.parameters()).device
    ids, mask, types = (torch.from_numpy(a).to(device) for a in (padded.ids, padded.mask, padded.types))
    found: dict[str, torch.Tensor] = module(ids, mask, types)
    return found


def read_all(module: torch.nn.Module, cutter: PairCutter, windows: Sequence[Window]) -> dict[int, Reading]:
    """Every pair read, by its number; batches are of like length."""
    order = sorted(range(len(windows)), key=lambda i: -len(windows[i].ids))
    logits: list[dict[str, Any]] = [{}] * len(windows)
    while order:
        size = max(1, _DEV_BUDGET // len(windows[order[0]].ids))
        now, order = order[:size], order[size:]
        found = run_module(module, cutter, [windows[i] for i in now])
        outputs = {name: t.float().cpu().numpy() for name, t in found.items()}
        for row, i in enumerate(now):
            logits[i] = {name: values[row] for name, values in outputs.items()}
    return readings_of(windows, logits)


# --- targets ------------------------------------------------------------------------------------------


def _with_targets(
    examples: Sequence[ReadingExample], windows: Sequence[Window]
) -> list[tuple[Window, _Target]]:
    """One window of every example: the first that holds an answer, or the first."""
    chosen: dict[int, tuple[Window, _Target]] = {}
    for window in windows:
        target = _target(examples[window.pair], window)
        known = chosen.get(window.pair)
        if known is None or (known[1].first == (0,) and target.first != (0,)):
            chosen[window.pair] = (window, target)
    return [chosen[pair] for pair in sorted(chosen)]


def _target(example: ReadingExample, window: Window) -> _Target:
    if example.kind == "elsewhere":
        return _Target((), (), -1, here=False)
    if example.kind in ("yes", "no"):
        return _Target((), (), KINDS.index(example.kind))
    held = [t for span in example.text_spans if (t := _tokens(window, *span)) is not None]
    if not held:
        return _Target((0,), (0,), 0)
    return _Target(tuple({a for a, _ in held}), tuple({b for _, b in held}), 0)


def _tokens(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """The first and last token of [start, end); None where the window does not hold both."""
    first = np.flatnonzero((window.starts <= start) & (start < window.ends))
    last = np.flatnonzero((window.starts < end) & (end <= window.ends) & (window.starts >= 0))
    return (int(first[0]), int(last[-1])) if len(first) and len(last) else None


def _allowed(windows: Sequence[Window], width: int) -> torch.Tensor:
    """(n, width): the context's tokens and [CLS]."""
    import torch

    allowed = torch.zeros((len(windows), width), dtype=torch.bool)
    for row, window in enumerate(windows):
        allowed[row, : len(window.ids)] = torch.from_numpy(window.starts >= 0)
        allowed[row, 0] = True
    return allowed


def _marginal(
    logits: torch.Tensor, allowed: torch.Tensor, targets: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Mean of −log Σ p(target) over the rows that have targets; 0 where none has."""
    import torch

    rows = [row for row, target in enumerate(targets) if target]
    if not rows:
        return logits.sum() * 0.0
    wanted = torch.zeros_like(allowed)
    for row, target in enumerate(targets):
        wanted[row, list(target)] = True
    scores = logits.masked_fill(~allowed, -1e4)
    total = torch.logsumexp(scores[rows], 1)
    right = torch.logsumexp(scores[rows].masked_fill(~wanted[rows], -1e4), 1)
    return (total - right).mean()
