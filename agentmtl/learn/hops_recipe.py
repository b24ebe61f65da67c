"""From multi-hop sets to the hops head, cross-fitted: what puts its logit and the features' score together is
fitted on questions that the head which gave the logit has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.evaluate.reading_examples import is_dev
from agentmtl.learn.hop_chains import Chains, HopTask, chains_of, head_logits
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
from agentmtl.learn.training import autocast, train
from agentmtl.retrieval.hops.judge import OUTPUTS, Weights
from agentmtl.retrieval.hops.model import fold_of
from agentmtl.trunk.heads import Head, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

DEV_SHARE = 0.1  # of the questions
WHOLE = -1  # the number of the head that leaves no fold out


@dataclass(frozen=True, slots=True, kw_only=True)
class HopsRecipe(AdapterRecipe):
    """`limit`: questions of each set, 0 for all. `batch`: questions, each at one hop. `folds` heads are
    trained beside the one that is kept, each without one fold of the questions."""

    max_length: int = 160
    batch: int = 4
    limit: int = 300
    folds: int = 2


@dataclass(frozen=True, slots=True)
class Scored:
    """Chains that were scored by a head which has not seen them: (n, 2) log-odds by features and the head's
    logit, (n,) labels, the weight and the fold of their question."""

    features: NDArray[np.float64]
    gold: NDArray[np.bool_]
    weights: NDArray[np.float64]
    folds: NDArray[np.int64]


def train_hops_head(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: HopsRecipe,
    indexes: Path,
    command: str = "",
    watch: Watch = unwatched,
) -> Head:
    """Train the folds' heads in `out`/fold-0 … and the head itself in `out`; write all with their weights.

    A run that was killed goes on where it was. Beside the head: report.json and curves.png. Raises UsageError
    where a set is no multi-hop set or `out` holds another run, EncoderError without peft.
    """
    check_sets(sets, ("multihop",))
    chains, data = list[Chains](), dict[str, Any]()
    for folder in sets:
        found = chains_of(folder, indexes, recipe.limit, recipe.seed)
        chains += found
        dev = len({c.id for c in found if is_dev(c.group, DEV_SHARE)})
        data[folder.name] = describe(folder, len({c.id for c in found}) - dev, dev)
    if not any(is_dev(c.group, DEV_SHARE) and any(c.gold) for c in chains):
        raise UsageError("There is too little to stop by.", "Give larger sets.")
    job = _Job(files, tuple(chains), data, recipe, command, watch)
    parts = [job.train(out / f"fold-{fold}", fold) for fold in range(recipe.folds)]
    scored = _joined([scored for _, scored in parts])
    for fold, (head, _) in enumerate(parts):
        _save(head, out / f"fold-{fold}", fit_weights(scored, fold))
    head, _ = job.train(out, WHOLE)
    return _save(head, out, fit_weights(scored, WHOLE))


@dataclass(frozen=True, slots=True)
class _Job:
    files: ModelFiles
    chains: tuple[Chains, ...]
    data: dict[str, Any]
    recipe: HopsRecipe
    command: str
    watch: Watch

    def train(self, out: Path, fold: int) -> tuple[Head, Scored]:
        """The head that has not seen a fold, and what it says of that fold."""
        import torch

        recipe = self.recipe
        seen = [c for c in self.chains if fold_of(c.id, recipe.folds) != fold]
        cutter = PairCutter(self.files, recipe.max_length)
        module = module_for(self.files, OUTPUTS, recipe, first_only=True)
        learnt, dev = (
            [c for c in seen if not is_dev(c.group, DEV_SHARE)],
            [c for c in seen if is_dev(c.group, DEV_SHARE)],
        )
        task = HopTask(cutter, learnt, dev, recipe.batch, recipe.seed)
        card = {**run_card(self.files, recipe, self.data), "left out": fold}
        progress = train(module, [task], recipe.settings(recipe.epochs), out / "run", card, self.watch)
        metrics = best_dev(progress, task.name)
        write_report(out, task.name, progress, metrics)
        head = head_of("hops", module, self.files, recipe, self.data, self.command, metrics, progress)
        held_out = [c for c in self.chains if fold_of(c.id, recipe.folds) == fold]
        module.eval()
        with torch.inference_mode(), autocast(next(module.parameters()).device):
            logits = [head_logits(module, cutter, chains) for chains in held_out]
        return head, _scored(held_out, logits, recipe.folds)


def _scored(chains: Sequence[Chains], logits: Sequence[Sequence[float]], folds: int) -> Scored:
    questions = {name: len({c.id for c in chains if c.set == name}) for name in {c.set for c in chains}}
    rows = [
        ((score, logit), gold, 1.0 / questions[c.set], fold_of(c.id, folds))
        for c, mine in zip(chains, logits, strict=True)
        for score, logit, gold in zip(c.scores, mine, c.gold, strict=True)
    ]
    features = np.array([row[0] for row in rows], np.float64).reshape(-1, 2)
    return Scored(
        features, np.array([row[1] for row in rows], np.bool_), np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows], np.int64),
    )  # fmt: skip


def _joined(parts: Sequence[Scored]) -> Scored:
    return Scored(
        np.concatenate([p.features for p in parts]), np.concatenate([p.gold for p in parts]),
        np.concatenate([p.weights for p in parts]), np.concatenate([p.folds for p in parts]),
    )  # fmt: skip


def fit_weights(scored: Scored, left_out: int) -> Weights:
    """A logistic model of a chain being right, every set weighing the same, without one fold.

    Raises UsageError where there is nothing to tell apart.
    """
    from sklearn.linear_model import LogisticRegression

    rows = scored.folds != left_out
    gold = scored.gold[rows]
    if gold.all() or not gold.any():
        raise UsageError("No chain was right, or all were.", "Give more questions: --limit 0")
    weights = scored.weights[rows] * len(gold) / scored.weights[rows].sum()
    model = LogisticRegression(C=10.0, max_iter=1000).fit(scored.features[rows], gold, sample_weight=weights)
    score, head = map(float, model.coef_[0])
    return Weights(score, head, float(model.intercept_[0]))


def _save(head: Head, out: Path, weights: Weights) -> Head:
    ready = replace(head, card=replace(head.card, calibration=asdict(weights)))
    save_head(ready, out)
    return ready
