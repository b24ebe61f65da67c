"""Tiny evaluation sets, written anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

CORPUS: list[dict[str, Any]] = [
    {
        "id": "d1",
        "title": "Mira Holm",
        "text": "Mira Holm built the Skagen lighthouse. She was born in Tarn.",
    },
    {"id": "d2", "title": "Tarn", "text": "Tarn is a town on the river Ouse. It has a glass museum."},
    {
        "id": "d3",
        "title": "Ouse",
        "text": "The river Ouse flows through Tarn and Velby. It freezes in winter.",
    },
    {
        "id": "d4",
        "title": "Velby",
        "text": "Velby is known for its clock tower. The tower is forty metres high.",
    },
    {"id": "d5", "title": "Odd Lund", "text": "Odd Lund painted harbours. He taught in Velby for ten years."},
    {"id": "d6", "title": "Skagen", "text": "Skagen has a lighthouse. Many painters lived there."},
]
QUESTIONS: list[dict[str, Any]] = [
    {
        "id": "q1",
        "question": "On which river is the town where Mira Holm was born?",
        "answer": "Ouse",
        "answers": ["Ouse", "the river Ouse"],
        "gold": ["d1", "d2"],
        "supporting_sentences": [
            ["d1", "She was born in Tarn."],
            ["d2", "Tarn is a town on the river Ouse."],
        ],
    },
    {
        "id": "q2",
        "question": "How high is the clock tower of the town where Odd Lund taught?",
        "answer": "forty metres",
        "answers": ["forty metres"],
        "gold": ["d5", "d4"],
    },
    {"id": "q3", "question": "Is Velby a river?", "answer": "no", "answers": ["no"], "gold": ["d4"]},
]
READING: list[dict[str, Any]] = [
    {
        "id": "r1",
        "title": "Tarn",
        "context": "Tarn is a town on the river Ouse. It has a glass museum.",
        "question": "Which museum is in Tarn?",
        "answers": [{"text": "a glass museum", "start": 41}],
        "answerable": True,
    },
    {
        "id": "r2",
        "title": "Tarn",
        "context": "Tarn is a town on the river Ouse. It has a glass museum.",
        "question": "Who is the mayor?",
        "answers": [],
        "answerable": False,
    },
    {
        "id": "r3",
        "title": "Velby",
        "context": "Velby is known for its clock tower.",
        "question": "What is Velby known for?",
        "answers": [{"text": "clock tower", "start": 23}],
        "answerable": True,
    },
]

WriteLines = Callable[[Path, Iterable[Mapping[str, Any]]], None]


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def write_lines() -> WriteLines:
    return _write


@pytest.fixture
def multihop_set(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "towns"
    _write(folder / "corpus.jsonl", CORPUS)
    _write(folder / "questions.jsonl", QUESTIONS)
    return folder


@pytest.fixture
def reading_set(tmp_path: Path) -> Path:
    folder = tmp_path / "reading" / "towns"
    _write(folder / "test.jsonl", READING)
    _write(folder / "train.jsonl", READING[:1])
    return folder
