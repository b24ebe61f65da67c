"""`agentmtl train bank`, `eval bank`, and `run --bank` on a task with few examples."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from agentmtl import Index
from agentmtl.cli.main import _exit_code as run
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task

from ..learn.test_bank import task_folder

TINY = Path(__file__).parent.parent / "serving" / "tiny"
HASHING = ["--encoder", "hashing:64", "--quiet"]


def test_from_tasks_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("colours", "animals", "places")):
        task_folder(tmp_path / "tasks" / name, "classification", name, n)
    learn = ["train", "bank", "--data", "tasks", "--leave-out", "colours", "--kept", "10", "--episodes", "1"]
    assert run([*learn, "--out", "bank", *HASHING, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert set(card["data"]) == {"animals", "places"} and card["command"].startswith("agentmtl")
    index = Index.create(tmp_path / "ix", encoder="hashing:64", streams=())
    records = [json.loads(line) for line in Path("tasks/colours/train.jsonl").read_text().splitlines()]
    shots = [Demonstration("colours", r["input"], r["output"]) for r in records[:9]]
    labels = tuple(f"colours{n}" for n in range(3))
    index.add_demonstrations(Task("colours", "classification", labels=labels), shots)
    asked = b"".join(json.dumps({"input": r["input"]}).encode() + b"\n" for r in records[30:50])
    outputs = {}
    for bank in ("bank", "task"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(asked)))
        assert run(["run", "colours", "--index", "ix", "--bank", bank, "--quiet"]) == 0
        outputs[bank] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = [o["output"] == r["output"] for o, r in zip(outputs["bank"], records[30:50], strict=True)]
    assert sum(right) >= 16 and outputs["bank"][0]["sha256"] != outputs["task"][0]["sha256"]
    assert set(outputs["bank"][0]["probabilities"]) == set(labels)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(asked[: asked.index(b"\n")])))
    read = [
        "run",
        "colours",
        "--index",
        "ix",
        "--bank",
        "bank",
        "--llm",
        f"causal:{TINY}",
        "-k",
        "2",
        "--quiet",
    ]
    assert run(read) == 0
    read = json.loads(capsys.readouterr().out)
    assert set(read["probabilities"]) == set(labels)
    assert read["probabilities"] != outputs["bank"][0]["probabilities"]
    assert run(["run", "colours", "--index", "ix", "--llm", "openai:some", "--quiet"]) == 2
    assert "gives no probabilities" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(asked)))
    assert run(["run", "colours", "--index", "ix", "--bank", "nowhere", "--quiet"]) == 2
    assert "is not a bank" in capsys.readouterr().err


def test_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("colours", "animals", "places")):
        task_folder(tmp_path / "tasks" / name, "classification", name, n)
    small = ["--data", "tasks", "--task", "colours", "--shots", "6", "--seeds", "2", "--limit", "8"]
    assert run(["eval", "bank", *small, "--episodes", "1", *HASHING, "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert table["data"] == "colours" and table["details"]["shots"] == 6
    assert run(["train", "bank", "--data", "tasks", "--episodes", "1", "--out", "bank", *HASHING]) == 0
    assert run(["eval", "bank", *small, "--bank", "bank", *HASHING]) == 0
    assert "bank - voter" in capsys.readouterr().out
