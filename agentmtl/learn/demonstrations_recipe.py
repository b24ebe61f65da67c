"""The recipe of the demonstration retriever: tasks in, rounds of mining and training, a head out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.jsonl import files_hash
from agentmtl.experts.scoring import Scorer
from agentmtl.ingest.demonstrations import read_demonstrations
from agentmtl.learn.demonstrations import Dev, RankingTask, dev_of
from agentmtl.learn.distil import as_the_trunk, check_mean_pooled
from agentmtl.learn.feedback import FeedbackScorer, KernelScorer, LikelihoodScorer, OverlapScorer, Pool
from agentmtl.learn.mining import Lists, mine
from agentmtl.learn.recipe import (
    AdapterRecipe,
    Watch,
    best_dev,
    head_of,
    module_for,
    run_card,
    unwatched,
    write_report,
)
from agentmtl.learn.training import Progress, train
from agentmtl.tasks import instructed, load_task
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.headed import VECTOR, embed
from agentmtl.trunk.heads import Head, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

CARD, TRAIN = "card.json", "train.jsonl"
TASK = "demonstrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationsRecipe(AdapterRecipe):
    """`limit`: examples of a task that are learned from. `queries` of each task are mined and learned from a
    round, in `epochs` epochs. Dev: `asked` examples a task, predicted from `shown`. `instruct`: texts are
    read under their task's instruction. `afresh`: every round begins at the trunk, as UDR does, and not at
    the head of the round before. `scorer`: what ranked the candidates, for the card."""

    rank: int = 32
    max_length: int = 96
    epochs: int = 1
    rate: float = 1e-3
    limit: int = 3_000
    rounds: int = 3
    queries: int = 240
    shown: int = 600
    asked: int = 100
    instruct: bool = True
    afresh: bool = False
    scorer: str = "kernel"


@dataclass(frozen=True, slots=True, eq=False)
class _Set:
    """A task's folder, read."""

    pool: Pool
    dev: Dev
    scorer: FeedbackScorer

    def queries(self, count: int, seed: int, number: int) -> list[int]:
        """Those of a round."""
        random = Random(f"queries:{self.pool.task.name}:{seed}:{number}")
        rows = range(len(self.pool.examples))
        return sorted(random.sample(rows, min(count, len(rows))))

    def told(self, instruct: bool) -> list[str]:
        task = self.pool.task if instruct else None
        return [instructed(task, one.input) for one in self.pool.examples]


def train_demonstrations(
    files: ModelFiles,
    folders: Sequence[Path],
    out: Path,
    recipe: DemonstrationsRecipe,
    model: Scorer | None = None,
    command: str = "",
    watch: Watch = unwatched,
) -> Head:
    """Train on task folders (card.json, train.jsonl), a round after the other in `out`/round-N, and write the
    last round's head to `out`. A run that was killed goes on there. `model`: a language model that ranks the
    candidates; None: the kernel predictor, and of outputs that are no labels their likeness.

    Raises UsageError for a folder without a card or with too few examples, a trunk that does not pool by the
    mean of its tokens, or where `out` holds another run; EncoderError without peft; ModelError.
    """
    check_mean_pooled(files)
    encode = load_encoder(files.identity.name).encode
    sets = [_read(folder, encode, recipe, model) for folder in folders]
    data = {folder.name: _described(folder, one) for folder, one in zip(folders, sets, strict=True)}
    lists: list[Lists] = [{} for _ in sets]
    head: Head | None = None
    for number in range(1, recipe.rounds + 1):
        place, before = out / f"round-{number}", out / f"round-{number - 1}"
        vectors = _retrieving(sets, before, number, recipe, encode)
        for n, one in enumerate(sets):
            queries = one.queries(recipe.queries, recipe.seed, number)
            lists[n] = mine(one.pool, vectors[n], one.scorer, queries, lists[n], first=number == 1)
            watch(n + 1, len(sets), f"round {number}: candidates of {one.pool.task.name}")
        here = recipe if number == 1 or recipe.afresh else replace(recipe, start=str(before))
        tasks = _tasks(sets, lists, PairCutter(files, recipe.max_length), encode, recipe)
        head = _round(files, tasks, place, here, data, command, watch)
    if head is None:
        raise UsageError("No round was asked for.", "Give --rounds 1 or more.")
    save_head(head, out)
    return head


