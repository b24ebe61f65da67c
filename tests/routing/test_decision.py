"""The parts of a decision: places that read as they say, arguments that fit, the share that is explored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.routing.arguments import check_schema, problem, read_arguments, without_model
from agentmtl.routing.decider import RouterDecider
from agentmtl.routing.description import Described, DescriptionRouter
from agentmtl.routing.grounding import SPANS, checked, grounded
from agentmtl.routing.route import Floats, Policy, Span, settle
from agentmtl.schema import Evidence, Hit, Unit
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Side, Vectors

QUESTION = "Who owns ticket 12?"


def evidence(text: str = "Ticket 12 is owned by Ada.", start: int = 40) -> Evidence:
    hit = Hit(Unit("u1", "passage", text, "s", start=start, end=start + len(text)), 1.0)
    return Evidence(QUESTION, (hit,))


# --- places -----------------------------------------------------------------------------------------------


def test_places_are_checked_word_for_word() -> None:
    good = {"unit": "", "start": 9, "end": 18, "text": "ticket 12"}
    there = {"unit": "u1", "start": 40, "end": 49, "text": "Ticket 12"}
    bad: list[Any] = [
        {**good, "start": 8}, {**good, "text": "ticket 13"}, {**good, "unit": "u2"}, {**good, "end": 99},
        {**good, "start": -10}, {**good, "start": True}, {**good, "start": "9"}, {**there, "start": 0},
        {**good, "start": 9, "end": 9, "text": ""}, {"unit": ""}, "ticket 12", None, 3,
    ]  # fmt: skip
    found = checked([good, *bad, there], QUESTION, evidence())
    assert found.spans == (Span("", 9, 18, "ticket 12"), Span("u1", 40, 49, "Ticket 12"))
    assert len(found.dropped) == len(bad) and all(
        why.startswith("a span was dropped") for why in found.dropped
    )
    assert checked([there], QUESTION).spans == ()


@given(st.text(max_size=60), st.text(max_size=60), st.lists(st.text(max_size=20), max_size=3))
def test_whatever_is_grounded_stands_there(question: str, passage: str, about: list[str]) -> None:
    spans = grounded(question, about, evidence(passage, 7))
    assert len(spans) <= SPANS
    for span in spans:
        text, offset = (passage, 7) if span.unit else (question, 0)
        assert span.text and text[span.start - offset : span.end - offset] == span.text


def test_words_that_the_card_shares_and_where_the_evidence_speaks_of_them() -> None:
    spans = grounded(QUESTION, ("Support tickets: owner, status.",), evidence())
    assert spans == (Span("", 9, 15, "ticket"), Span("u1", 40, 46, "Ticket"))


# --- arguments --------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "count": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "maxItems": 2},
        "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "either": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "fixed": {"const": 3},
        "nested": {"type": "object", "properties": {"deep": {"type": "boolean"}}, "required": ["deep"]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"Tag": {"enum": ["a", "b", 1]}},
}


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"name": "Ada"}, ""),
        ({"name": "Ada", "count": None, "tags": ["a", 1], "share": 0.5, "fixed": 3}, ""),
        ({"name": "Ada", "either": 0.5, "nested": {"deep": True}}, ""),
        ({}, "name is missing"),
        ({"name": ""}, "name breaks minLength 1"),
        ({"name": "Adelaide"}, "name breaks maxLength 5"),
        ({"name": 1}, "name is no string"),
        ({"name": "Ada", "more": 1}, "more may not be there"),
        ({"name": "Ada", "count": 10}, "count fits none of anyOf"),
        ({"name": "Ada", "count": True}, "count fits none of anyOf"),
        ({"name": "Ada", "tags": ["c"]}, "tags[0] is none of a, b, 1"),
        ({"name": "Ada", "tags": [True]}, "tags[0] is none of a, b, 1"),
        ({"name": "Ada", "tags": ["a", "a", "a"]}, "tags breaks maxItems 2"),
        ({"name": "Ada", "share": 1}, "share breaks exclusiveMaximum 1"),
        ({"name": "Ada", "either": 1}, "either fits several"),
        ({"name": "Ada", "fixed": 3.0}, "fixed is none of 3"),
        ({"name": "Ada", "nested": {}}, "nested.deep is missing"),
        ([], "it is no object"),
    ],
)
def test_what_fits_a_schema(value: Any, wrong: str) -> None:
    assert problem(value, SCHEMA) == wrong


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "^a+$"}}},
        {"anyOf": [{"not": {"type": "null"}}]},
        {"type": "array", "items": {"uniqueItems": True}},
        {"$defs": {"A": {"if": {}}}},
        {"type": "object", "additionalProperties": {"patternProperties": {}}},
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused_at_once(schema: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not checked here"):
        check_schema(schema)
    with pytest.raises(UsageError, match="not checked here"):
        Described("a", "A card.", schema=schema)


def test_schemas_that_are_broken_or_endless() -> None:
    endless = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    for schema in (endless, {"$ref": "#/$defs/B"}, {"$ref": "http://x/y"}, {"type": "text"}):
        with pytest.raises(UsageError):
            problem({}, schema)


@given(st.text(max_size=50))
def test_any_text_is_read_as_arguments_or_refused(text: str) -> None:
    found, wrong = read_arguments(text, SCHEMA)
    assert (found == {}) == bool(wrong)


def test_the_schema_of_a_langchain_tool() -> None:
    from langchain_core.tools import tool

    @tool
    def owner(number: int, kind: str | None = None) -> str:
        """Who owns a ticket."""
        return f"{kind} {number}"

    schema = owner.tool_call_schema.model_json_schema()  # type: ignore[union-attr]
    assert read_arguments('{"number": 12}', schema) == ({"number": 12}, "")
    assert read_arguments('{"number": "x"}', schema)[1] and without_model("x", schema) is None
    assert without_model("x", None) == {} == without_model("x", {"type": "object", "properties": {}})


# --- exploration ------------------------------------------------------------------------------------------

CHANCES = {"good": 0.9, "fair": 0.6, "poor": 0.1}


def test_nothing_is_explored_unless_it_is_asked_for() -> None:
    assert not any(settle(CHANCES, f"q{n}", Policy()).explored for n in range(200))
    with pytest.raises(UsageError, match="share"):
        Policy(explore=1.0)


def test_a_share_is_explored_by_seed_and_likelier_experts_more_often() -> None:
    policy = Policy(explore=0.2, seed=1)
    routes = [settle(CHANCES, f"question {n}", policy) for n in range(2_000)]
    away = [route.expert for route in routes if route.explored]
    assert 0.17 < len(away) / len(routes) < 0.23 and "good" not in away
    assert away.count("fair") > 5 * away.count("poor")
    assert routes == [settle(CHANCES, f"question {n}", policy) for n in range(2_000)]
    other = [settle(CHANCES, f"question {n}", Policy(explore=0.2, seed=2)).explored for n in range(2_000)]
    assert other != [route.explored for route in routes]
    one = next(route for route in routes if route.explored)
    assert "explored" in one.reason and one.to_json()["explored"] and one.confidence == CHANCES[one.expert]


def test_what_is_never_explored() -> None:
    policy = Policy(explore=0.99, live=frozenset({"good", "fair"}))
    assert all(settle(CHANCES, f"q{n}", policy, last="good").expert == "good" for n in range(100))
    assert {settle(CHANCES, f"q{n}", policy).expert for n in range(100)} == {"good", "fair"}
    alone = Policy(explore=0.99, live=frozenset({"good"}))
    assert not any(settle(CHANCES, f"q{n}", alone).explored for n in range(100))
    unsure = Policy(explore=0.99, threshold=0.95)
    assert all(settle(CHANCES, f"q{n}", unsure).abstained for n in range(20))


# --- a router with its encoder ----------------------------------------------------------------------------


class Counted:
    """An encoder that counts."""

    def __init__(self) -> None:
        self._encoder = load_encoder("hashing:128")
        self.identity, self.calls = self._encoder.identity, 0

    def encode(self, texts: list[str], side: Side = "document") -> Vectors:
        self.calls += 1
        return self._encoder.encode(texts, side)


async def test_a_vector_that_is_known_is_not_made_again() -> None:
    encoder = Counted()
    experts = (Described("cook", "Recipes and food."), Described("travel", "Flights and hotels."))
    decider = RouterDecider(DescriptionRouter(experts, encoder), encoder, experts=experts)
    before = encoder.calls
    made = decider.decide("a recipe for food")
    vector: Floats = np.asarray(encoder.encode(["a recipe for food"], "query")[0], np.float64)
    assert encoder.calls == before + 2
    given = decider.decide("a recipe for food", vector=vector)
    assert given == made == await decider.adecide("a recipe for food", vector=vector)
    assert encoder.calls == before + 2
    told = made.to_json()
    assert told["expert"] == "cook" and told["spans"][0]["text"] == "recipe" and told["tier"] == "router"
    bare = RouterDecider(DescriptionRouter(experts, encoder), encoder)
    assert bare.decide("food").spans == ()
