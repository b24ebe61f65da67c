"""Answers measured end to end with an agent whose answers are known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest

from agentmtl.errors import UsageError
from agentmtl.evaluate import Question, evaluate_answers
from agentmtl.evaluate.answers import Judged, judge, same_sentence, sentence_scores, statistics
from agentmtl.evaluate.metrics import risk_coverage
from agentmtl.evaluate.plot import plot_risk_coverage
from agentmtl.evaluate.report import Report, SetsReport
from agentmtl.retrieval.index import Index
from agentmtl.schema import Answer, Citation, Usage
from agentmtl.trunk import HashingEncoder

ENCODER = HashingEncoder(128)


def _citation(source: str, text: str) -> Citation:
    return Citation(1, "0" * 24, source, 0, len(text), text)


def _answer(
    *cited: tuple[str, str], confidence: float = 0.9, abstained: bool = False, text: str = ""
) -> Answer:
    citations = tuple(_citation(source, sentence) for source, sentence in cited)
    said = text or " ".join(sentence for _, sentence in cited)
    return Answer("?", said, citations, confidence, abstained, "test", Usage(calls=1))


class BestSentence:
    """Cites the best sentence; as sure as the words it shares with the question."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def ask(self, question: str) -> Answer:
        hit = self.index.retrieve(question, level="sentence", k=1)[0]
        share = len(set(question.lower().split()) & set(hit.text.lower().split())) / len(question.split())
        answer = _answer((hit.unit.source_id, hit.text), confidence=share, abstained=share < 0.3)
        return replace(answer, question=question)


def _evaluate(data: Path, root: Path, **options: object) -> Report:
    report = evaluate_answers(data, BestSentence, index_root=root, encoder=ENCODER, **options)  # type: ignore[arg-type]
    assert isinstance(report, Report)
    return report


# --- one answer ---------------------------------------------------------------------------------------


def test_an_answer_counts_where_a_cited_sentence_holds_it() -> None:
    question = Question("q", "?", ("Ouse",), ("d1", "d2"), (("d2", "It is on the Ouse."),))
    judged = judge(question, _answer(("d2", "It is on the  Ouse."), ("d9", "Nothing.")))
    assert (judged.found, judged.correct, judged.answered) == (1, 1, True)
    assert (judged.sentence_precision, judged.sentence_recall, judged.source_recall) == (0.5, 1, 0.5)
    assert judge(question, _answer(("d2", "Another sentence."))).correct == 0


def test_yes_and_no_cannot_be_found_in_a_sentence() -> None:
    judged = judge(Question("q", "?", ("no",), ("d1",)), _answer(("d1", "There is no such town.")))
    assert isnan(judged.found) and isnan(judged.correct) and judged.source_recall == 1


def test_a_claim_about_the_unanswerable_is_wrong_and_silence_is_right() -> None:
    question = Question("q", "?", answerable=False)
    claim, silence = judge(question, _answer(("d1", "x"))), judge(question, _answer(abstained=True))
    assert (claim.correct, claim.em) == (0, 0) and silence.em == silence.f1 == 1 and isnan(claim.found)


def test_an_abstained_answer_says_nothing_but_its_evidence_is_judged() -> None:
    judged = judge(Question("q", "?", ("Ouse",)), _answer(("d2", "Ouse"), abstained=True))
    assert (judged.found, judged.em, judged.answered) == (1, 0, False)


@pytest.mark.parametrize(
    "cited, gold, same",
    [
        (("d", "A  b\nc d."), ("d", "A b c d."), True),
        (("d", "A b c d."), ("e", "A b c d."), False),
        (("d", "(See 1.) " + "x" * 40), ("d", "x" * 40), True),
        (("d", "x" * 40 + " and much more than that."), ("d", "x" * 40), False),
        (("d", ""), ("d", ""), False),
        (("d", "a" * 20 + "b"), ("d", "a" * 20 + "c"), False),
    ],
)
def test_sentences_match_up_to_white_space_and_a_fifth(
    cited: tuple[str, str], gold: tuple[str, str], same: bool
) -> None:
    assert same_sentence(cited, gold) is same and same_sentence(gold, cited) is same


def test_sentence_scores_without_citations_or_gold() -> None:
    precision, recall = sentence_scores([], [("d", "x")])
    assert isnan(precision) and recall == 0
    assert all(isnan(score) for score in sentence_scores([_citation("d", "x")], []))


def test_coverage_and_precision_show_the_threshold_at_work() -> None:
    nan = float("nan")
    rows = [(0.9, True, True, 1.0), (0.8, True, True, 0.0), (0.2, False, True, 1.0), (0.1, False, False, 0.0)]
    judged = [
        Judged(confidence, answered, answerable, correct if answerable else nan, correct, 0, 0, nan, nan, nan)
        for confidence, answered, answerable, correct in rows
    ]
    values = {name: statistic.value for name, statistic in statistics(judged).items() if len(statistic)}
    assert values["coverage"] == 0.5 and values["precision"] == 0.5
    assert values["answer-in-citations"] == pytest.approx(2 / 3)
    assert values["auroc"] == 1 and values["auroc-correct"] == pytest.approx(3 / 4)
    assert values["abstained-answerable"] == pytest.approx(1 / 3) and values["abstained-unanswerable"] == 1
    assert values["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


# --- whole sets ---------------------------------------------------------------------------------------


def test_a_multihop_set_is_measured(multihop_set: Path, tmp_path: Path) -> None:
    asked: list[int] = []
    report = _evaluate(multihop_set, tmp_path / "indexes", asked=asked.append)
    metrics = report.methods["agent"]
    assert {"answer-in-citations", "coverage", "gold-sentence-precision", "gold-sentence-recall"} <= set(
        metrics
    )
    assert "auroc" not in metrics  # every question has an answer
    assert report.details["counts"] == {
        "answerable": 3, "unanswerable": 0, "judged": 2, "gold_sentences": 1
    }  # fmt: skip
    assert sum(asked) == 3 and report.details["usage"]["calls"] == 3


def test_a_reading_set_is_measured_and_drawn(reading_set: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "plots" / "curve.png"
    report = _evaluate(reading_set, tmp_path / "indexes", plot=picture)
    assert {"auroc", "auroc-correct", "aurc", "ece", "em", "f1"} <= set(report.methods["agent"])
    assert report.details["counts"]["unanswerable"] == 1
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["default"] == "agent" and data["n"] == 3 and data["details"]["risk_coverage"][-1][0] == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "gold-source-recall" in report.to_text()


def test_both_forms_in_a_folder_share_the_metrics_they_have(
    multihop_set: Path, reading_set: Path, tmp_path: Path
) -> None:
    reading_set.rename(multihop_set.parent / "passages")
    report = evaluate_answers(
        multihop_set.parent, BestSentence, index_root=tmp_path / "indexes", encoder=ENCODER
    )
    assert isinstance(report, SetsReport) and [r.data for r in report.sets] == ["passages", "towns"]
    assert "coverage" in report.macro["agent"] and "auroc" not in report.macro["agent"]


def test_a_missing_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    curve = risk_coverage([0.5], [True])
    with pytest.raises(UsageError) as caught:
        plot_risk_coverage({"agent": curve}, tmp_path / "x.png", "title")
    assert "pip install" in caught.value.hint


def test_a_plot_needs_a_known_format_and_a_point(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="x.doc"):
        plot_risk_coverage({"a": risk_coverage([0.5], [True])}, tmp_path / "x.doc", "title")
    with pytest.raises(UsageError, match="no curve"):
        plot_risk_coverage({"a": risk_coverage([], [])}, tmp_path / "x.png", "title")
