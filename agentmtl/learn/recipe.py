"""What the recipes of all heads share: the adapter's settings, the module to train, the head, its report."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.datasets import kind_of, read_multihop, read_reading
from agentmtl.evaluate.plot import plot_curves
from agentmtl.evaluate.reading_examples import DEV_SHARE, is_dev
from agentmtl.learn.training import Progress, TrainSettings
from agentmtl.trunk.head_module import (
    adapters_of,
    factored_adapters,
    low_rank,
    outputs_of,
    start_from,
    trainable_module,
)
from agentmtl.trunk.heads import Head, HeadCard, load_head
from agentmtl.trunk.model_files import ModelFiles

REPORT, CURVES = "report.json", "curves.png"
LICENCES = {
    "squad": "CC BY-SA 4.0",
    "qed-nq": "CC BY-SA 3.0",
    "nq-open-oracle": "CC BY-SA 3.0",
    "hotpotqa": "CC BY-SA 4.0",
    "musique": "CC BY 4.0",
    "strategyqa": "MIT",
    "entailmentbank": "CC BY 4.0",
    "sts": "SemEval STS: research use; SICK: CC BY-NC-SA 3.0",
}

Watch = Callable[[int, int, str], None]
T = TypeVar("T")
R = TypeVar("R", bound="AdapterRecipe")


def unwatched(step: int, steps: int, note: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRecipe:
    """`rank` and `scale` of the adapters (rank 0 trains the whole trunk), `layers` of the trunk that are read
    (0: all), `max_length` tokens of a pair. `whole`: train the trunk itself, and keep the best approximation
    of `rank` of what changed. `limit`: examples of each set, 0 for all. `start`: the folder of a head to
    train further, "" for none. `rate`: the highest learning rate.
    """

    rank: int = 48
    scale: float = 2.0
    whole: bool = False
    dropout: float = 0.0
    layers: int = 0
    max_length: int = 256
    batch: int = 16
    epochs: int = 2
    rate: float = 1e-3
    seed: int = 0
    limit: int = 0
    start: str = ""
    checkpoint_seconds: float = 120.0

    def settings(self, epochs: int) -> TrainSettings:
        return TrainSettings(
            epochs=epochs, rate=self.rate, seed=self.seed, checkpoint_seconds=self.checkpoint_seconds
        )


def module_for(
    files: ModelFiles, outputs: Mapping[str, int], recipe: AdapterRecipe, first_only: bool = False
) -> Any:
    """The module to train, on CUDA where there is one. `first_only`: its outputs are the first token's.

    Raises EncoderError without peft, or where `start` does not fit.
    """
    import torch

    rank = 0 if recipe.whole else recipe.rank
    module = trainable_module(
        files, outputs, rank, recipe.scale, recipe.dropout, recipe.seed, recipe.layers, first_only
    )
    if recipe.start:
        head = load_head(Path(recipe.start))
        head.check_trunk(files.identity)
        start_from(module, head)
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def fitted_length(recipe: R, files: ModelFiles) -> R:
    """The recipe with no more tokens than the trunk reads."""
    return replace(recipe, max_length=min(recipe.max_length, files.identity.max_length))


def run_card(files: ModelFiles, recipe: AdapterRecipe, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is, so that another in the same folder is refused."""
    return {"recipe": asdict(recipe), "data": dict(data), "trunk": files.identity.weights}


def head_of(
    task: str,
    module: Any,
    files: ModelFiles,
    recipe: AdapterRecipe,
    data: Mapping[str, Any],
    command: str,
    metrics: Mapping[str, float],
    progress: Progress,
    calibration: Mapping[str, Any] | None = None,
) -> Head:
    """The head of a module that was trained, with its card: its dev metrics, on what machine and in how many
    seconds it was made, and from what data, that of the head it started from included."""
    outputs = outputs_of(module)
    before = load_head(Path(recipe.start)).card.data if recipe.start else {}
    card = HeadCard(
        task=task, trunk=files.identity.weights, trunk_name=files.identity.name, rank=recipe.rank,
        scale=recipe.scale, max_length=recipe.max_length, layers=recipe.layers, first_only=module.first_only,
        outputs={name: len(bias) for name, (_, bias) in outputs.items()}, recipe=asdict(recipe),
        data={**before, **data}, command=command, seed=recipe.seed,
        metrics={"dev": rounded(metrics), "training": {"seconds": round(progress.seconds), **machine()}},
        calibration=dict(calibration or {}),
    )  # fmt: skip
    whole = recipe.whole and recipe.rank
    adapters = factored_adapters(module, files, recipe.rank, recipe.scale) if whole else adapters_of(module)
    return Head(card, adapters, outputs)


