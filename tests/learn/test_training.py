"""The training loop over a tiny trunk: it learns, it resumes after kill -9 with the same result, it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.learn.training import BEST, CHECKPOINT, TrainSettings, by_length, schedule, train


class Line:
    """y = 2x − 1 from noisy points. `module` is one linear layer."""

    def __init__(self, name: str = "line", size: int = 64) -> None:
        self.name, self.size = name, size
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(size, 1)).astype(np.float32)
        self.y = 2 * self.x - 1
        self.scores = [0.1, 0.5, 0.4, 0.3, 0.2, 0.1]
        self.asked = 0

    def batches(self, epoch: int) -> list[list[int]]:
        return by_length([1] * self.size, 8, f"line:{epoch}")

    def loss(self, module: Any, batch: Sequence[int]) -> Any:
        import torch

        x, y = torch.from_numpy(self.x[list(batch)]), torch.from_numpy(self.y[list(batch)])
        return ((module(x) - y) ** 2).mean()

    def evaluate(self, module: Any) -> Mapping[str, float]:
        self.asked += 1
        return {"score": self.scores[(self.asked - 1) % len(self.scores)]}


def linear() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(1, 1)


def test_it_learns_and_keeps_the_best(tmp_path: Path) -> None:
    import torch

    module, task = linear(), Line()
    told: list[tuple[int, int, str]] = []
    progress = train(
        module, [task], TrainSettings(epochs=3, rate=0.1), tmp_path, {}, lambda *note: told.append(note)
    )
    assert [r["epoch"] for r in progress.history] == [1, 2, 3] and progress.best == 0.5
    from safetensors.torch import load_file

    assert torch.equal(module.weight, load_file(tmp_path / BEST)["weight"])
    losses = [r["loss"]["line"] for r in progress.history]
    assert losses[-1] < 0.2 * losses[0]
    assert told[-1][:2] == (24, 24)


def test_it_stops_where_dev_gets_no_better(tmp_path: Path) -> None:
    progress = train(linear(), [Line()], TrainSettings(epochs=6, patience=2), tmp_path, {})
    assert len(progress.history) == 4  # the second was best; two more were not


def test_a_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    train(linear(), [Line()], TrainSettings(epochs=1), tmp_path, {"data": "a"})
    with pytest.raises(UsageError, match="other data or settings"):
        train(linear(), [Line()], TrainSettings(epochs=1), tmp_path, {"data": "b"})


def test_a_finished_run_given_again_does_nothing_more(tmp_path: Path) -> None:
    first, again = linear(), linear()
    train(first, [Line()], TrainSettings(epochs=2, rate=0.1), tmp_path, {})
    task = Line()
    train(again, [task], TrainSettings(epochs=2, rate=0.1), tmp_path, {})
    assert task.asked == 0 and float(first.weight.detach()) == float(again.weight.detach())


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 16))
def test_batches_hold_every_example_once(lengths: list[int], size: int) -> None:
    batches = by_length(lengths, size, "seed")
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size and batches == by_length(lengths, size, "seed")


def test_tasks_take_turns_by_the_root_of_their_size() -> None:
    small, large = Line("small", 160), Line("large", 16_000)
    turns = Counter(task for task, _ in schedule([small, large], 0, 0))
    assert sum(turns.values()) == 20 + 2_000
    assert turns[1] / turns[0] == pytest.approx(10, rel=0.3)


KILLED = """
import sys, time
from pathlib import Path
from agentmtl.learn.reader_recipe import ReaderRecipe, train_reader
from agentmtl.trunk.model_files import read_model_files

trunk, data, out, pause = (*map(Path, sys.argv[1:4]), float(sys.argv[4]))
files = read_model_files(trunk, str(trunk), trunk / "cache")
recipe = ReaderRecipe(rank=4, max_length=64, batch=4, cloze=24, epochs=2, rate=2e-3, checkpoint_seconds=0.0)

def watch(step, steps, note):
    print(step, note, flush=True)
    time.sleep(pause)

train_reader(files, [data], out, recipe, "test", watch)
"""


def reading_set(folder: Path) -> Path:
    folder.mkdir()
    rows = []
    for i in range(60):
        town, year = f"Town{i}", 1500 + i
        context = (
            f"The bridge of {town} was opened in {year} by John Smith. It has {i + 2} arches and a gate."
        )
        rows.append(
            {
                "id": f"a{i}",
                "title": town,
                "context": context,
                "question": f"When was it opened in {town}?",
                "answers": [{"text": str(year), "start": context.index(str(year))}],
                "answerable": True,
            }
        )
        rows.append(
            {
                "id": f"b{i}",
                "title": town,
                "context": context,
                "question": "Who painted the roof?",
                "answers": [],
                "answerable": False,
            }
        )
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def start(trunk: Path, data: Path, out: Path, pause: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "AGENTMTL_CACHE_DIR": str(trunk / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(trunk), str(data), str(out), str(pause)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.timeout(280)
def test_a_killed_run_ends_with_the_same_head(tmp_path: Path) -> None:
    from tests.trunk.tiny import tiny_trunk

    trunk = tiny_trunk(tmp_path / "trunk").folder
    data = reading_set(tmp_path / "set")
    whole = start(trunk, data, tmp_path / "whole", 0.0)
    _, said = whole.communicate(timeout=240)
    assert whole.returncode == 0, said
    killed = start(trunk, data, tmp_path / "killed", 0.02)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("17 "):
            break
    time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (tmp_path / "killed" / "sets" / CHECKPOINT).is_dir()
    resumed = start(trunk, data, tmp_path / "killed", 0.0)
    told, said = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, said
    assert not told.startswith("1 ")
    for name in ("head.safetensors", "card.json", "report.json"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("whole", "killed"))
        if name != "head.safetensors":  # seconds differ
            first, second = (json.dumps(without_seconds(json.loads(x))).encode() for x in (first, second))
        assert first == second, name
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 5_000


def without_seconds(data: dict[str, Any]) -> dict[str, Any]:
    """A card or a report without what depends on when it was made."""
    data.pop("history", None)
    data.get("metrics", {}).pop("training", None)
    return data
