"""Task cards and files of labelled examples: what is read, and what is said of a bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentmtl.errors import IngestError, UsageError
from agentmtl.ingest.demonstrations import parse_demonstration, read_demonstrations
from agentmtl.schema import Demonstration, Unit
from agentmtl.tasks import KINDS, Task, load_task

TOML = """
name = "weather"
kind = "classification"
instruction = "Say what the sky does."
labels = ["rain", "sun"]
avoid = ["guessing"]
metric = "accuracy"
"""


def test_a_card_reads_the_same_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(TOML)
    task = load_task(tmp_path / "card.toml")
    assert task.labels == ("rain", "sun") and task.avoid == ("guessing",) and task.metric == "accuracy"
    (tmp_path / "card.json").write_text(json.dumps(task.to_json()))
    assert load_task(tmp_path / "card.json") == task


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_survives_json(kind: Any) -> None:
    task = Task("t", kind, "do it", "what it is", ("a",), {"type": "object"}, ("b",), "em")
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_keys_that_are_not_a_cards_are_left_out() -> None:
    data = {"name": "t", "kind": "answer", "labels": None, "licence": "CC0", "records": {"train": 1}}
    assert Task.from_json(data) == Task("t", "answer")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "name"),
        ({"kind": "sorting"}, "sorting"),
        ({"labels": "rain"}, "labels"),
        ({"labels": [1]}, "labels"),
        ({"instruction": 3}, "instruction"),
    ],
)
def test_a_bad_card_is_refused_by_file_and_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"name": "t", "kind": "answer"} | change))
    with pytest.raises(UsageError, match="card.json") as caught:
        load_task(path)
    assert said in caught.value.message and caught.value.hint


@pytest.mark.parametrize("raw", ["{", "[]", ""])
def test_what_is_no_card_is_refused(tmp_path: Path, raw: str) -> None:
    (tmp_path / "card.json").write_text(raw)
    with pytest.raises(UsageError, match="card.json"):
        load_task(tmp_path / "card.json")
    with pytest.raises(UsageError, match="gone.toml"):
        load_task(tmp_path / "gone.toml")


def test_examples_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"input": "is it wet", "output": "rain"}\n\n'
        '{"input": "which", "output": "b", "choices": ["a", "b"], "answer_index": 1, "more": 1}\n'
    )
    first, second = read_demonstrations(path, "t")
    assert first == Demonstration("t", "is it wet", "rain")
    assert second == Demonstration("t", "which", "b", ("a", "b"), 1)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"input": "x"}',
        '{"input": " ", "output": "y"}',
        '{"input": "x", "output": 1}',
        '{"input": "x", "output": "a", "choices": "ab", "answer_index": 0}',
        '{"input": "x", "output": "a", "choices": ["a"], "answer_index": 1}',
        '{"input": "x", "output": "a", "choices": ["a"]}',
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"input": "good", "output": "yes"}\n' + line + "\n")
    with pytest.raises(IngestError, match=r"train\.jsonl, line 2,"):
        list(read_demonstrations(path, "t"))


def test_the_same_example_has_the_same_id() -> None:
    line = '{"input": "x", "output": "a", "choices": ["a", "b"], "answer_index": 0}'
    one, two = (parse_demonstration(line, "t", "here") for _ in range(2))
    assert one.source_id == two.source_id
    others = [
        Demonstration("u", "x", "a", ("a", "b"), 0),
        Demonstration("t", "x", "b", ("a", "b"), 1),
        Demonstration("t", "x", "a"),
    ]
    assert len({one.source_id, *(d.source_id for d in others)}) == 4


def test_an_example_survives_the_form_an_index_holds_it_in() -> None:
    for example in (Demonstration("t", "x", "a", ("a", "b"), 0), Demonstration("t", "x", "")):
        document = example.to_document()
        unit = Unit("id", "demonstration", document.text, document.source_id, metadata=document.metadata)
        assert document.is_demonstration and Demonstration.from_unit(unit) == example
