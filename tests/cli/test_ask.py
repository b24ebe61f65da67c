"""`agentmtl ask` with what leans on the disk or comes as it goes: conversations, runs, streams, experts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentmtl import Chunking, Document, Index
from agentmtl.cli.main import _exit_code as run
from agentmtl.compute.difficulty import ByDifficulty, Difficulty
from agentmtl.compute.frontier import write_allocation
from agentmtl.schema import Allocation, Share

QUESTION = "Where was John Harrison born?"
SAID = "fake:Foulby [1]"


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    made = Index.create(tmp_path / "index", encoder="hashing", chunking=Chunking(60, 1))
    made.add([Document("harrison", "John Harrison was born in Foulby.", "John Harrison")])
    return ["--index", str(tmp_path / "index")]


def test_a_conversation_goes_on_from_call_to_call(
    where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    talk = [*where, "--session", "monday", "--threshold", "0"]
    assert run(["ask", "Who was John Harrison?", *talk]) == 0
    assert run(["ask", "Where was he born?", *talk]) == 0
    assert "looked up: Where was John Harrison born?" in capsys.readouterr().err
    assert run(["ask", QUESTION, *where, "--session", "monday", "--no-log"]) == 2
    assert "kept in the log" in capsys.readouterr().err


def test_a_run_is_kept_and_gives_its_answer_again(
    where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [*where, "--run", "a", "--json"]
    assert run(["ask", QUESTION, *kept, "--llm", SAID, "--updater", "embedded"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(["ask", QUESTION, *kept, "--llm", "fake:Larvik [1]", "--updater", "embedded"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == first["answer"] == "Foulby [1]"
    assert run(["ask", QUESTION, *kept, "--stream"]) == 2


def test_a_stream_is_a_line_an_event(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ask", QUESTION, *where, "--llm", SAID, "--updater", "embedded", "--stream"]
    assert run([*asked, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["step"] for line in lines[:-1]] == [
        "route", "plan", "retrieve", "token", "sample", "propose", "verify",
    ]  # fmt: skip
    assert lines[-1]["answer"] == "Foulby [1]" and all(line["schema"] == 1 for line in lines)
    assert run(asked) == 0
    told = capsys.readouterr()
    assert told.out.startswith("Foulby [1]") and "retrieve: " in told.err


def test_a_registered_expert_answers_by_its_name(
    where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    add = ["experts", "add", "towns", "--kind", "chat", "--model", SAID, "--card", "Towns.", "--file"]
    assert run([*add, "experts.toml"]) == 0
    capsys.readouterr()
    assert run(["ask", QUESTION, *where, "--expert", "towns", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["route"] == "towns" and told["answer"] == "Foulby [1]"
    assert run(["ask", QUESTION, *where, "--expert", "nobody"]) == 2
    assert run(["ask", QUESTION, *where, "--llm", SAID, "--updater", "nobody"]) == 2


def test_the_router_takes_one_of_the_registered(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for name, card in (("towns", "Where people were born: towns and villages."), ("sums", "Arithmetic.")):
        add = ["experts", "add", name, "--kind", "chat", "--model", SAID, "--card", card]
        assert run([*add, "--file", "experts.toml"]) == 0
    capsys.readouterr()
    assert run(["ask", QUESTION, *where, "--expert", "routed", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    step = next(step for step in told["trace"] if step["step"] == "route")
    assert told["route"] == step["expert"] and set(step["scores"]) >= {"towns", "sums"}
    assert step["tier"] == "description"


def test_an_allocation_file_is_obeyed(
    where: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "allocation.toml").write_text(
        'format = 1\n[stages.sample]\nsamples = 2\n[stages.hop]\nmodel = "embedded"\n'
    )
    asked = [
        "ask",
        QUESTION,
        *where,
        "--llm",
        SAID,
        "--json",
        "--allocation",
        str(tmp_path / "allocation.toml"),
    ]
    assert run(asked) == 0
    plan = next(s for s in json.loads(capsys.readouterr().out)["trace"] if s["step"] == "plan")
    assert plan["samples"] == 2 and plan["updater"] == "embedded" and "level" not in plan
    assert run([*asked[:-1], "none.toml"]) == 2


def test_an_allocation_file_by_difficulty_is_obeyed(
    where: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "levels.toml"
    encoder = Index.open(where[1]).settings.encoder
    levels = tuple(Allocation({"sample": Share(samples=number)}) for number in (3, 1))
    hardest = Difficulty(np.zeros(encoder.dimension), -1.0, (0.0,))
    found = ByDifficulty(hardest, levels, 1.0, 1.0, encoder.weights)
    write_allocation(path, levels[1], None, found.to_json())
    asked = ["ask", QUESTION, *where, "--llm", SAID, "--updater", "embedded", "--json", "--allocation"]
    assert run([*asked, str(path)]) == 0
    plan = next(s for s in json.loads(capsys.readouterr().out)["trace"] if s["step"] == "plan")
    assert (plan["samples"], plan["level"], plan["updater"]) == (3, 0, "embedded")
    write_allocation(path, levels[1], None, replace(found, encoder="other").to_json())
    assert run([*asked, str(path)]) == 2
