"""Does one task's training help or harm another's? Every head alone, all in one adapter, and merged.

    frozen   the trunk as it is, output layers alone are trained
    full     the whole trunk, for each task
    single   an adapter for each task
    joint    one adapter for all, single-task batches in proportion to n^0.5
    merged   the single adapters added up, times one number that is chosen on dev (task arithmetic: Ilharco
             et al., arXiv 2212.04089, section 2)

All do the same number of batches over the same examples. Dev scores are those that each task stops by (the
reranker's with the fused score). Questions of multi-hop sets in fold 0 are left out: `agentmtl eval heads`
measures on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.datasets import kind_of
from agentmtl.evaluate.reading_examples import is_dev, read_examples
from agentmtl.experts import reading
from agentmtl.learn.hop_chains import HopTask, chains_of
from agentmtl.learn.ranking import RankingTask, groups_of
from agentmtl.learn.reader import ReadingTask
from agentmtl.learn.recipe import (
    AdapterRecipe,
    Watch,
    check_sets,
    describe,
    head_of,
    module_for,
    run_card,
    unwatched,
)
from agentmtl.learn.training import Progress, TrainTask, autocast, train
from agentmtl.retrieval import rerank
from agentmtl.retrieval.hops import judge
from agentmtl.retrieval.hops.model import fold_of
from agentmtl.trunk.head_module import merged_module
from agentmtl.trunk.heads import Head, Tensor, load_head, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

TASKS = ("reader", "reranker", "hops")
OUTPUTS: Mapping[str, Mapping[str, int]] = {
    "reader": reading.OUTPUTS,
    "reranker": rerank.OUTPUTS,
    "hops": judge.OUTPUTS,
}
ALL_OUTPUTS = {name: k for outputs in OUTPUTS.values() for name, k in outputs.items()}
FROZEN, FULL, SINGLE, JOINT, MERGED = "frozen", "full", "single", "joint", "merged"
KINDS = (FROZEN, FULL, SINGLE, JOINT, MERGED)
LEFT_OUT, FOLDS = 0, 2  # the fold of multi-hop questions that nothing is trained on
SCALES = (0.3, 0.5, 0.7, 1.0)  # tried for the merged adapters
TABLE = "transfer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRecipe(AdapterRecipe):
    """`limit`: examples or questions of each set. `full_rate`: the learning rate of the whole trunk. With a
    `start`, all kinds but the frozen trunk begin there."""

    epochs: int = 1
    limit: int = 600
    full_rate: float = 1e-4


def train_transfer(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: TransferRecipe,
    indexes: Path,
    command: str = "",
    watch: Watch = unwatched,
) -> dict[str, dict[str, float]]:
    """Train every kind in `out`/KIND/TASK (or `out`/joint); dev scores by kind and task go to transfer.json.

    A run that was killed goes on there. Raises UsageError where sets are of another form or `out` holds
    another run, EncoderError without peft.
    """
    job = _Job(files, out, recipe, *_tasks(files, sets, recipe, indexes), command, watch)
    table: dict[str, dict[str, float]] = {}
    singles = {name: job.head(SINGLE, name) for name in TASKS}
    table[SINGLE] = {name: score for name, (_, score) in singles.items()}
    table[JOINT] = job.joint()
    table[MERGED] = job.merged({name: head for name, (head, _) in singles.items()})
    for kind in (FROZEN, FULL):
        table[kind] = {name: job.head(kind, name)[1] for name in TASKS}
    text = json.dumps({"dev": table, "command": command, "data": job.data}, indent=1)
    (out / TABLE).write_text(text + "\n", "utf-8")
    return table


def _tasks(
    files: ModelFiles, sets: Sequence[Path], recipe: TransferRecipe, indexes: Path
) -> tuple[dict[str, TrainTask], dict[str, Any]]:
    check_sets(sets)
    examples, groups, chains, data = [], [], [], dict[str, Any]()
    for folder in sets:
        several = kind_of(folder) != "reading"
        read = read_examples(folder, seed=recipe.seed)
        read = read[:: max(1, len(read) // recipe.limit)] if recipe.limit else read
        ranked = groups_of(folder, indexes, recipe.limit, recipe.seed)
        examples += [
            e
            for e in read
            if not several or fold_of(e.group.removeprefix(f"{folder.resolve().name}:"), FOLDS) != LEFT_OUT
        ]
        groups += [g for g in ranked if not several or fold_of(g.id, FOLDS) != LEFT_OUT]
        if several:
            found = chains_of(folder, indexes, recipe.limit, recipe.seed)
            chains += [c for c in found if fold_of(c.id, FOLDS) != LEFT_OUT]
        data[folder.name] = describe(folder, len(read) + len(ranked), 0)
    parts = [e.group for e in examples], [g.split_by for g in groups], [c.group for c in chains]
    apart = [[is_dev(group) for group in part] for part in parts]
    if not all(any(flags) and not all(flags) for flags in apart):
        raise UsageError(
            "There is too little to train on and to stop by.", "Give reading and multi-hop sets."
        )
    cutter, seed = PairCutter(files, recipe.max_length), recipe.seed
    return {
        "reader": ReadingTask(
            cutter, [e for e in examples if not is_dev(e.group)], [e for e in examples if is_dev(e.group)],
            recipe.batch, seed,
        ),
        "reranker": RankingTask(
            cutter, [g for g in groups if not is_dev(g.split_by)], [g for g in groups if is_dev(g.split_by)],
            max(1, recipe.batch // 4), seed,
        ),
        "hops": HopTask(
            cutter, [c for c in chains if not is_dev(c.group)], [c for c in chains if is_dev(c.group)],
            max(1, recipe.batch // 8), seed,
        ),
    }, data  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Job:
    files: ModelFiles
    out: Path
    recipe: TransferRecipe
    tasks: Mapping[str, TrainTask]
    data: dict[str, Any]
    command: str
    watch: Watch

    def head(self, kind: str, name: str) -> tuple[Head, float]:
        """Train one task's head of a kind; its best dev score with it."""
        recipe = self.recipe
        if kind != SINGLE:
            full = kind == FULL
            recipe = replace(
                recipe,
                rank=0,
                rate=recipe.full_rate if full else recipe.rate,
                start=recipe.start if full else "",
            )
        module = module_for(self.files, OUTPUTS[name], recipe)
        if kind == FROZEN:
            module.trunk.requires_grad_(False)
        folder = self.out / kind / name
        progress = self._train(module, [self.tasks[name]], folder, recipe, kind)
        score = progress.best
        metrics = {"score": score}
        head = head_of(name, module, self.files, recipe, self.data, self.command, metrics, progress)
        save_head(head, folder)
        return head, score

    def joint(self) -> dict[str, float]:
        """One adapter for all tasks."""
        module, folder = module_for(self.files, ALL_OUTPUTS, self.recipe), self.out / JOINT
        tasks = [self.tasks[name] for name in TASKS]
        progress = self._train(module, tasks, folder, self.recipe, JOINT)
        best = max(progress.history, key=lambda record: record["score"])["dev"]
        scores = {name: float(best[name]["score"]) for name in TASKS}
        head = head_of(JOINT, module, self.files, self.recipe, self.data, self.command, scores, progress)
        save_head(head, folder)
        return scores

    def merged(self, heads: Mapping[str, Head]) -> dict[str, float]:
        """The heads' adapters added up, by the number that is best on dev."""
        start = load_head(Path(self.recipe.start)) if self.recipe.start else None
        parts = list(heads.values())
        tried = {scale: self._scores(merge(parts, scale, start)) for scale in SCALES}
        scale = max(tried, key=lambda s: (sum(tried[s].values()), -s))
        save_head(merge(parts, scale, start), self.out / MERGED)
        return tried[scale]

    def _scores(self, head: Head) -> dict[str, float]:
        import torch

        module = merged_module(self.files, head)
        with torch.inference_mode(), autocast(next(module.parameters()).device):
            return {name: float(self.tasks[name].evaluate(module)["score"]) for name in TASKS}

    def _train(
        self, module: Any, tasks: Sequence[TrainTask], folder: Path, recipe: TransferRecipe, kind: str
    ) -> Progress:
        card = {**run_card(self.files, recipe, self.data), "kind": kind}
        return train(module, tasks, recipe.settings(recipe.epochs), folder / "run", card, self.watch)


