"""Readers of evaluation folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentmtl.errors import IngestError, UsageError
from agentmtl.evaluate.datasets import (
    documents,
    find_sets,
    kind_of,
    read_multihop,
    read_reading,
    read_set,
    sample,
    without_titles,
)

from .conftest import CORPUS, QUESTIONS, WriteLines


def test_a_multihop_set_is_read_whole(multihop_set: Path) -> None:
    data = read_multihop(multihop_set)
    assert (data.name, data.kind, len(data.documents), len(data.questions)) == ("towns", "multihop", 6, 3)
    assert data.documents[0].source_id == "d1" and data.documents[0].title == "Mira Holm"
    first = data.questions[0]
    assert first.gold == ("d1", "d2") and first.answers == ("Ouse", "the river Ouse")
    assert first.supporting[1] == ("d2", "Tarn is a town on the river Ouse.")
    assert data == read_set(multihop_set)


def test_the_hashes_tell_corpus_and_questions_apart(multihop_set: Path, write_lines: WriteLines) -> None:
    before = read_multihop(multihop_set)
    write_lines(multihop_set / "questions.jsonl", QUESTIONS[:2])
    after = read_multihop(multihop_set)
    assert after.corpus_sha256 == before.corpus_sha256 and after.sha256 != before.sha256
    write_lines(multihop_set / "corpus.jsonl", [*CORPUS, {"id": "d7", "text": "New."}])
    assert read_multihop(multihop_set).corpus_sha256 != before.corpus_sha256


def test_other_plain_fields_become_metadata(tmp_path: Path, write_lines: WriteLines) -> None:
    record = {"id": "a", "text": "T.", "year": 1999, "tags": ["x", "y"], "nested": {"no": 1}, "title": None}
    write_lines(tmp_path / "corpus.jsonl", [record])
    (document,) = documents(tmp_path / "corpus.jsonl")
    assert document.metadata == {"year": 1999, "tags": ["x", "y"]} and document.title == ""


def test_titles_that_only_some_have_are_noticed(multihop_set: Path, write_lines: WriteLines) -> None:
    assert not read_multihop(multihop_set).uneven_titles
    write_lines(multihop_set / "corpus.jsonl", [*CORPUS, {"id": "d7", "title": "", "text": "New."}])
    data = read_multihop(multihop_set)
    assert data.uneven_titles
    assert not any(document.title for document in without_titles(data.documents))


def test_null_answers_are_no_answers(multihop_set: Path, write_lines: WriteLines) -> None:
    write_lines(
        multihop_set / "questions.jsonl",
        [
            {"id": "a", "question": "?", "answer": None, "answers": [], "gold": ["d1"]},
            {"id": "b", "question": "?", "answer": "one", "gold": ["d1", "d1"]},
        ],
    )
    first, second = read_multihop(multihop_set).questions
    assert first.answers == () and second.answers == ("one",) and second.gold == ("d1",)


def test_a_reading_set_shares_its_contexts(reading_set: Path) -> None:
    data = read_reading(reading_set)
    assert (data.kind, len(data.documents), len(data.questions)) == ("reading", 2, 3)
    answerable, unanswerable, other = data.questions
    assert answerable.gold == (data.documents[0].source_id,) and other.gold == (data.documents[1].source_id,)
    assert not unanswerable.answerable and unanswerable.gold == () and unanswerable.answers == ()
    assert data.documents[0].title == "Tarn" and data.documents[0].source_id.startswith("context-")
    assert len(read_reading(reading_set, "train").questions) == 1


def test_a_folder_of_sets_is_found_with_what_is_no_set(
    multihop_set: Path, tmp_path: Path, write_lines: WriteLines
) -> None:
    root = multihop_set.parent
    shutil.copytree(multihop_set, root / "again")
    write_lines(root / "labels" / "train.jsonl", [{"input": "x", "output": "y"}])
    (root / "note.txt").write_text("not a folder")
    found = find_sets(root)
    assert [path.name for path in found.sets] == ["again", "towns"]
    assert found.skipped == ("labels",) and not found.single
    assert find_sets(multihop_set).single
    assert kind_of(root / "labels") is None


@pytest.mark.parametrize("make", [True, False], ids=["empty", "missing"])
def test_a_wrong_folder_says_what_a_set_is(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(UsageError) as caught:
        find_sets(folder)
    assert "corpus.jsonl" in caught.value.hint and "test.jsonl" in caught.value.hint


def test_a_set_of_the_other_form_is_refused(reading_set: Path) -> None:
    with pytest.raises(UsageError, match="no evaluation set"):
        find_sets(reading_set, ["multihop"])
    with pytest.raises(UsageError, match="corpus.jsonl"):
        read_multihop(reading_set)
    with pytest.raises(UsageError, match="dev.jsonl"):
        read_reading(reading_set, "dev")


@pytest.mark.parametrize(
    "file, line, message",
    [
        ("corpus.jsonl", "{broken", "corpus.jsonl:1 is not JSON"),
        ("corpus.jsonl", "[1]", "corpus.jsonl:1 is not a JSON object"),
        ("corpus.jsonl", '{"text": "x"}', "corpus.jsonl:1 has no text 'id'"),
        ("corpus.jsonl", '{"id": "a", "text": "x"}\n\n{"id": "a", "text": "y"}', "corpus.jsonl:3 repeats"),
        ("corpus.jsonl", "", "corpus.jsonl is empty"),
        ("questions.jsonl", "", "questions.jsonl is empty"),
        ("questions.jsonl", '{"id": "q", "question": "?", "gold": ["zz"]}', "gold 'zz'"),
        ("questions.jsonl", '{"id": "q", "question": "?", "gold": "d1"}', "'gold' that is no list"),
        ("questions.jsonl", '{"id": "q", "question": "?", "supporting_sentences": [["d1"]]}', "supporting"),
    ],
)
def test_a_bad_line_is_named(multihop_set: Path, file: str, line: str, message: str) -> None:
    (multihop_set / file).write_text(line, encoding="utf-8")
    with pytest.raises(IngestError) as caught:
        read_multihop(multihop_set)
    assert message in caught.value.message and caught.value.hint


def test_bytes_that_are_no_text_are_named(multihop_set: Path) -> None:
    (multihop_set / "corpus.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(IngestError, match="UTF-8"):
        read_multihop(multihop_set)


def test_a_limit_draws_in_order_by_seed() -> None:
    items = list(range(100))
    drawn = sample(items, 10, seed=3)
    assert drawn == sample(items, 10, seed=3) and list(drawn) == sorted(drawn) and len(set(drawn)) == 10
    assert drawn != sample(items, 10, seed=4)
    assert sample(items, None, 0) == sample(items, 100, 0) == tuple(items)
    with pytest.raises(UsageError):
        sample(items, 0, 0)
