"""Kinds of answers by rule."""

from __future__ import annotations

import pytest

from agentmtl.experts.answer_type import type_match, wanted_type


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("When was it built?", "date"),
        ("In what year did the man who built it die?", "date"),
        ("How many rooms has the house where he lived?", "number"),
        ("Who was king when it was built?", "name"),
        ("Which city is it in?", "name"),
        ("What is it made of?", "any"),
        ("", "any"),
    ],
)
def test_the_earliest_words_say_what_is_wanted(question: str, wanted: str) -> None:
    assert wanted_type(question) == wanted


def test_an_answer_fits_or_not() -> None:
    assert type_match("When was it built?", "in March") == type_match("When?", "1759") == 1.0
    assert type_match("When was it built?", "Yorkshire") == -1.0
    assert type_match("How many?", "three") == 1.0 and type_match("How many?", "Foulby") == -1.0
    assert type_match("Who?", "John Harrison") == 1.0 and type_match("Who?", "1759") == -1.0
    assert type_match("Who?", "the clockmaker") == -1.0 and type_match("Why?", "rain") == 0.0