def merge(heads: Sequence[Head], scale: float, start: Head | None = None) -> Head:
    """One head with the outputs of all and `scale` times the sum of their changes to the trunk.

    Heads that were trained further from `start` changed it, not the trunk: start + scale · Σ (head − start).
    Adapters are added by standing side by side (B₁A₁ + B₂A₂ = [B₁ B₂][A₁; A₂]), so that ranks add up.
    """
    first = heads[0]
    parts = [(head, scale * head.card.scale / first.card.scale) for head in heads]
    if start is not None:
        parts.append((start, (1.0 - scale * len(heads)) * start.card.scale / first.card.scale))
    adapters: dict[str, tuple[Tensor, Tensor]] = {}
    for name in first.adapters:
        a = np.concatenate([head.adapters[name][0] for head, _ in parts], axis=0)
        b = np.concatenate([head.adapters[name][1] * share for head, share in parts], axis=1)
        adapters[name] = (a, np.asarray(b, np.float32))
    outputs = {name: values for head in heads for name, values in head.outputs.items()}
    card = replace(
        first.card, task=MERGED, rank=sum(head.card.rank for head, _ in parts),
        outputs={name: len(bias) for name, (_, bias) in outputs.items()},
        recipe={**first.card.recipe, "merged": scale}, metrics={}, calibration={},
    )  # fmt: skip
    return Head(card, adapters, outputs)
