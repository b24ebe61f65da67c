"""`agentmtl train encoder`, by data and by an index, and the index that uses what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentmtl.cli.main import _exit_code as run

from ..learn.test_adapting import TEXTS
from ..learn.worlds import multihop_set
from ..trunk.tiny import tiny_trunk


def test_from_a_corpus_to_an_index_that_uses_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_trunk(tmp_path / "trunk")
    (tmp_path / "docs").mkdir()
    for n, text in enumerate(TEXTS):
        (tmp_path / "docs" / f"{n}.txt").write_text(text)
    assert run(["index", "build", "docs", "--encoder", "trunk", "--out", "ix", "--quiet"]) == 0
    asked = ["train", "encoder", "--quiet", "--rank", "2", "--tokens", "16", "--json"]
    adapt = ["--adapt-to", "ix", "--cycles", "1", "--queries", "45"]
    capsys.readouterr()
    assert run([*asked, *adapt, "--out", "heads/mine"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert (
        card["task"] == "encoder" and card["calibration"] == {"sides": "all"} and card["data"]["ix"]["train"]
    )
    build = ["index", "build", "docs", "--encoder", "trunk+heads/mine", "--quiet", "--out"]
    assert run([*build, "mine"]) == 0
    assert run([*build, "ix"]) != 0  # the trunk's vectors are there
    capsys.readouterr()
    assert run(["search", "lighthouse of Velby", "--index", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"]
    assert run([*asked, "--out", "heads/none"]) == 2
    assert run([*asked, *adapt, "--data", "docs", "--out", "heads/none"]) == 2
    assert run([*asked, "--adapt-to", "ix", "--frozen", "--out", "heads/none"]) == 2


def test_from_questions_to_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_trunk(tmp_path / "trunk")
    multihop_set(tmp_path / "lamps")
    asked = ["train", "encoder", "--data", "lamps", "--encoder", "trunk", "--out", "heads/mine", "--quiet"]
    assert run([*asked, "--rank", "2", "--tokens", "16", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert set(card["metrics"]["dev"]) == {"score"} and card["data"]["lamps"]["train"] > 30
