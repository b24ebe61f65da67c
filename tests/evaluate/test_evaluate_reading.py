"""eval reading: figures by hand from readings that are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentmtl.errors import IngestError
from agentmtl.evaluate.reading import evaluate_reading, reading_metrics, said
from agentmtl.evaluate.reading_examples import ReadingExample, is_dev, occurrences, read_examples
from agentmtl.experts.reading import Calibration, Reading, Span
from agentmtl.learn.cloze import cloze_examples
from agentmtl.schema import Document
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import save_head
from tests.trunk.tiny import random_head, tiny_trunk

TEXT = "The bridge was opened in 1890 by Anna Berg."
YES, NO = (0.0, 5.0, -5.0), (0.0, -5.0, 5.0)


def reading(start: int, end: int, margin: float, kinds: tuple[float, ...] = (5.0, 0.0, 0.0)) -> Reading:
    return Reading((Span(0, start, end, margin, margin),), kinds)


def test_metrics_by_hand() -> None:
    examples = [
        ReadingExample("1", "g", "When?", TEXT, "", ((25, 29),)),
        ReadingExample("2", "g", "Who?", TEXT, "", ((33, 42),)),
        ReadingExample("3", "g", "Was it opened?", TEXT, kind="yes"),
        ReadingExample("4", "g", "Who painted it?", TEXT, kind="none"),
    ]
    found = {
        0: reading(25, 29, 3.0),
        1: reading(38, 42, 2.0),
        2: reading(0, 3, 1.0, YES),
        3: reading(0, 3, -4.0),
    }
    assert [said(e, found[n]) for n, e in enumerate(examples)] == ["1890", "Berg", "yes", "The"]
    metrics = {
        name: statistic.value
        for name, statistic in reading_metrics(
            examples, found, Calibration((1.0, 0, 0, 0), (1.0, 0, 0, 0), 0.6)
        ).items()
    }
    assert metrics["em"] == pytest.approx(2 / 3) and metrics["auroc"] == 1.0
    assert metrics["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert metrics["coverage"] == 0.75 and metrics["precision"] == pytest.approx(2 / 3)
    assert 0 < metrics["ece"] < 0.5


def test_a_context_where_the_answer_is_elsewhere_counts_for_nothing_else() -> None:
    examples = [
        ReadingExample("1", "g", "When?", TEXT, kind="elsewhere"),
        ReadingExample("2", "g", "When?", TEXT, "", ((25, 29),)),
        ReadingExample("3", "g", "Who painted it?", TEXT, kind="none"),
    ]
    found = {
        0: Reading((Span(0, 0, 3, 9.0, 9.0),), (5.0, 0.0, 0.0), -2.0),
        1: reading(25, 29, 3.0),
        2: reading(0, 3, -4.0),
    }
    calibration = Calibration((1.0, 0, 0, 0), (1.0, 0, 0, 0), threshold=0.6)
    metrics = {n: s.value for n, s in reading_metrics(examples, found, calibration).items()}
    assert metrics["here"] == metrics["auroc"] == metrics["em"] == metrics["precision"] == 1.0
    assert metrics["coverage"] == 0.5
    assert "here" not in reading_metrics(examples[1:], {0: found[1], 1: found[2]})


def test_titles_head_the_text_and_spans_follow() -> None:
    example = ReadingExample("1", "g", "When?", TEXT, "The bridge", ((25, 29),))
    ((start, end),) = example.text_spans
    assert example.text.startswith("The bridge. ") and example.text[start:end] == "1890"
    assert example.accepted == ["1890"]


def test_whole_words_in_any_case() -> None:
    assert occurrences("Anna, anna and Annabel", ["Anna"]) == ((0, 4), (6, 10))


def test_reading_and_multihop_sets_are_read(tmp_path: Path) -> None:
    row = {"id": "a", "title": "T", "context": TEXT, "question": "When?", "answerable": True}
    (tmp_path / "r").mkdir()
    path = tmp_path / "r" / "train.jsonl"
    path.write_text(json.dumps({**row, "answers": [{"text": "1890", "start": 25}]}) + "\n")
    assert read_examples(tmp_path / "r")[0].spans == ((25, 29),)
    path.write_text(json.dumps({**row, "answers": [{"text": "1890", "start": 3}]}) + "\n")
    with pytest.raises(IngestError, match="start"):
        read_examples(tmp_path / "r")
    hops = tmp_path / "m"
    hops.mkdir()
    corpus = [
        {"id": "x", "title": "X", "text": TEXT},
        {"id": "y", "title": "Y", "text": "Anna Berg was born in Oslo."},
    ]
    questions = [
        {"id": "1", "question": "Where was she born?", "answers": ["Oslo"], "gold": ["x", "y"]},
        {"id": "2", "question": "Is it open?", "answers": ["yes"], "gold": ["x"]},
    ]
    (hops / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in corpus))
    (hops / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in questions))
    kinds = sorted((e.id, e.kind) for e in read_examples(hops))
    assert [k for _, k in kinds].count("span") == 2 and ("2", "yes") in kinds
    assert sum(k == "none" for _, k in kinds) == 1


def test_dev_is_a_share_of_the_groups_and_the_same_each_time() -> None:
    share = sum(is_dev(f"group {i}", 0.2) for i in range(2_000)) / 2_000
    assert 0.16 < share < 0.24 and is_dev("a", 1.0) and not is_dev("a", 0.0)


def test_cloze_questions_have_their_answer_or_none() -> None:
    text = (
        "The clockmaker John Harrison built the H4 timekeeper in 1759 in London for the Board of Longitude. "
    )
    documents = [
        Document(f"d{i}", text + f"It was tested by William Harrison in {1760 + i}.") for i in range(40)
    ]
    made = cloze_examples(documents, 50, seed=3)
    assert len(made) == 50 and made == cloze_examples(documents, 50, seed=3)
    assert {e.kind for e in made} == {"span", "none"}
    for example in made:
        assert example.question.endswith("?")
        assert all(example.context[a:b] for a, b in example.spans)


def test_a_head_is_measured(tmp_path: Path) -> None:
    files = tiny_trunk(tmp_path / "trunk")
    save_head(random_head(files), tmp_path / "head")
    network = HeadNetwork(tmp_path / "head", files, ("torch-fp32",), tmp_path)
    rows = [
        {"id": str(i), "title": "T", "context": TEXT, "question": f"When {i}?", "answerable": i % 3 > 0,
         "answers": [{"text": "1890", "start": 25}] if i % 3 else []}
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = evaluate_reading(tmp_path, {"one": network, "two": network})
    assert report.n == 12 and report.default == "two"
    assert {"f1", "em", "auroc", "ece"} <= report.methods["one"].keys()
    assert report.differences["one - two"]["f1"].mean == 0.0
    assert report.details["heads"]["one"]["bytes"] == network.bytes
