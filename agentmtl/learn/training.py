"""The training loop of the trunk's heads: single-task batches, checkpoints, early stopping.

A run is a folder: `checkpoint/` (what it needs to go on), `best.safetensors` (the weights that scored best on
dev) and `history.json`. A run that was killed and is started again with the same settings ends with the same
weights: batches and dropout are drawn from the seed and the step's number, not from where the run began.

Tasks take turns in proportion to n^0.5 of their examples (UDR, arXiv 2305.04320, section 3.4); every batch
is of one task. On CPUs with bf16 instructions and on CUDA the forward pass is in bf16 (autocast).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from agentmtl.errors import UsageError

if TYPE_CHECKING:
    import torch

CHECKPOINT, BEST, HISTORY = "checkpoint", "best.safetensors", "history.json"
_TENSORS, _STATE = "tensors.safetensors", "state.json"


class TrainTask(Protocol):
    """A task to train: its batches of example numbers, the loss of one, and its dev metrics."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int:
        """Training examples."""
        ...

    def batches(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, in order; the same for the same number."""
        ...

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        """A scalar."""
        ...

    def evaluate(self, module: torch.nn.Module) -> Mapping[str, float]:
        """Dev metrics; "score", the higher the better, decides when to stop."""
        ...


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """`rate` is the highest learning rate, reached after `warmup` of the steps and falling to 0 at the end.

    `checkpoint_seconds`: how much work a kill may cost. `patience`: epochs without a better dev score after
    which training stops; 0: never.
    """

    epochs: int = 4
    rate: float = 5e-4
    warmup: float = 0.06
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    patience: int = 0
    checkpoint_seconds: float = 120.0


@dataclass(slots=True)
class Progress:
    """Where a run is. `history`: a record for every epoch."""

    step: int = 0
    epoch: int = 0
    best: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)


def schedule(tasks: Sequence[TrainTask], epoch: int, seed: int) -> list[tuple[int, list[int]]]:
    """(task, batch) pairs of an epoch. With one task all its batches; with several, as many as all have
    together, drawn ∝ n^0.5, so that a small set is seen more often than its size says."""
    each = [task.batches(epoch) for task in tasks]
    if len(tasks) == 1:
        return [(0, batch) for batch in each[0]]
    random = Random(f"schedule:{seed}:{epoch}")
    weights = [task.size**0.5 for task in tasks]
    turns = random.choices(range(len(tasks)), weights, k=sum(map(len, each)))
    places = [0] * len(tasks)
    found = []
    for turn in turns:
        found.append((turn, each[turn][places[turn] % len(each[turn])]))
        places[turn] += 1
    return found


def train(
    module: torch.nn.Module,
    tasks: Sequence[TrainTask],
    settings: TrainSettings,
    out: Path,
    card: Mapping[str, Any],
    watch: Callable[[int, int, str], None] = lambda step, steps, note: None,
) -> Progress:
    """Train the module's parameters that require a gradient; at the end it holds the best ones.

    `card` says what is trained (data hashes, recipe): a run in `out` with another is refused. `watch` is told
    (step, steps, note) as it goes. Raises UsageError; a kill costs what came after the last checkpoint.
    """
    import torch

    run = _Run(module, tasks, settings, out, card)
    progress = run.resume()
    while progress.epoch < settings.epochs:
        for n, (task, batch) in run.rest_of_epoch(progress):
            loss = run.step(tasks[task], batch, progress.step)
            progress.losses.setdefault(tasks[task].name, []).append(loss)
            progress.step += 1
            run.checkpoint_sometimes(progress, n + 1)
            watch(progress.step, run.steps, f"{tasks[task].name} {loss:.3f}")
        with torch.inference_mode():
            done = run.end_epoch(progress)
        watch(progress.step, run.steps, done)
        if settings.patience and run.stale(progress) >= settings.patience:
            break
    run.restore_best()
    return progress


class _Run:
    def __init__(
        self,
        module: torch.nn.Module,
        tasks: Sequence[TrainTask],
        settings: TrainSettings,
        out: Path,
        card: Mapping[str, Any],
    ) -> None:
        import torch

        self.module, self.tasks, self.settings, self.out = module, tasks, settings, out
        self.card = json.loads(json.dumps({**card, "settings": asdict(settings)}))
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.device = next(iter(self.trained.values())).device
        self.steps = sum(
            len(schedule(tasks, epoch, settings.seed)) for epoch in range(min(1, settings.epochs))
        )
        self.steps *= settings.epochs
        self.optimizer = torch.optim.AdamW(
            list(self.trained.values()), lr=settings.rate, weight_decay=settings.weight_decay
        )
        self._offset = 0
        self._saved = time.monotonic()
        self._started = self._saved

    # --- steps ----------------------------------------------------------------------------------------

    def rest_of_epoch(self, progress: Progress) -> Iterator[tuple[int, tuple[int, list[int]]]]:
        plan = schedule(self.tasks, progress.epoch, self.settings.seed)
        yield from list(enumerate(plan))[self._offset :]
        self._offset = 0

    def step(self, task: TrainTask, batch: Sequence[int], number: int) -> float:
        import torch

        torch.manual_seed(self.settings.seed * 1_000_003 + number)  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * self._share(number)
        self.module.train()
        with autocast(self.device):
            loss = task.loss(self.module, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _share(self, number: int) -> float:
        """Of the highest learning rate: linear up, then linear down."""
        rising = max(1, round(self.steps * self.settings.warmup))
        if number < rising:
            return (number + 1) / rising
        return max(0.0, (self.steps - number) / max(1, self.steps - rising))

    def end_epoch(self, progress: Progress) -> str:
        self.module.eval()
        with autocast(self.device):
            metrics = {task.name: dict(task.evaluate(self.module)) for task in self.tasks}
        score = sum(m["score"] for m in metrics.values()) / len(metrics)
        losses = {name: sum(values) / len(values) for name, values in progress.losses.items()}
        progress.seconds += time.monotonic() - self._started
        self._started = time.monotonic()
        progress.history.append(
            {"epoch": progress.epoch + 1, "step": progress.step, "score": score, "loss": losses,
             "dev": metrics, "seconds": round(progress.seconds, 1)}
        )  # fmt: skip
        progress.losses = {}
        progress.epoch += 1
        if score > progress.best:
            progress.best = score
            _write(self.out / BEST, self._weights())
        self._save(progress, 0)
        (self.out / HISTORY).write_text(json.dumps(progress.history, indent=1) + "\n", "utf-8")
        return f"epoch {progress.epoch}: {score:.4f}"

    def stale(self, progress: Progress) -> int:
        """Epochs since the best one."""
        scores = [record["score"] for record in progress.history]
        return len(scores) - 1 - scores.index(max(scores))

    # --- what is kept -----------------------------------------------------------------------------------

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().cpu().contiguous() for name, p in self.trained.items()}

    def checkpoint_sometimes(self, progress: Progress, offset: int) -> None:
        if time.monotonic() - self._saved >= self.settings.checkpoint_seconds:
            self._save(progress, offset)

    def _save(self, progress: Progress, offset: int) -> None:
        """Into a fresh folder, which then takes the old one's place."""
        fresh, place = self.out / (CHECKPOINT + ".new"), self.out / CHECKPOINT
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        tensors = {f"weight.{name}": value for name, value in self._weights().items()}
        for name, parameter in self.trained.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{kind}.{name}"] = value.detach().cpu().contiguous()
        _write(fresh / _TENSORS, tensors)
        state = {"card": self.card, "offset": offset, "progress": asdict(progress)}
        (fresh / _STATE).write_text(json.dumps(state), "utf-8")
        old = self.out / (CHECKPOINT + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        self._saved = time.monotonic()

    def resume(self) -> Progress:
        """Where the run in `out` had come to; a fresh start where there is none."""
        place = self.out / CHECKPOINT
        if not place.exists() and (self.out / (CHECKPOINT + ".old")).exists():
            (self.out / (CHECKPOINT + ".old")).rename(place)  # killed between the two renames
        if not place.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            return Progress()
        state = json.loads((place / _STATE).read_text("utf-8"))
        if state["card"] != self.card:
            raise UsageError(
                f"{self.out} holds a run with other data or settings.", "Choose another --out, or remove it."
            )
        self._load(place / _TENSORS)
        self._offset = state["offset"]
        return Progress(**state["progress"])

    def _load(self, path: Path) -> None:
        import torch
        from safetensors.torch import load_file

        tensors = load_file(path)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[f"weight.{name}"])
                kept = {
                    kind: tensors[f"{kind}.{name}"]
                    for kind in ("step", "exp_avg", "exp_avg_sq")
                    if f"{kind}.{name}" in tensors
                }
                if kept:
                    on = {k: v if k == "step" else v.to(parameter.device) for k, v in kept.items()}
                    self.optimizer.state[parameter] = on

    def restore_best(self) -> None:
        import torch
        from safetensors.torch import load_file

        best = load_file(self.out / BEST)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(best[name])


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where the device computes it fast, else fp32."""
    import torch

    from agentmtl.trunk.processor import has_bf16

    able = has_bf16() if device.type == "cpu" else device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    fresh = path.with_name(path.name + ".new")
    save_file(dict(tensors), fresh)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)


def by_length(lengths: Sequence[int], size: int, seed: str) -> list[list[int]]:
    """Batches of `size` numbers of like length: shuffled, sorted within pools of 32 batches, shuffled."""
    random = Random(seed)
    order = list(range(len(lengths)))
    random.shuffle(order)
    pool = 32 * size
    batches = []
    for start in range(0, len(order), pool):
        part = sorted(order[start : start + pool], key=lambda i: lengths[i])
        batches += [part[at : at + size] for at in range(0, len(part), size)]
    random.shuffle(batches)
    return batches
