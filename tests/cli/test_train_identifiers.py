"""`agentmtl train identifiers`, and the search that uses what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentmtl import Document, Index
from agentmtl.cli.main import _exit_code as run

from ..learn.worlds import reading_set
from ..trunk.tiny import tiny_trunk


def test_from_questions_to_a_search_by_what_the_decoder_proposes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_trunk(tmp_path / "trunk")
    reading_set(tmp_path / "bridges", 40)
    asked = [
        "train",
        "identifiers",
        "--data",
        "bridges",
        "--out",
        "heads/mine",
        "--encoder",
        "trunk",
        "--quiet",
    ]
    assert run([*asked, "--epochs", "1", "--ranked", "8", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["task"] == "identifiers" and card["data"]["bridges"]["train"] > 0
    assert run([*asked, "--prompts", "spoken"]) == 2

    index = Index.create(tmp_path / "ix", encoder="hashing:16")
    index.add(
        Document(f"n{n}", f"The bridge number {n} of Molde was opened in {1700 + n}.") for n in range(120)
    )
    capsys.readouterr()
    found = ["search", "the bridge number 7 of Molde", "--index", "ix", "--proposer", "heads/mine", "--json"]
    assert run([*found, "--level", "sentence", "--channel", "identifiers"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert all(key["count"] >= 1 for hit in hits for key in hit["identifiers"])
    assert run([*found, "--level", "sentence"]) == 0
    assert "proposed" in json.loads(capsys.readouterr().out)["hits"][0]["channels"]
    assert run(found) == 2  # of passages the fusion does not ask it
    assert "--level sentence" in capsys.readouterr().out
    assert run([*found, "--hops", "2"]) == 2
    assert run([*found[:-3], "--proposer", "trunk"]) == 1
