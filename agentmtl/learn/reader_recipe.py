"""From folders of data to the reader's head: warm up on cloze questions, train on the sets, calibrate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import em
from agentmtl.evaluate.datasets import kind_of, read_multihop, read_reading
from agentmtl.evaluate.plot import plot_curves
from agentmtl.evaluate.reading import read, reading_metrics, said
from agentmtl.evaluate.reading_examples import ReadingExample, is_dev, read_examples
from agentmtl.experts.reading import OUTPUTS, Calibration, Reading
from agentmtl.learn.cloze import cloze_examples
from agentmtl.learn.reader import ReadingTask
from agentmtl.learn.retrieved_reading import retrieved_examples
from agentmtl.learn.training import Progress, TrainSettings, train
from agentmtl.schema import Document
from agentmtl.trunk.cache import default_cache_dir
from agentmtl.trunk.head_module import adapters_of, outputs_of, start_from, trainable_module
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import Head, HeadCard, load_head, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

Watch = Callable[[int, int, str], None]
KEPT = 0.9  # of the questions with an answer are answered at the threshold
REPORT, CURVES = "report.json", "curves.png"


@dataclass(frozen=True, slots=True)
class ReaderRecipe:
    """`cloze` questions, for one epoch, come first. `limit`: examples of each set, 0 for all.

    `start`: the folder of a head to train further, "" for none. `fold`: questions of multi-hop sets that are
    left out, one fold of `folds`, so that the others' head can be measured on them; −1 for none.
    """

    rank: int = 32
    scale: float = 2.0
    dropout: float = 0.05
    max_length: int = 384
    batch: int = 16
    cloze: int = 8_000
    epochs: int = 3
    rate: float = 5e-4
    seed: int = 0
    limit: int = 0
    start: str = ""
    fold: int = -1
    folds: int = 3
    checkpoint_seconds: float = 120.0

    def settings(self, epochs: int) -> TrainSettings:
        return TrainSettings(
            epochs=epochs, rate=self.rate, seed=self.seed, checkpoint_seconds=self.checkpoint_seconds
        )


@dataclass(frozen=True, slots=True)
class Examples:
    """What the reader learns from, what says when to stop, and a record of each set."""

    train: tuple[ReadingExample, ...]
    dev: tuple[ReadingExample, ...]
    sets: dict[str, Any]


def train_reader(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: ReaderRecipe,
    command: str = "",
    watch: Watch = lambda step, steps, note: None,
    indexes: Path | None = None,
) -> Head:
    """Train in `out` (a run that was killed goes on there) and write the calibrated head to it.

    With `indexes`, where those of multi-hop sets are kept, questions of theirs are read over what retrieval
    finds, else over their gold passages. Beside the head: report.json (history, dev metrics) and curves.png.
    On CUDA where there is one. Raises UsageError where a set is of another form or `out` holds another run,
    EncoderError without peft.
    """
    examples = gather(sets, recipe, indexes)
    module, progress = fit(files, sets, examples, out, recipe, watch)
    card = HeadCard(
        task="reader", trunk=files.identity.weights, trunk_name=files.identity.name,
        rank=recipe.rank, scale=recipe.scale,
        max_length=recipe.max_length, outputs=OUTPUTS, recipe=asdict(recipe), data=examples.sets,
        command=command, seed=recipe.seed,
    )  # fmt: skip
    head = Head(card, adapters_of(module), outputs_of(module))
    save_head(head, out)
    network = HeadNetwork(out, files, ("torch-fp32",), default_cache_dir())
    found = read(network, examples.dev, lambda n: None)
    calibration = calibrate(examples.dev, found)
    metrics = {n: round(s.value, 4) for n, s in reading_metrics(examples.dev, found, calibration).items()}
    card = replace(card, calibration=calibration.to_json(), metrics={"dev": metrics})
    save_head(replace(head, card=card), out)
    write_report(out, progress, metrics)
    return replace(head, card=card)


def fit(
    files: ModelFiles,
    sets: Sequence[Path],
    examples: Examples,
    out: Path,
    recipe: ReaderRecipe,
    watch: Watch,
) -> tuple[Any, Progress]:
    """The trained module with its best weights, and how it went."""
    import torch

    cutter = PairCutter(files, recipe.max_length)
    module = trainable_module(files, OUTPUTS, recipe.rank, recipe.scale, recipe.dropout, recipe.seed)
    if recipe.start:
        head = load_head(Path(recipe.start))
        head.check_trunk(files.identity)
        start_from(module, head)
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    card = {"recipe": asdict(recipe), "data": examples.sets, "trunk": files.identity.weights}
    if recipe.cloze:
        warm = cloze_examples(documents_of(sets), recipe.cloze, recipe.seed)
        task = ReadingTask(cutter, warm, examples.dev, recipe.batch, recipe.seed)
        train(module, [task], recipe.settings(1), out / "warm-up", card, watch)
    task = ReadingTask(cutter, examples.train, examples.dev, recipe.batch, recipe.seed)
    progress = train(module, [task], recipe.settings(recipe.epochs), out / "sets", card, watch)
    return module.eval(), progress


def gather(sets: Sequence[Path], recipe: ReaderRecipe, indexes: Path | None = None) -> Examples:
    """The examples of all sets, split by group. Raises UsageError for a folder that holds no set."""
    learnt, dev, data = [], [], {}
    for folder in sets:
        if kind_of(folder) is None:
            raise UsageError(f"{folder} holds no set.", "Give folders of reading or multi-hop sets.")
        found = _read(folder, recipe, indexes)
        found = found[:: max(1, len(found) // recipe.limit)] if recipe.limit else found
        mine = [e for e in found if is_dev(e.group)]
        learnt += [e for e in found if not is_dev(e.group)]
        dev += mine
        data[folder.name] = {"sha256": _hash(folder), "train": len(found) - len(mine), "dev": len(mine)}
    if not learnt or not dev:
        raise UsageError("There is too little to train on and to stop by.", "Give larger sets.")
    return Examples(tuple(learnt), tuple(dev), data)


def _read(folder: Path, recipe: ReaderRecipe, indexes: Path | None) -> list[ReadingExample]:
    if kind_of(folder) == "reading" or indexes is None:
        return read_examples(folder, seed=recipe.seed)
    return retrieved_examples(folder, indexes, recipe.seed, recipe.fold, recipe.folds)


def _hash(folder: Path) -> str:
    data = read_reading(folder, "train") if kind_of(folder) == "reading" else read_multihop(folder)
    return data.sha256


def documents_of(sets: Sequence[Path]) -> list[Document]:
    """The text of the sets for cloze questions, without the articles that dev is about."""
    found: list[Document] = []
    for folder in sets:
        if kind_of(folder) == "reading":
            found += [
                d for d in read_reading(folder, "train").documents if not is_dev(d.title or d.text[:80])
            ]
        else:
            found += read_multihop(folder).documents
    return found


def calibrate(examples: Sequence[ReadingExample], found: dict[int, Reading]) -> Calibration:
    """Logistic models on dev readings (Platt, "Probabilistic outputs for support vector machines", 1999).

    Of there being an answer, with the threshold, and of the one given being exactly right.
    """
    from sklearn.linear_model import LogisticRegression

    features = np.array([found[n].features for n in range(len(examples))])
    has = np.array([example.kind != "none" for example in examples])
    right = np.array(
        [
            bool(h) and em(said(e, found[n]), e.accepted) > 0
            for n, (e, h) in enumerate(zip(examples, has, strict=True))
        ]
    )
    models = []
    for labels in (has, right):
        if labels.all() or not labels.any():
            raise UsageError("Dev holds only one kind of question.", "Give sets with unanswerable ones too.")
        model = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels)
        models.append((*map(float, model.coef_[0]), float(model.intercept_[0])))
    calibration = Calibration(models[0], models[1])
    chances = [calibration.of_answer(found[n]) for n in np.flatnonzero(has).tolist()]
    return replace(calibration, threshold=float(np.quantile(chances, 1 - KEPT)))


def write_report(out: Path, progress: Progress, metrics: dict[str, float]) -> None:
    """The run's history as JSON and as curves."""
    report = {"history": progress.history, "dev": metrics}
    (out / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    epochs = [record["epoch"] for record in progress.history]
    names = ("f1", "em", "auroc")
    curves = {n: [r["dev"]["reader"][n] for r in progress.history] for n in names}
    plot_curves(out / CURVES, epochs, curves, "epoch", "dev")