def average(start: Head, head: Head, keep: float) -> Head:
    """The head with what it changed in the trunk moved the share `keep` of the way back to the head it was
    trained from, cut to its rank again; an output that only one of them has stays as it is."""
    shares = ((start, keep), (head, 1.0 - keep))
    adapters = {}
    for name in head.adapters:
        change = sum(
            share * one.card.scale * one.adapters[name][1] @ one.adapters[name][0] for one, share in shares
        )
        adapters[name] = low_rank(np.asarray(change, np.float32), head.card.rank, head.card.scale)
    outputs = dict(head.outputs)
    for name in set(start.outputs) & set(head.outputs):
        weight, bias = (sum(share * one.outputs[name][part] for one, share in shares) for part in (0, 1))
        outputs[name] = np.asarray(weight, np.float32), np.asarray(bias, np.float32)
    return Head(head.card, adapters, outputs)


def machine() -> dict[str, Any]:
    """What a run was made on, for the card."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in metrics.items()}


def describe(folder: Path, train: int, dev: int) -> dict[str, Any]:
    """A set for the card: what of it was used, under which licence."""
    known = LICENCES.get(folder.name, "not stated")
    data = read_reading(folder, "train") if kind_of(folder) == "reading" else read_multihop(folder)
    return {"sha256": data.sha256, "train": train, "dev": dev, "licence": known}


@dataclass(frozen=True, slots=True)
class Split(Generic[T]):
    """What is learned from, what says when to stop, and a record of each set for the card."""

    train: tuple[T, ...]
    dev: tuple[T, ...]
    sets: dict[str, Any]


def split_sets(
    found: Iterable[tuple[Path, Sequence[T]]], group: Callable[[T], str], share: float = DEV_SHARE
) -> Split[T]:
    """What was found in each folder, on the two sides; what is of one group stays together. `share`: of the
    groups, that are for dev.

    Raises UsageError where one side is empty.
    """
    train, dev, sets = list[T](), list[T](), dict[str, Any]()
    for folder, items in found:
        held = [item for item in items if is_dev(group(item), share)]
        train += [item for item in items if not is_dev(group(item), share)]
        dev += held
        sets[folder.name] = describe(folder, len(items) - len(held), len(held))
    if not train or not dev:
        raise UsageError("There is too little to train on and to stop by.", "Give larger sets.")
    return Split(tuple(train), tuple(dev), sets)


def check_sets(sets: Sequence[Path], kinds: Sequence[str] = ("reading", "multihop")) -> None:
    """Raises UsageError for a folder that holds no set of these kinds."""
    for folder in sets:
        if kind_of(folder) not in kinds:
            wanted = " or ".join(kinds)
            raise UsageError(f"{folder} holds no {wanted} set.", f"Give folders of {wanted} sets.")


def best_dev(progress: Progress, task: str) -> dict[str, float]:
    """A task's dev metrics in the epoch whose weights were kept."""
    metrics: dict[str, float] = max(progress.history, key=lambda record: record["score"])["dev"][task]
    return metrics


def write_report(out: Path, task: str, progress: Progress, metrics: Mapping[str, float]) -> None:
    """The run's history as JSON and as curves: the dev metrics of `task` that lie between 0 and 1."""
    report = {"history": progress.history, "dev": rounded(metrics)}
    (out / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    epochs = [record["epoch"] for record in progress.history]
    rows = [record["dev"][task] for record in progress.history]
    curves = {n: [row[n] for row in rows] for n in rows[0] if all(0 <= row[n] <= 1 for row in rows)}
    plot_curves(out / CURVES, epochs, curves, "epoch", "dev")
