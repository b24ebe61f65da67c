"""`agentmtl train demonstrations` and the index that uses what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentmtl.cli.main import _exit_code as run
from agentmtl.cli.train_demonstrations import task_folders
from agentmtl.errors import UsageError

from ..learn.test_demonstrations import task_folder
from ..trunk.tiny import tiny_trunk


def test_tasks_are_found_and_left_out(tmp_path: Path) -> None:
    made = [task_folder(tmp_path / "tasks", name, "classification") for name in ("a", "b", "c")]
    assert task_folders([tmp_path / "tasks"]) == made
    assert task_folders([made[2], made[0]]) == [made[2], made[0]]
    assert task_folders([tmp_path / "tasks"], ["b"]) == [made[0], made[2]]
    with pytest.raises(UsageError, match="no task d to leave out"):
        task_folders([tmp_path / "tasks"], ["d"])
    with pytest.raises(UsageError, match="holds no task"):
        task_folders([tmp_path / "empty"])


def test_from_examples_to_an_index_that_uses_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_trunk(tmp_path / "trunk")
    folder = task_folder(tmp_path / "tasks", "colors", "classification")
    asked = [
        "train",
        "demonstrations",
        "--data",
        "tasks",
        "--out",
        "heads/mine",
        "--encoder",
        "trunk",
        "--quiet",
    ]
    assert run([*asked, "--rounds", "1", "--queries", "14", "--rank", "2", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["task"] == "demonstrations" and card["data"]["colors"]["train"] == 48
    files = ["--task", str(folder / "card.json"), "--demos", str(folder / "train.jsonl"), "--quiet"]
    assert run(["index", "build", *files, "--encoder", "trunk+heads/mine", "--out", "ix"]) == 0
    capsys.readouterr()
    assert run(["demos", "number 7 is cold", "--task", "colors", "--index", "ix", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 8
    assert run(["index", "info", "ix"]) == 0
    assert "colors: examples read by the " in capsys.readouterr().out
    forced = ["index", "build", *files, "--examples-by", "head"]
    assert run([*forced, "--encoder", "trunk+heads/mine", "--out", "forced"]) == 0
    told = capsys.readouterr().out
    assert "colors: examples read by the head\n" in told
    assert 'Next: agentmtl demos "…" --task colors --index forced' in told
    assert run(["index", "add", *files, "--index", "forced", "--examples-by", "trunk"]) == 2
    assert run([*forced, "--encoder", "hashing", "--out", "plain"]) == 2
    assert "no head for examples" in capsys.readouterr().err
    assert run([*asked, "--scorer", "nobody"]) == 2
    assert run([*asked, "--scorer", "causal:nowhere"]) == 1
