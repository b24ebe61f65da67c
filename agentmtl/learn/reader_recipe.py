"""From folders of data to the reader's head: warm up on cloze questions, train on the sets, calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import em
from agentmtl.evaluate.datasets import kind_of, read_multihop, read_reading
from agentmtl.evaluate.reading import read, reading_metrics, said
from agentmtl.evaluate.reading_examples import ReadingExample, is_dev, read_examples
from agentmtl.experts.reading import OUTPUTS, Calibration, Reading
from agentmtl.learn.cloze import cloze_examples
from agentmtl.learn.reader import ReadingTask
from agentmtl.learn.recipe import (
    AdapterRecipe,
    Split,
    Watch,
    average,
    check_sets,
    head_of,
    module_for,
    rounded,
    run_card,
    split_sets,
    unwatched,
    write_report,
)
from agentmtl.learn.retrieved_reading import distractors, retrieved_examples
from agentmtl.learn.training import Progress, train
from agentmtl.retrieval.hops.model import fold_of
from agentmtl.schema import Document
from agentmtl.trunk.cache import default_cache_dir
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import Head, load_head, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

KEPT = 0.9  # of the questions with an answer are answered at the threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRecipe(AdapterRecipe):
    """`cloze` questions, for one epoch, come first; they are made from the sets' texts and from those of the
    folders `texts`, and with `epochs` 0 they are all: a head that has learned to match, to start others from.
    `fold`: questions of multi-hop sets that are left out, one fold of `folds`, so that the
    others' head can be measured on them; −1 for none. `replay`: about so many examples of each of the folders
    `replays`, so that what a head knew is not forgotten. `keep`: the share of the head it started from in the
    weights that are kept (WiSE-FT: Wortsman et al., arXiv 2109.01903, section 3).
    `distractors`: about so many contexts of each reading set that a search brings in vain.
    """

    max_length: int = 384
    epochs: int = 3
    cloze: int = 10_000
    texts: tuple[str, ...] = ()
    replays: tuple[str, ...] = ()
    replay: int = 1_000
    keep: float = 0.0
    fold: int = -1
    folds: int = 3
    distractors: int = 0


def train_reader(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: ReaderRecipe,
    command: str = "",
    watch: Watch = unwatched,
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
    learnt = examples.sets if recipe.epochs else {n: {**s, "train": 0} for n, s in examples.sets.items()}
    head = head_of("reader", module, files, recipe, learnt, command, {}, progress)
    if recipe.start and recipe.keep:
        head = average(load_head(Path(recipe.start)), head, recipe.keep)
    save_head(head, out)
    network = HeadNetwork(out, files, ("torch-fp32",), default_cache_dir())
    found = read(network, examples.dev, lambda n: None)
    calibration = calibrate(examples.dev, found)
    metrics = {n: s.value for n, s in reading_metrics(examples.dev, found, calibration).items()}
    card = replace(
        head.card, calibration=calibration.to_json(), metrics={**head.card.metrics, "dev": rounded(metrics)}
    )
    save_head(replace(head, card=card), out)
    write_report(out, "reader", progress, metrics)
    return replace(head, card=card)


def fit(
    files: ModelFiles,
    sets: Sequence[Path],
    examples: Split[ReadingExample],
    out: Path,
    recipe: ReaderRecipe,
    watch: Watch,
) -> tuple[Any, Progress]:
    """The trained module with its best weights, and how it went."""
    cutter = PairCutter(files, recipe.max_length)
    module = module_for(files, OUTPUTS, recipe)
    card = run_card(files, recipe, examples.sets)
    if recipe.cloze:
        texts = documents_of([*sets, *map(Path, recipe.texts)])
        warm = cloze_examples(texts, recipe.cloze, recipe.seed)
        task = ReadingTask(cutter, warm, examples.dev, recipe.batch, recipe.seed)
        progress = train(module, [task], recipe.settings(1), out / "warm-up", card, watch)
        if not recipe.epochs:
            return module.eval(), progress
    task = ReadingTask(cutter, examples.train, examples.dev, recipe.batch, recipe.seed)
    progress = train(module, [task], recipe.settings(recipe.epochs), out / "sets", card, watch)
    return module.eval(), progress


def gather(sets: Sequence[Path], recipe: ReaderRecipe, indexes: Path | None = None) -> Split[ReadingExample]:
    """The examples of all sets, split by group. Raises UsageError for a folder that holds no set."""
    replays = [Path(folder) for folder in recipe.replays]
    check_sets([*sets, *replays])
    if not recipe.cloze and not recipe.epochs:
        raise UsageError("There is nothing to train on.", "Give --cloze or --epochs.")
    read = [(folder, _read(folder, recipe, indexes)) for folder in sets]
    read += [(f, _strided(read_examples(f, seed=recipe.seed), recipe.replay)) for f in replays]
    return split_sets(
        ((folder, [e for e in every if not _is_left_out(e, folder, recipe)]) for folder, every in read),
        lambda example: example.group,
    )


def _is_left_out(example: ReadingExample, folder: Path, recipe: ReaderRecipe) -> bool:
    """Whether it is of a multi-hop question in the fold that is left out."""
    if recipe.fold < 0 or kind_of(folder) == "reading":
        return False
    return fold_of(example.group.removeprefix(f"{folder.resolve().name}:"), recipe.folds) == recipe.fold


def _strided(examples: list[ReadingExample], limit: int) -> list[ReadingExample]:
    """About `limit` of them, evenly spread; 0: all."""
    return examples[:: max(1, len(examples) // limit)] if limit else examples


def _read(folder: Path, recipe: ReaderRecipe, indexes: Path | None) -> list[ReadingExample]:
    if indexes is None:
        return _strided(read_examples(folder, seed=recipe.seed), recipe.limit)
    if kind_of(folder) == "reading":
        wrong = distractors(folder, indexes, recipe.distractors, recipe.seed)
        return [*_strided(read_examples(folder, seed=recipe.seed), recipe.limit), *wrong]
    every = retrieved_examples(folder, indexes, recipe.seed, recipe.fold, recipe.folds)
    return _strided(every, recipe.limit)


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

    found = {n: found[at] for n, at in enumerate(n for n, e in enumerate(examples) if e.kind != "elsewhere")}
    examples = [example for example in examples if example.kind != "elsewhere"]
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
