"""`agentmtl train segmenter`, and what then cuts by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentmtl.cli.main import _exit_code as run

from ..learn.test_segmenter import titles_folder


def test_from_texts_to_an_index_that_is_cut_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    titles_folder(tmp_path / "set")
    small = ["--rank", "6", "--documents", "9", "--epochs", "1", "--encoder", "hashing:64", "--json"]
    assert run(["train", "segmenter", "--data", "set", "--out", "heads/mine", *small]) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["task"] == "segmenter" and card["data"]["set"]["titles"]["map"] > 0
    document = {"id": "d", "sentences": ["One is here."] * 6, "boundaries": [3]}
    (tmp_path / "documents.jsonl").write_text(json.dumps(document) + "\n", "utf-8")
    named = ["--segmenter", "heads/mine", "--encoder", "hashing:64"]
    assert run(["eval", "segmentation", "--data", ".", *named, "--json"]) == 0
    assert "topics - likeness" in capsys.readouterr().out
    text = json.loads((tmp_path / "set/train.jsonl").read_text("utf-8").splitlines()[0])["context"]
    (tmp_path / "text.txt").write_text(text * 3, "utf-8")
    build = ["index", "build", "text.txt", "--chunker", "topics", "--out", "ix", "--quiet"]
    assert run([*build, *named]) == 0
    capsys.readouterr()
    settings = json.loads(next((tmp_path / "ix").glob("manifest-*.json")).read_text("utf-8"))
    assert str(tmp_path / "heads/mine") in json.dumps(settings)
    other = ["--segmenter", "heads/mine", "--encoder", "hashing:32"]
    assert run(["index", "build", "text.txt", "--chunker", "topics", "--out", "iy", "--quiet", *other]) == 2
