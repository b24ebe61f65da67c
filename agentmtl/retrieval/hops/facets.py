"""Which way a question goes: split into facets that are looked up side by side, or down the beam.

A comparison ("which is older, A or B?"), a temporal question ("did A happen before B?") or one about a set
("what do A, B and C share?") names what it is about: each name becomes a question of its own. A bridge
question ("who directed the film that …?") does not name what it needs, so only the beam can find it. The
rules are for English; what they do not know goes down the beam, which loses nothing but time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentmtl.ingest.entities import proper_names

Route: TypeAlias = Literal["bridge", "comparison", "temporal", "set"]

MAX_FACETS = 4

_TEMPORAL = re.compile(
    r"\b(?:before|after|earlier|later|first|last|older|younger|recent(?:ly)?|prior)\b", re.I
)
_COMPARISON = re.compile(
    r"\b(?:both|same|than|either|neither|compared?|difference|different|similar|versus|vs|common|share[ds]?|"
    r"or|more|less|fewer|most|least|larger|smaller|bigger|longer|shorter|higher|lower|taller|faster|closer)\b",
    re.I,
)
_SET = re.compile(r"\b(?:all|each|every|list|among|which of)\b", re.I)
_QUOTED = re.compile(r"[\"“«]([^\"“”«»]{2,80})[\"”»]")
_JOINED = re.compile(r"\W*\b(?:and|or|than|versus|vs|nor)\b\W*(?:[\w'’.-]+\W+){0,4}", re.I)

Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Facet:
    """A part of a question that can be looked up by itself: its name and the shorter question."""

    name: str
    question: str


def split(question: str) -> tuple[Route, tuple[Facet, ...]]:
    """The route of a question, and its facets; none for a bridge question."""
    names = _coordinated(question, _names(question))
    route = _route(question, len(names))
    if route == "bridge":
        return route, ()
    return route, tuple(
        Facet(question[a:b], _without(question, names, (a, b))) for a, b in names[:MAX_FACETS]
    )


def _route(question: str, names: int) -> Route:
    if names < 2:
        return "bridge"
    if names > 2 or _SET.search(question):
        return "set"
    if _TEMPORAL.search(question):
        return "temporal"
    return "comparison" if _COMPARISON.search(question) else "bridge"


def _names(question: str) -> list[Span]:
    """The spans of quoted titles and proper names, in order, none inside another."""
    quoted = [m.span(1) for m in _QUOTED.finditer(question)]
    found = [(a, b) for _, a, b in proper_names(question, [(0, len(question))])]
    outside = [(a, b) for a, b in found if not any(c < b and a < d for c, d in quoted)]
    distinct: dict[str, Span] = {}
    for a, b in sorted([*quoted, *outside]):
        distinct.setdefault(question[a:b].casefold(), (a, b))
    return list(distinct.values())


def _coordinated(question: str, names: list[Span]) -> list[Span]:
    """The longest run of names joined by "and", "or", "than" …, with commas in a list of three or more."""
    best: list[Span] = []
    run: list[Span] = []
    for i, name in enumerate(names):
        between = question[names[i - 1][1] : name[0]] if i else ""
        joined = bool(_JOINED.fullmatch(between))
        listed = between.strip() == "," and i + 1 < len(names)
        run = [*run, name] if run and (joined or listed) else [name]
        if joined and len(run) > len(best):
            best = run
    return best


def _without(question: str, names: list[Span], kept: Span) -> str:
    """The question with the other names taken out, and what joined them."""
    first, last = names[0][0], names[-1][1]
    return " ".join(f"{question[:first]}{question[kept[0] : kept[1]]}{question[last:]}".split())
