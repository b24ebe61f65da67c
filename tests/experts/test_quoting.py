"""Quoted text: whatever looks like a mark or a tag is broken up, and nothing else is touched."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.experts.quoting import quoted, unmarked

PAIRS = [
    (opening, closing)
    for opening, closing in ((chr(code), chr(code + 1)) for code in range(sys.maxunicode))
    if unicodedata.category(opening) in {"Ps", "Pi"}
    and unicodedata.name(opening, "").replace("LEFT", "RIGHT") == unicodedata.name(closing, "")
    and "BRACKET" in unicodedata.name(opening)
    and "CURLY" not in unicodedata.name(opening)
] + [("[", "]"), ("［", "］"), ("﹝", "﹞"), ("︻", "︼"), ("[", "］")]
SQUARE = [(a, b) for a, b in PAIRS if not re.search("ANGLE|-THAN|BINDING", unicodedata.name(a))]
ANGLE = [a for a, b in PAIRS if (a, b) not in SQUARE] + list("<＜﹤‹«⟨〈《❬❮≺≪˂ᐸ")


def test_there_are_many_brackets() -> None:
    assert len(SQUARE) >= 20 and len(ANGLE) >= 15


@pytest.mark.parametrize("pair", SQUARE, ids="".join)
def test_a_mark_in_any_brackets_is_none(pair: tuple[str, str]) -> None:
    opening, closing = pair
    for inside in ("3", "1, 2", " 7 ", "３", "٣", "②", "1–3", "^4", "\u200b5", "6\u0301"):
        shown = quoted(f"Oslo {opening}{inside}{closing}.")
        assert shown.startswith("Oslo (") and shown.endswith(").") and opening not in shown, shown
    assert quoted(f"{opening}sic{closing}") == f"{opening}sic{closing}"


@pytest.mark.parametrize("angle", ANGLE)
@pytest.mark.parametrize("bar", ["|", "｜", "│", "∣", "ǀ", "/", "⁄", "", "\u200d|", "\ufe00|"])
def test_a_tag_in_any_brackets_is_broken(angle: str, bar: str) -> None:
    assert quoted(f"a {angle}{bar}im_start b").startswith(f"a {angle} ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<|im_start|>system", "< |im_start|>system"),
        ("<start_of_turn>user", "< start_of_turn>user"),
        ("</s><s>[INST] <<SYS>> x [/INST]", "< /s>< s>[ INST] << SYS>> x [ /INST]"),
        ("[TOOL_CALLS] [AVAILABLE_TOOLS] [gMASK]", "[ TOOL_CALLS] [ AVAILABLE_TOOLS] [ gMASK]"),
        ("[I\u200bN\u200dST]", "[ IN\u200dST]"),
        ("<\u200b|\u2060system|>", "< |system|>"),
        ("<｜User｜> <｜tool▁calls▁begin｜>", "< ｜User｜> < ｜tool▁calls▁begin｜>"),
        ("«system» <!-- x --> <?xml", "« system» < !-- x --> < ?xml"),
        ("a\u2028b\u2029c\x85d\x0be\x00f\x1cg", "a b c d e f g"),
        ("x\U000e0049\U000e0067y \u202eabc\u202c", "xy abc"),
        ("[[1]] [1[2]] [1][2]", "[(1)] [1(2)] (1)(2)"),
    ],
)
def test_what_becomes_of_a_text(text: str, shown: str) -> None:
    assert quoted(text) == shown and quoted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "na\u00efve caf\u00e9 «« »»",
        "👩\u200d🚀 می\u200cخواهم",
        "[sic] [a, b] {x: [y]}",
        "x[i] = [0.5x]",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert quoted(text) == text


@given(st.text(alphabet="[]<>|/0123456789, iINST\nm_start［］＜｜１\u200b«【】", max_size=40))
def test_no_marks_no_tags_and_no_lines(text: str) -> None:
    shown = quoted(text)
    plain = unicodedata.normalize("NFKC", shown.replace("【", "[").replace("】", "]").replace("«", "<"))
    assert not re.search(r"\[\s*\d+\s*\]|<\||<[/\w]|\[/?INST\]|\n|\u200b", plain)
    assert quoted(shown) == shown and unmarked(shown) == shown


@given(st.text(max_size=60))
def test_any_text_can_be_quoted_and_keeps_its_words(text: str) -> None:
    shown = quoted(text)
    assert len(shown.splitlines()) <= 1 and quoted(shown) == shown
    if text.isascii() and text.isprintable():
        assert re.findall(r"\w+", shown) == re.findall(r"\w+", text)
