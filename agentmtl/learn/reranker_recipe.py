"""From folders of data to the reranker's head: mine hard negatives, train, fit the weight on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.evaluate.datasets import kind_of
from agentmtl.evaluate.reading_examples import is_dev
from agentmtl.learn.ranking import Group, RankingTask, groups_of
from agentmtl.learn.recipe import (
    AdapterRecipe,
    Watch,
    best_dev,
    check_sets,
    describe,
    head_of,
    module_for,
    run_card,
    unwatched,
    write_report,
)
from agentmtl.learn.training import train
from agentmtl.retrieval.hops.model import fold_of
from agentmtl.retrieval.rerank import OUTPUTS
from agentmtl.trunk.heads import Head, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

DEV_LIMIT = 150  # groups that dev looks at


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerRecipe(AdapterRecipe):
    """`limit`: questions of each set, 0 for all. `batch`: groups. `fold`: questions of multi-hop sets that
    are left out, one fold of `folds`; −1 for none."""

    layers: int = 4
    batch: int = 8
    epochs: int = 1
    fold: int = -1
    folds: int = 2


def train_reranker(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: RerankerRecipe,
    indexes: Path,
    command: str = "",
    watch: Watch = unwatched,
) -> Head:
    """Train in `out` (a run that was killed goes on there) and write the head to it.

    Indexes of the sets are made under `indexes`. Beside the head: report.json and curves.png. Raises
    UsageError where a set is of another form or `out` holds another run, EncoderError without peft.
    """
    learnt, dev, data = gather_groups(sets, recipe, indexes)
    module = module_for(files, OUTPUTS, recipe, first_only=True)
    cutter = PairCutter(files, recipe.max_length)
    task = RankingTask(cutter, learnt, dev, recipe.batch, recipe.seed)
    card = run_card(files, recipe, data)
    progress = train(module, [task], recipe.settings(recipe.epochs), out / "run", card, watch)
    metrics = best_dev(progress, task.name)
    calibration = {"weight": float(metrics["weight"])}
    head = head_of("reranker", module, files, recipe, data, command, metrics, progress, calibration)
    save_head(head, out)
    write_report(out, task.name, progress, metrics)
    return head


def gather_groups(
    sets: Sequence[Path], recipe: RerankerRecipe, indexes: Path
) -> tuple[list[Group], list[Group], dict[str, Any]]:
    """Groups to learn from, groups to stop by, and a record of each set."""
    check_sets(sets)
    learnt, dev, data = list[Group](), list[Group](), dict[str, Any]()
    for folder in sets:
        found = groups_of(folder, indexes, recipe.limit, recipe.seed)
        if recipe.fold >= 0 and kind_of(folder) != "reading":
            found = [group for group in found if fold_of(group.id, recipe.folds) != recipe.fold]
        mine = [group for group in found if is_dev(group.split_by)]
        learnt += [group for group in found if not is_dev(group.split_by)]
        dev += mine
        data[folder.name] = describe(folder, len(found) - len(mine), len(mine))
    if not learnt or not dev:
        raise UsageError("There is too little to train on and to stop by.", "Give larger sets.")
    return learnt, dev[:: max(1, len(dev) // DEV_LIMIT)], data
