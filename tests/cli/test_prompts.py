"""Prompts of one's own, by setting and environment, and the newest entry of the log with what was sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentmtl import Document, Index
from agentmtl.cli.main import _exit_code as run
from agentmtl.experts.prompting import Prompts


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an index, a prompt of its own and the setting that names it."""
    monkeypatch.chdir(tmp_path)
    index = Index.create(tmp_path / "indexes" / "docs", encoder="hashing")
    index.add([Document("h", "John Harrison was born in Foulby.", "John Harrison")])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "answer-system.j2").write_text("Answer like a sailor. {{ nonce }}\n")
    (tmp_path / "agentmtl.toml").write_text('prompts = "mine"\n')
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    return found


def test_every_prompt_is_listed_with_its_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prompts", "--json"]) == 0
    found = {one["name"]: one for one in told(capsys)["prompts"]}
    assert set(found) == {one.name for one in Prompts().list()} >= {"answer-user", "search-result"}
    assert found["answer-system"]["overridden"] and found["answer-system"]["file"] == "mine/answer-system.j2"
    assert [name for name, one in found.items() if one["overridden"]] == ["answer-system"]
    assert run(["prompts"]) == 0
    assert "mine/answer-system.j2  your own" in capsys.readouterr().out


def test_a_prompt_is_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prompts", "show", "answer-system"]) == 0
    assert capsys.readouterr().out == "Answer like a sailor. {{ nonce }}\n"
    assert run(["prompts", "show", "answer-user", "--json"]) == 0
    assert "{{ question }}" in told(capsys)["text"]
    assert run(["prompts", "show", "nothing"]) == 2
    assert "There are answer-system" in capsys.readouterr().err
    assert run(["prompts", "--folder", "nowhere"]) == 2


def test_it_is_what_a_model_is_sent(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["ask", "Where was John Harrison born?", "--llm", "fake:Foulby [1]", "--show-prompt"]
    assert run(asked) == 0
    assert "Answer like a sailor." in capsys.readouterr().out
    monkeypatch.setenv("AGENTMTL_PROMPTS", str(place / "nowhere"))
    assert run(asked) == 2
    assert "no folder of prompts" in capsys.readouterr().err
    monkeypatch.setenv("AGENTMTL_PROMPTS", "")
    assert run(asked) == 0
    assert "sailor" not in capsys.readouterr().out


def test_the_newest_entry_of_the_log(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["log", "--last"]) == 0
    assert "Nothing was asked yet." in capsys.readouterr().out
    for question in ("Who was John Harrison?", "Where was John Harrison born?"):
        assert run(["ask", question, "--llm", "fake:Foulby [1]"]) in (0, 3)
    capsys.readouterr()
    assert run(["log", "--last"]) == 0
    shown = capsys.readouterr().out
    assert "Q Where was John Harrison born?" in shown and "Q Who was" not in shown
    assert "Answer like a sailor." in shown and "=> Foulby [1]" in shown
    assert run(["log", "show", "2", "--json"]) == 0
    second = told(capsys)
    assert run(["log", "--last", "--json"]) == 0
    assert told(capsys) == second and second["calls"][0]["outputs"] == ["Foulby [1]"]
