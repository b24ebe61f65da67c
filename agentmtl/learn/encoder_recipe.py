"""The recipe of an encoder: sets in, a head a task, the heads merged, the best of them out.

In the folder that is given: `ir`, `sts` (each trained alone), `joint` (one adapter on both), `plain`,
`delta` and `positioned` (both merged, `agentmtl.learn.merging`), each a head; the folder itself is the
merged head that is best on dev, or the only one where there is one task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.learn.distil import as_the_trunk, check_mean_pooled
from agentmtl.learn.encoder import IR, STS, BothTask, IrTask, StsTask
from agentmtl.learn.encoder_data import EncoderData, Parts, gather
from agentmtl.learn.frozen import means_module
from agentmtl.learn.merging import (
    POWER,
    STEPS,
    Change,
    card_of,
    change_of,
    delta_guided,
    head_from,
    plain,
    position,
    weighted,
)
from agentmtl.learn.recipe import (
    REPORT,
    AdapterRecipe,
    Watch,
    best_dev,
    fitted_length,
    head_of,
    module_for,
    rounded,
    run_card,
    unwatched,
    write_report,
)
from agentmtl.learn.training import autocast, train
from agentmtl.trunk.head_module import merged_module
from agentmtl.trunk.headed import ALL, SIDES, VECTOR
from agentmtl.trunk.heads import Head, save_head
from agentmtl.trunk.means import TokenMeans, unchanged_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

TASK = "encoder"
JOINT, PLAIN, DELTA, POSITIONED = "joint", "plain", "delta", "positioned"
FROZEN = "frozen trunk"

AnyTask = IrTask | StsTask | BothTask


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRecipe(AdapterRecipe):
    """`tokens` of a text in training; `max_length` is what the head reads of one afterwards. `limit`:
    questions of each set, pairs of each set of pairs. `batch`: questions; `pairs`: graded pairs. `middle`:
    the InfoNCE of similarity reads the middle layer. `power`, `steps`: of the merging.
    `frozen`: only the layer over the trunk's token means learns."""

    rank: int = 32
    max_length: int = 256
    tokens: int = 64
    batch: int = 16
    pairs: int = 32
    epochs: int = 1
    rate: float = 5e-4
    limit: int = 600
    middle: bool = True
    power: float = POWER
    steps: int = STEPS
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class _Making:
    """What every head of a run is made with."""

    files: ModelFiles
    out: Path
    recipe: EncoderRecipe
    data: EncoderData
    command: str
    watch: Watch
    means: TokenMeans | None

    def module(self, head: Head | None = None) -> Any:
        """What is trained, as the trunk; or a head, to be run."""
        if self.means is not None:
            return means_module(self.means, self.files.identity.dimension, head)
        if head is not None:
            return merged_module(self.files, head)
        return as_the_trunk(module_for(self.files, {VECTOR: self.files.identity.dimension}, self.recipe))

    def start(self) -> Any:
        """What all heads began as, without adapters."""
        return self.module(unchanged_head(self.files, self.recipe.max_length))

    def tasks(self, train: Parts) -> dict[str, AnyTask]:
        """Those that the parts have data for; dev is dev."""
        recipe, dev = self.recipe, self.data.dev
        cutter = PairCutter(self.files, recipe.tokens)
        found: dict[str, AnyTask] = {}
        if train.asked and dev.asked:
            found[IR] = IrTask(cutter, train.asked, dev.asked, recipe.batch, recipe.seed)
        if train.graded and dev.graded:
            found[STS] = StsTask(cutter, train.graded, dev.graded, recipe.pairs, recipe.seed, recipe.middle)
        return found

    def head(self, task: AnyTask) -> Head:
        """Trained from the trunk on a task."""
        module = self.module()
        folder, recipe = self.out / task.name, self.recipe
        card = {**run_card(self.files, recipe, self.data.sets), "task": task.name}
        progress = train(module, [task], recipe.settings(recipe.epochs), folder / "run", card, self.watch)
        metrics = best_dev(progress, task.name)
        head = head_of(
            TASK, module, self.files, recipe, self.data.sets, self.command, metrics, progress, {SIDES: ALL}
        )
        save_head(head, folder)
        write_report(folder, task.name, progress, metrics)
        return head

    def scores(self, head: Head, tasks: Mapping[str, AnyTask]) -> dict[str, float]:
        """On dev: of every task, and the mean."""
        return _scores(self.module(head), tasks)


def train_encoder(
    files: ModelFiles,
    folders: Sequence[Path],
    out: Path,
    recipe: EncoderRecipe,
    indexes: Path,
    command: str = "",
    watch: Watch = unwatched,
) -> Head:
    """Train in `out` (a run that was killed goes on there) and write the heads to it.

    Raises UsageError where a set is of another form, `out` holds another run, or the trunk does not pool by
    the mean of its tokens; EncoderError without peft.
    """
    check_mean_pooled(files)
    recipe = fitted_length(recipe, files)
    data = gather(folders, indexes, recipe.limit, recipe.seed, files.identity.name)
    means = TokenMeans(files, indexes, recipe.max_length) if recipe.frozen else None
    if means is not None:
        means.of(data.texts)  # together, which is faster than batch by batch
    making = _Making(files, out, recipe, data, command, watch, means)
    tasks = making.tasks(data.train)
    heads = {name: making.head(task) for name, task in tasks.items()}
    scores = {name: making.scores(head, tasks) for name, head in heads.items()}
    best = next(iter(heads.values()))
    if len(heads) > 1:
        ir, sts = tasks[IR], tasks[STS]
        assert isinstance(ir, IrTask) and isinstance(sts, StsTask)
        joint = making.head(BothTask(ir, sts, recipe.seed))
        scores[JOINT] = making.scores(joint, tasks)
        merged = _merged(making, list(heads.values()))
        for name, head in merged.items():
            scores[name] = making.scores(head, tasks)
            kept = replace(head, card=replace(head.card, metrics={"dev": rounded(scores[name])}))
            merged[name] = kept
            save_head(kept, out / name)
        best = merged[max(merged, key=lambda name: scores[name]["score"])]
    scores = {FROZEN: _scores(making.start(), tasks), **scores}
    save_head(best, out)
    report = {"dev": {name: rounded(s) for name, s in scores.items()}, "recipe": asdict(recipe)}
    (out / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return best


def _merged(making: _Making, heads: Sequence[Head]) -> dict[str, Head]:
    recipe = making.recipe
    changes: list[Change] = [change_of(head) for head in heads]
    probe, dev = making.data.probe, making.data.dev
    balanced = probe if probe.asked and probe.graded else dev  # of few groups none may be in the probe
    found = position(making.start(), changes, list(making.tasks(balanced).values()), recipe.steps)
    told: Mapping[str, Any] = {"shares": list(found.shares), "stretch": found.scale}
    made = {
        PLAIN: (plain(changes), {}),
        DELTA: (delta_guided(changes, recipe.power), {"power": recipe.power}),
        POSITIONED: (weighted(changes, found), told),
    }
    return {
        name: head_from(change, card_of(heads, name, details)) for name, (change, details) in made.items()
    }


def _scores(module: Any, tasks: Mapping[str, AnyTask]) -> dict[str, float]:
    import torch

    with torch.inference_mode(), autocast(next(module.parameters()).device):
        found = {name: float(task.evaluate(module)["score"]) for name, task in tasks.items()}
    return {**found, "score": float(np.mean(list(found.values())))}
