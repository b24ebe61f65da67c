"""From folders of data to the reranker's head: mine hard negatives, train, fit the weight on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentmtl.evaluate.datasets import kind_of
from agentmtl.learn.ranking import Group, RankingTask, groups_of
from agentmtl.learn.recipe import (
    AdapterRecipe,
    Split,
    Watch,
    best_dev,
    check_sets,
    head_of,
    module_for,
    run_card,
    split_sets,
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
    groups = gather_groups(sets, recipe, indexes)
    dev = groups.dev[:: max(1, len(groups.dev) // DEV_LIMIT)]
    module = module_for(files, OUTPUTS, recipe, first_only=True)
    cutter = PairCutter(files, recipe.max_length)
    task = RankingTask(cutter, groups.train, dev, recipe.batch, recipe.seed)
    card = run_card(files, recipe, groups.sets)
    progress = train(module, [task], recipe.settings(recipe.epochs), out / "run", card, watch)
    metrics = best_dev(progress, task.name)
    calibration = {"weight": float(metrics["weight"])}
    head = head_of("reranker", module, files, recipe, groups.sets, command, metrics, progress, calibration)
    save_head(head, out)
    write_report(out, task.name, progress, metrics)
    return head


def gather_groups(sets: Sequence[Path], recipe: RerankerRecipe, indexes: Path) -> Split[Group]:
    """The groups of all sets, split by what belongs together."""
    check_sets(sets)
    return split_sets(((folder, _groups(folder, recipe, indexes)) for folder in sets), lambda g: g.split_by)


def _groups(folder: Path, recipe: RerankerRecipe, indexes: Path) -> list[Group]:
    """Those of a set, without the fold that is left out."""
    found = groups_of(folder, indexes, recipe.limit, recipe.seed)
    if recipe.fold < 0 or kind_of(folder) == "reading":
        return found
    return [group for group in found if fold_of(group.id, recipe.folds) != recipe.fold]
