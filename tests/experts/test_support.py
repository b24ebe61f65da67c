"""The confidence model: what its features see, how it loads, and that it ranks as it should."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.experts.support import SupportModel, first_hop
from agentmtl.experts.support_features import PassageEvidence, SentenceEvidence, stem, support_features
from agentmtl.index.tokens import words
from agentmtl.schema import Evidence, Hit, Unit

LEAD = "The Tay Bridge was opened in June 1878."
ANSWER = "It was designed by Thomas Bouch, who was knighted for the largest bridge of its time."
TAIL = "The bridge fell in December 1879."
PASSAGE = PassageEvidence(f"{LEAD} {ANSWER} {TAIL}", 0.6, "Tay Bridge")
BEST = SentenceEvidence(ANSWER, 0.55)
PACKAGED = SupportModel.load()


def idf(question: str) -> dict[str, float]:
    return {word: 1.0 + 0.5 * len(word) for word in words(question)}


def features(question: str) -> dict[str, float]:
    return support_features(question, [BEST], [PASSAGE], idf(question))


@pytest.fixture(scope="module")
def model() -> SupportModel:
    return PACKAGED


# --- features ---------------------------------------------------------------------------------------


def test_a_question_in_the_words_of_the_passage_misses_nothing() -> None:
    found = features("Who designed the Tay Bridge?")
    assert found["passage_missing"] == 0
    assert found["passage_rarest_missing"] == 0
    assert found["passage_names_missing"] == 0
    assert found["sentence_coverage"] < 1  # "Tay" is in the neighbour only
    assert found["window_rarest_missing"] == 0
    assert found["sentence_rarest_missing"] > 0


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Who designed the Forth Bridge?", "passage_names_missing"),
        ("What fell in 1885?", "passage_numbers_missing"),
        ("What fell in 1885?", "sentence_numbers_missing"),
        ("Who did not design the bridge?", "denied"),
        ("Who didn't design the bridge?", "sentence_denied_alone"),
        ("Who designed the smallest bridge?", "sentence_opposite"),
        ("Who designed the smallest bridge?", "passage_superlative_missing"),
        ("Who was unknighted?", "sentence_prefixed"),
        ("Which aqueduct was designed by Bouch?", "passage_missing"),
        ("How many arches did Bouch design?", "sentence_type_missing"),
    ],
)
def test_what_is_turned_round_or_missing_shows(question: str, name: str) -> None:
    assert features(question)[name] > 0
    assert features("Who designed the bridge of Bouch?")[name] == 0


def test_words_that_only_name_the_kind_of_answer_do_not_count_as_missing() -> None:
    found = features("What is the name of the person who designed the bridge?")
    assert found["passage_rarest_missing"] == 0
    assert found["top_missing_specific"] == 0


def test_inflections_are_the_same_word() -> None:
    assert stem(words("designed")[0]) == stem(words("designing")[0]) == stem(words("designs")[0])
    assert features("Who designs bridges?")["passage_missing"] == 0


def test_cosines_come_from_the_evidence() -> None:
    sentences = [BEST, SentenceEvidence("Elsewhere.", 0.7, 1)]
    passages = [PASSAGE, PassageEvidence("Elsewhere.", 0.4), PassageEvidence("By words only.", None)]
    found = support_features("Who?", sentences, passages, {})
    assert found["cosine_max"] == 0.7
    assert found["passage_cosine"] == 0.6
    assert found["passage_gap"] == pytest.approx(0.2)


@given(
    question=st.text(max_size=60),
    sentence=st.text(max_size=60),
    around=st.text(max_size=60),
    cosine=st.floats(-1, 1),
    known=st.one_of(st.none(), st.floats(-1, 1)),
)
def test_any_text_gives_finite_features_and_a_probability(
    question: str, sentence: str, around: str, cosine: float, known: float | None
) -> None:
    passages = [PassageEvidence(around + sentence + around, known, around)]
    found = support_features(question, [SentenceEvidence(sentence, cosine)], passages, idf(question))
    assert all(math.isfinite(value) for value in found.values())
    assert 0 <= PACKAGED.probability(found) <= 1


# --- the model --------------------------------------------------------------------------------------


def test_the_packaged_model_asks_for_features_that_exist_and_names_its_data(model: SupportModel) -> None:
    assert set(model.features) <= set(features("Who?"))
    assert 0 < model.threshold < 1
    assert "CC BY-SA 4.0" in model.card["data"]["licence"]
    assert model.card["cross_validation"]["auroc"] > 0.7


def test_supported_questions_score_above_changed_ones(model: SupportModel) -> None:
    def score(question: str, cosine: float = 0.55) -> float:
        return model.score(question, [SentenceEvidence(ANSWER, cosine)], [PASSAGE], idf(question))

    plain = score("Who designed the Tay Bridge?")
    assert plain > score("Who did not design the Tay Bridge?")
    assert plain > score("Who designed the Forth Bridge in 1890?")
    assert plain > score("Who designed the Tay Bridge?", cosine=0.1)
    assert plain > model.threshold


def test_no_evidence_is_no_support(model: SupportModel) -> None:
    assert model.score("Who?", [], [], {}) == 0.0


def test_json_round_trip(model: SupportModel, tmp_path: Path) -> None:
    path = tmp_path / "support.json"
    path.write_text(json.dumps(model.to_json()))
    again = SupportModel.load(path)
    found = features("Who designed the Tay Bridge?")
    assert again.probability(found) == model.probability(found)
    assert again.threshold == model.threshold


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 99},
        {"weights": [1.0]},
        {"scale": None},
        {"mean": "x"},
        {"threshold": "high"},
        {"bias": [1]},
    ],
)
def test_another_file_is_refused(model: SupportModel, tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "support.json"
    path.write_text(json.dumps({**model.to_json(), **damage}))
    with pytest.raises(UsageError, match="not a support model"):
        SupportModel.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", "\udcff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "support.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError):
        SupportModel.load(path)


def test_a_zero_scale_is_refused(model: SupportModel) -> None:
    data = model.to_json()
    with pytest.raises(ValueError, match="scale"):
        SupportModel.from_json({**data, "scale": [0.0] * len(model.features)})


# --- evidence ---------------------------------------------------------------------------------------


def hit(text: str, source: str, start: int, cosine: float | None, hop: int = 1) -> Hit:
    unit = Unit(f"{source}:{start}:{len(text)}", "sentence", text, source, start=start, end=start + len(text))
    return Hit(unit, 1.0, {} if cosine is None else {"dense": cosine}, hop=hop)


def test_only_the_first_hop_and_its_passages_count() -> None:
    passages = (hit("x" * 50, "a", 0, None), hit("y" * 50, "a", 50, 0.4))
    first = (hit("in y", "a", 60, 0.5), hit("stray", "b", 0, 0.8))
    every = (hit("hop two", "a", 10, 0.9, hop=2), *first)
    found, places = first_hop(Evidence("?", passages, every, first))
    assert found == [SentenceEvidence("in y", 0.5, 1)]
    assert [p.cosine for p in places] == [None, 0.4]


# --- training ---------------------------------------------------------------------------------------


def records() -> list[dict[str, object]]:
    """Six articles; a question about a town's own river can be answered, one about a canal cannot."""
    rows: list[dict[str, object]] = []
    for town, river in zip(
        ["Arl", "Bex", "Cor", "Dun", "Elm", "Fen"], ["Ine", "Ore", "Ume", "Ave", "Eye", "Oke"], strict=True
    ):
        context = f"{town} is a town. The river {river} flows through {town}. Its market is held weekly."
        asked = {"title": town, "context": context}
        answer = {"text": river, "start": context.index(river)}
        rows.append(
            {
                **asked,
                "question": f"Which river flows through {town}?",
                "answers": [answer],
                "answerable": True,
            }
        )
        rows.append(
            {**asked, "question": f"Who never dug the canal of {town}?", "answers": [], "answerable": False}
        )
    return rows


def test_training_separates_separable_questions_and_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    from agentmtl.learn import support as learn

    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(json.dumps(r) for r in records()))
    monkeypatch.setattr(learn, "FOLDS", 3)
    first = learn.train_support(data, tmp_path / "one.json", seed=1, encoder="hashing")
    learn.train_support(data, tmp_path / "two.json", seed=1, encoder="hashing")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert first.card["cross_validation"]["auroc"] == 1.0
    assert SupportModel.load(tmp_path / "one.json").features == first.features


def test_folds_share_no_article() -> None:
    from agentmtl.learn.support import folds_by_article

    articles = [a for a in "abcdefgh" for _ in range(3)]
    folds = folds_by_article(articles, seed=0)
    for rows, held_out in folds:
        assert not {articles[i] for i in rows} & {articles[i] for i in held_out}
    assert sorted(np.concatenate([h for _, h in folds]).tolist()) == list(range(len(articles)))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    from agentmtl.learn.support import train_support

    data = tmp_path / "other.jsonl"
    data.write_text('{"question": "?"}\n')
    with pytest.raises(UsageError, match="not a reading set"):
        train_support(data, tmp_path / "out.json")