def _tasks(
    sets: Sequence[_Set],
    lists: Sequence[Lists],
    cutter: PairCutter,
    encode: Callable[[Sequence[str]], Vectors],
    recipe: DemonstrationsRecipe,
) -> list[RankingTask]:
    return [
        RankingTask(one.pool, mined, one.scorer, cutter, one.dev, encode, recipe.instruct, recipe.seed)
        for one, mined in zip(sets, lists, strict=True)
    ]


def _round(
    files: ModelFiles,
    tasks: Sequence[RankingTask],
    place: Path,
    recipe: DemonstrationsRecipe,
    data: dict[str, Any],
    command: str,
    watch: Watch,
) -> Head:
    """Trained on the lists of all rounds so far."""
    module = module_for(files, {VECTOR: files.identity.dimension}, recipe)
    if not recipe.start:
        module = as_the_trunk(module)
    card = run_card(files, recipe, data)
    progress = train(module, tasks, recipe.settings(recipe.epochs), place / "run", card, watch)
    metrics = _metrics(progress)
    head = head_of(
        TASK, module, files, recipe, data, command, metrics, progress, {"instruct": recipe.instruct}
    )
    save_head(head, place)
    write_report(place, tasks[0].name, progress, best_dev(progress, tasks[0].name))
    return head


def _metrics(progress: Progress) -> dict[str, float]:
    """The dev score of every task in the best epoch, and their mean."""
    record = max(progress.history, key=lambda one: one["score"])
    return {**{name: one["score"] for name, one in record["dev"].items()}, "score": record["score"]}


def _retrieving(
    sets: Sequence[_Set],
    before: Path,
    number: int,
    recipe: DemonstrationsRecipe,
    encode: Callable[[Sequence[str]], Vectors],
) -> list[Vectors]:
    """By what candidates are found: the frozen vectors, then the head of the round before."""
    if number == 1:
        return [one.pool.vectors for one in sets]
    network = open_head(before)
    return [embed(network, one.told(recipe.instruct)) for one in sets]


def _read(
    folder: Path,
    encode: Callable[[Sequence[str]], Vectors],
    recipe: DemonstrationsRecipe,
    model: Scorer | None,
) -> _Set:
    task = load_task(folder / CARD)
    examples = list(read_demonstrations(folder / TRAIN, task.name))
    if len(examples) < 40:
        raise UsageError(f"{folder} has {len(examples)} examples.", "Give 40 of a task or more.")
    learned, dev = dev_of(examples, task, recipe.shown, recipe.asked, recipe.seed)
    if recipe.limit:
        learned = learned[: recipe.limit]
    vectors = np.asarray(encode([one.input for one in learned]), np.float32)
    pool = Pool(task, tuple(learned), vectors, len(examples))
    return _Set(pool, dev, _scorer(pool, recipe.seed, model))


def _scorer(pool: Pool, seed: int, model: Scorer | None) -> FeedbackScorer:
    if model is not None:
        return LikelihoodScorer(pool, model)
    return KernelScorer(pool, seed) if pool.task.kind == "classification" else OverlapScorer(pool)


def _described(folder: Path, one: _Set) -> dict[str, Any]:
    licence = _licence(folder / CARD)
    return {
        "sha256": files_hash([folder / TRAIN]), "train": len(one.pool.examples), "dev": len(one.dev.asked),
        "licence": licence,
    }  # fmt: skip


def _licence(card: Path) -> str:
    """What the task's card says of it, where it does."""
    import json

    told: object = json.loads(card.read_text("utf-8")).get("licence")
    return told if isinstance(told, str) else "not stated"
