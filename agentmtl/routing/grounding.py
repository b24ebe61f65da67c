"""Grounding: the exact places in the question and in the evidence that a decision rests on.

Whatever says where something stands, a model or a program, is compared with the stored text before anything
uses it; what does not read so is dropped, and said. Evidence never decides a route: places in it are looked
up after the choice, by the words that the question and the expert's card share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentmtl.experts.support_words import FUNCTION, GENERIC
from agentmtl.index.tokens import words
from agentmtl.routing.route import Span
from agentmtl.schema import Evidence, Hit

SPANS = 8  # of one decision, at most
_WORD = re.compile(r"\w+")
_PLAIN = FUNCTION | GENERIC


@dataclass(frozen=True, slots=True)
class Checked:
    """`spans` that read as they say, and why each of the others was dropped."""

    spans: tuple[Span, ...]
    dropped: tuple[str, ...]


def checked(given: Iterable[Any], question: str, evidence: Evidence | None = None) -> Checked:
    """The spans among `given`, {unit, start, end, text} each, whose text stands in that very place."""
    held, spans, dropped = _units(evidence), list[Span](), list[str]()
    for one in given:
        span = one if isinstance(one, Span) else _read(one)
        problem = "it is no {unit, start, end, text}" if span is None else _problem(span, question, held)
        if span is not None and not problem:
            spans.append(span)
        else:
            dropped.append(f"a span was dropped: {problem}")
    return Checked(tuple(spans[:SPANS]), tuple(dropped))


def _units(evidence: Evidence | None) -> dict[str, Hit]:
    hits = (*evidence.passages, *evidence.sentences) if evidence is not None else ()
    return {hit.id: hit for hit in hits}


def _read(given: Any) -> Span | None:
    if not isinstance(given, Mapping):
        return None
    unit, start, end, text = (given.get(name) for name in ("unit", "start", "end", "text"))
    places = all(isinstance(n, int) and not isinstance(n, bool) for n in (start, end))
    if not isinstance(unit, str) or not isinstance(text, str) or not places:
        return None
    return Span(unit, int(start or 0), int(end or 0), text)


def _problem(span: Span, question: str, held: Mapping[str, Hit]) -> str:
    """ "" where the place reads as it should."""
    if span.unit and span.unit not in held:
        return f"there is no unit {span.unit!r} in the evidence"
    text, offset = (held[span.unit].text, held[span.unit].unit.start) if span.unit else (question, 0)
    start, end = span.start - offset, span.end - offset
    if 0 <= start < end and text[start:end] == span.text:
        return ""
    return f"{span.unit or 'the question'} does not read {span.text[:40]!r} there"


def grounded(question: str, about: Iterable[str], evidence: Evidence | None = None) -> tuple[Span, ...]:
    """The words of content in the question that the expert's card and examples, `about`, also use; and the
    first place in each passage of the evidence of a word of content of the question."""
    shared = {word for text in about for word in words(text)} - _PLAIN
    asked = _content(question)
    found = [Span("", at, end, text) for at, end, text, word in asked if word in shared][: SPANS // 2]
    wanted = {word for _, _, _, word in asked}
    for hit in evidence.passages if evidence is not None else ():
        place = next((p for p in _content(hit.text) if p[3] in wanted), None)
        if place is not None:
            at, end, text, _ = place
            found.append(Span(hit.id, hit.unit.start + at, hit.unit.start + end, text))
    return checked(found, question, evidence).spans


def _content(text: str) -> list[tuple[int, int, str, str]]:
    """(start, end, as written, as an index spells it) of every word that carries content."""
    found = []
    for match in _WORD.finditer(text):
        spelt = words(match[0])
        if len(spelt) == 1 and spelt[0] not in _PLAIN:
            found.append((match.start(), match.end(), match[0], spelt[0]))
    return found
