"""From folders of data to the reranker's head: mine hard negatives, train, fit the weight on dev."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.evaluate.datasets import kind_of, read_multihop, read_reading
from agentmtl.evaluate.plot import plot_curves
from agentmtl.evaluate.reading_examples import is_dev
from agentmtl.learn.ranking import Group, RankingTask, groups_of
from agentmtl.learn.training import TrainSettings, train
from agentmtl.retrieval.rerank import OUTPUTS
from agentmtl.trunk.head_module import adapters_of, outputs_of, trainable_module
from agentmtl.trunk.heads import Head, HeadCard, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

REPORT, CURVES = "report.json", "curves.png"
DEV_LIMIT = 300  # groups that dev looks at


@dataclass(frozen=True, slots=True)
class RerankerRecipe:
    """`limit`: questions of each set, 0 for all. `batch`: groups."""

    rank: int = 32
    scale: float = 2.0
    dropout: float = 0.0
    max_length: int = 256
    batch: int = 8
    epochs: int = 1
    rate: float = 5e-4
    seed: int = 0
    limit: int = 0
    checkpoint_seconds: float = 120.0


def train_reranker(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: RerankerRecipe,
    indexes: Path,
    command: str = "",
    watch: Callable[[int, int, str], None] = lambda step, steps, note: None,
) -> Head:
    """Train in `out` (a run that was killed goes on there) and write the head to it.

    Indexes of the sets are made under `indexes`. Beside the head: report.json and curves.png. Raises
    UsageError where a set is of another form or `out` holds another run, EncoderError without peft.
    """
    import torch

    learnt, dev, data = _gather(sets, recipe, indexes)
    cutter = PairCutter(files, recipe.max_length)
    module = trainable_module(files, OUTPUTS, recipe.rank, recipe.scale, recipe.dropout, recipe.seed)
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    settings = TrainSettings(
        epochs=recipe.epochs, rate=recipe.rate, seed=recipe.seed, checkpoint_seconds=recipe.checkpoint_seconds
    )
    card = {"recipe": asdict(recipe), "data": data, "trunk": files.identity.weights}
    task = RankingTask(cutter, learnt, dev, recipe.batch, recipe.seed)
    progress = train(module, [task], settings, out / "run", card, watch)
    best = max(progress.history, key=lambda record: record["score"])
    metrics = best["dev"]["reranker"]
    head = Head(
        HeadCard(
            task="reranker", trunk=files.identity.weights, trunk_name=files.identity.name, rank=recipe.rank,
            scale=recipe.scale, max_length=recipe.max_length, outputs=OUTPUTS, recipe=asdict(recipe),
            data=data, command=command, seed=recipe.seed, metrics={"dev": metrics},
            calibration={"weight": float(metrics["weight"])},
        ),
        adapters_of(module), outputs_of(module),
    )  # fmt: skip
    save_head(head, out)
    report = {"history": progress.history, "dev": metrics}
    (out / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    curves = {"MRR": [r["score"] for r in progress.history]}
    plot_curves(out / CURVES, [r["epoch"] for r in progress.history], curves, "epoch", "dev")
    return head


def _gather(
    sets: Sequence[Path], recipe: RerankerRecipe, indexes: Path
) -> tuple[list[Group], list[Group], dict[str, Any]]:
    learnt, dev, data = list[Group](), list[Group](), dict[str, Any]()
    for folder in sets:
        if kind_of(folder) is None:
            raise UsageError(f"{folder} holds no set.", "Give folders of reading or multi-hop sets.")
        found = groups_of(folder, indexes, recipe.limit, recipe.seed)
        mine = [group for group in found if is_dev(group.split_by)]
        learnt += [group for group in found if not is_dev(group.split_by)]
        dev += mine
        read = read_reading(folder, "train") if kind_of(folder) == "reading" else read_multihop(folder)
        data[folder.name] = {"sha256": read.sha256, "train": len(found) - len(mine), "dev": len(mine)}
    if not learnt or not dev:
        raise UsageError("There is too little to train on and to stop by.", "Give larger sets.")
    return learnt, dev[:: max(1, len(dev) // DEV_LIMIT)], data
