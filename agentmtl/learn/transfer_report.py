"""`agentmtl eval heads`: one table a head, over what `agentmtl train transfer` made.

Reader and reranker are measured on reading sets' test files, reranker and hops on the questions of multi-hop
sets in the fold that was left out.

reader      f1 of the best answer to questions that have one
reranker    mrr of the first gold passage among the fused search's first hits, by the head's score alone
hops        mrr of the first chain of gold passages alone among the beam's best, by the head's score alone
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import f1
from agentmtl.evaluate.bootstrap import Floats, mean_of
from agentmtl.evaluate.datasets import kind_of, sample
from agentmtl.evaluate.reading import said
from agentmtl.evaluate.reading_examples import ReadingExample, read_examples
from agentmtl.evaluate.report import Report, figures
from agentmtl.learn.hop_chains import Chains, chains_of, first_right, head_logits
from agentmtl.learn.ranking import Group, dev_scores, first_gold_rank, groups_of
from agentmtl.learn.reader import read_all
from agentmtl.learn.training import BEST, autocast
from agentmtl.learn.transfer import FOLDS, FROZEN, FULL, JOINT, KINDS, LEFT_OUT, MERGED, SINGLE, TASKS
from agentmtl.retrieval.hops.model import fold_of
from agentmtl.trunk.head_module import merged_module, trainable_module
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.heads import TENSORS, load_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

BENCHMARK = "heads"
_TIMED = 60  # windows that are timed
METRIC = {"reader": "f1", "reranker": "mrr", "hops": "mrr"}


@dataclass(frozen=True, slots=True)
class HeldOutSet:
    """What the heads are measured on: nothing of it was learned from."""

    reading: tuple[ReadingExample, ...]
    groups: tuple[Group, ...]
    chains: tuple[Chains, ...]


def evaluate_heads(
    files: ModelFiles,
    sets: Sequence[Path],
    heads: Path,
    *,
    indexes: Path,
    limit: int = 300,
    seed: int = 0,
    commands: Sequence[str] = (),
    progress: Callable[[int], None] = lambda tables: None,
) -> list[Report]:
    """A report for each task; differences are to the single-task head. `limit` examples of each set.

    `details` has bytes, milliseconds a window on the fast path and the memory that opening it took. Raises
    UsageError where `heads` was not made by `train transfer`.
    """
    if not (heads / JOINT / TENSORS).is_file():
        raise UsageError(f"{heads} holds no trained heads.", "Make them: agentmtl train transfer --out DIR")
    given = held_out(sets, indexes, limit, seed)
    reports = []
    for task in TASKS:
        started = time.perf_counter()
        columns = {kind: _measure(files, heads, kind, task, given) for kind in KINDS}
        measured = {kind: {METRIC[task]: mean_of(column)} for kind, column in columns.items()}
        others = [kind for kind in KINDS if kind != SINGLE]
        compared = {f"{k} - {SINGLE}": {METRIC[task]: mean_of(columns[k] - columns[SINGLE])} for k in others}
        reports.append(
            Report(
                BENCHMARK, task, len(columns[SINGLE]), seed, figures(measured, seed), SINGLE,
                time.perf_counter() - started, tuple(commands), differences=figures(compared, seed),
                details={"heads": {kind: _facts(heads, kind, task, given) for kind in KINDS}},
                measured=measured, compared=compared,
            )
        )  # fmt: skip
        progress(1)
    return reports


def held_out(sets: Sequence[Path], indexes: Path, limit: int, seed: int) -> HeldOutSet:
    """Test files of reading sets, and the fold of multi-hop sets that was left out."""
    reading, groups, chains = list[ReadingExample](), list[Group](), list[Chains]()
    for folder in sets:
        if kind_of(folder) == "reading":
            found = [e for e in read_examples(folder, "test") if e.kind != "none"]
            reading += sample(found, limit or None, seed)
            groups += groups_of(folder, indexes, limit, seed, split="test")
            continue
        groups += [g for g in groups_of(folder, indexes, limit, seed) if fold_of(g.id, FOLDS) == LEFT_OUT]
        mine = [c for c in chains_of(folder, indexes, limit, seed) if fold_of(c.id, FOLDS) == LEFT_OUT]
        chains += [c for c in mine if any(c.gold) and not all(c.gold)]
    return HeldOutSet(tuple(reading), tuple(groups), tuple(chains))


def _measure(files: ModelFiles, heads: Path, kind: str, task: str, given: HeldOutSet) -> Floats:
    """(n,) the task's metric of each example."""
    import torch

    module, length = _module(files, heads, kind, task)
    cutter = PairCutter(files, length)
    with torch.inference_mode(), autocast(next(module.parameters()).device):
        if task == "reader":
            windows = cutter.windows([e.question for e in given.reading], [e.text for e in given.reading])
            found = read_all(module, cutter, windows)
            values = [f1(said(e, found[n]), e.accepted) for n, e in enumerate(given.reading)]
        elif task == "reranker":
            scores = [np.array(dev_scores(module, cutter, group)) for group in given.groups]
            values = [first_gold_rank(g, own) for g, own in zip(given.groups, scores, strict=True)]
        else:
            logits = [head_logits(module, cutter, chains) for chains in given.chains]
            values = [first_right(c.gold, own) for c, own in zip(given.chains, logits, strict=True)]
    return np.array(values, np.float64)


def _folder(heads: Path, kind: str, task: str) -> Path:
    return heads / kind if kind in (JOINT, MERGED) else heads / kind / task


def _module(files: ModelFiles, heads: Path, kind: str, task: str) -> tuple[Any, int]:
    """The module of a kind for a task, and the tokens it reads."""
    from safetensors.torch import load_file

    folder = _folder(heads, kind, task)
    head = load_head(folder)
    if kind != FULL:
        return merged_module(files, head), head.card.max_length
    module = trainable_module(files, head.card.outputs, 0, 1.0, 0.0, 0, head.card.layers)
    module.load_state_dict(load_file(folder / "run" / BEST), strict=False)
    return module.eval(), head.card.max_length


def _facts(heads: Path, kind: str, task: str, given: HeldOutSet) -> dict[str, float | None]:
    """Size and cost. A whole trunk runs as fast as one with a head merged in, and is not opened again."""
    folder = _folder(heads, kind, task)
    weights = folder / "run" / BEST if kind == FULL else folder / TENSORS
    facts: dict[str, float | None] = {"bytes": weights.stat().st_size}
    if kind in (FROZEN, FULL):
        return facts
    before = _megabytes()
    network = open_head(folder)
    pairs = given.reading[:_TIMED]
    windows = network.cutter.windows([e.question for e in pairs], [e.text for e in pairs])
    network.run(windows)
    grown = _megabytes() - before
    started = time.perf_counter()
    network.run(windows)
    taken = 1000 * (time.perf_counter() - started) / max(1, len(windows))
    return {**facts, "milliseconds a window": round(taken, 2), "megabytes grown": round(grown, 1)}


def _megabytes() -> float:
    """That the process holds now (Linux); 0 where the system does not say."""
    path = Path("/proc/self/statm")
    pages = int(path.read_text().split()[1]) if path.exists() else 0
    return pages * resource.getpagesize() / 2**20
