"""`where` expressions: SQL agrees with a Python reading of the tree."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentmtl.errors import FilterError
from agentmtl.index.filters import MAX_LENGTH, Both, Comparison, Date, Expression, Not, parse, to_sql
from agentmtl.index.rows import RowsBuilder
from agentmtl.schema import Document

from .filter_oracle import admits, admitted, spelt

TEXTS = [
    "",
    "BBC",
    "bbc",
    "Überblick",
    "2023-10-01",
    "2023-10-01T23:30:00+02:00",
    "1969",
    "0",
    'a "b" \\',
    "100%",
    "é'",
]
DATES = ["2023-10-01", "2023-09-30", "1999-12-31", "2023-10-01T21:30:00Z"]
NUMBERS = [0, 1, -1, 1969, 2**53 + 1, 2**63 - 1, 0.1, 19.99, 1e300, -2.5, 0.30000000000000004]
SCALARS = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.none(),
    st.integers(-3, 3),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
FIELDS = [
    "year",
    "tags",
    "Straße",
    "two words",
    'quo"te',
    "back\\slash",
    "a.b",
    "x'y",
    "title",
    "$",
    "#1",
    "line\nbreak",
    "[0]",
]
METADATA = st.dictionaries(
    st.sampled_from([f for f in FIELDS if f != "title"]), st.one_of(SCALARS, st.lists(SCALARS, max_size=3))
)
LITERALS = st.one_of(SCALARS, st.sampled_from(DATES).map(Date))


def comparisons() -> st.SearchStrategy[Comparison]:
    field = st.sampled_from(FIELDS)
    return st.one_of(
        st.builds(
            Comparison, field, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "contains"]), LITERALS
        ),
        st.builds(Comparison, field, st.just("in"), st.lists(LITERALS, min_size=1, max_size=4).map(tuple)),
        st.builds(Comparison, field, st.just("true")),
    )


EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds(Not, inner), st.builds(Both, st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(METADATA, min_size=1, max_size=4),
    st.sampled_from(["", "0", "Über BBC", "2023-10-01"]),
    EXPRESSIONS,
)
@example([{"year": []}], "", Comparison("year", "true"))
@example([{"tags": ["a"]}], "", Comparison("tags", "==", '["a"]'))
@example([{"tags": "None"}], "", Comparison("tags", "contains", None))
@example([{"tags": [1]}], "", Comparison("tags", "contains", "1"))
@example([{}], "0", Comparison("title", "true"))
def test_sql_agrees_with_python(metadata: list[dict[str, Any]], title: str, expression: Expression) -> None:
    documents = [Document(f"d{i}", "text", title, meta) for i, meta in enumerate(metadata)]
    wanted = [i for i, document in enumerate(documents) if admits(expression, document)]
    assert admitted(spelt(expression), documents) == wanted, spelt(expression)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ('source == "BBC" and (year >= 1969 or "moon" in tags) and not draft', [0]),
        ("published >= 2023-10-01", [0, 1]),
        ('title contains "Apollo" and lang in ["en", "de"]', [0]),
        ("YEAR == 1969", []),
        ("year==1969 OR NOT year", [0, 2]),
        ('"moon" in tags', [0, 1]),
        ("draft", [1]),
        ("missing != 3", [0, 1, 2]),
        ("missing == null and year", [0, 1]),
    ],
)
def test_examples(where: str, found: list[int]) -> None:
    first = {
        "source": "BBC",
        "year": 1969,
        "tags": ["moon"],
        "published": "2023-10-01",
        "lang": "en",
        "draft": False,
    }
    second = {
        "source": "BBC",
        "year": 1950,
        "tags": ["moon", "sun"],
        "published": "2024-01-01T01:00:00Z",
        "draft": True,
    }
    documents = [Document("a", "t", "Apollo 11", first), Document("b", "t", "", second), Document("c", "t")]
    assert admitted(where, documents) == found


# --- what is no expression


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(
            st.sampled_from(
                [
                    "a",
                    "and",
                    "or",
                    "not",
                    "in",
                    "contains",
                    "(",
                    ")",
                    "[",
                    "]",
                    ",",
                    "==",
                    "<",
                    "'x'",
                    '"',
                    "`",
                    "`f`",
                    "1",
                    "2023-10-01",
                    "2023-99-99",
                    "-",
                    "=",
                    ";",
                    "--",
                    "\\",
                    "null",
                    "true",
                    "\n",
                    "٣",
                    "9" * 400,
                    "1e999",
                    "\ud800",
                    "�",
                    "!",
                ]
            ),
            max_size=9,
        ).map(" ".join),
    )
)
def test_any_text_is_an_expression_or_a_filter_error(text: str) -> None:
    try:
        expression = parse(text)
    except FilterError as error:
        assert error.message and error.hint
        assert "character" in error.message or "characters" in error.message
    else:
        database = sqlite3.connect(":memory:")
        database.deserialize(RowsBuilder().finish())
        condition, values = to_sql(expression)
        database.execute(f"SELECT row FROM documents WHERE {condition}", values)
        database.close()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a == ", 6),
        ("a = 1", 3),
        ("a == b", 6),
        ("(a == 1", 8),
        ("a in [1,]", 9),
        ("a == 1 b", 8),
        ("", 1),
        ("a == 2023-13-01", 6),
        ("a contain 1", 3),
        ("not", 4),
        ('a == "x', 6),
        ("==", 1),
        ("a in 3", 6),
    ],
)
def test_errors_point_at_the_place(text: str, place: int) -> None:
    with pytest.raises(FilterError, match=f"at character {place}:"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "not " * 2000 + "a",
        "a or " * 1900 + "a",
        "a and b or " * 800 + "a",
        "x in [" + "1," * 4000 + "1]",
        "x in [" + '"a",' * 2400 + "2023-10-01]",
        " or ".join(["a == 2023-10-01"] * 500),
        "a" * (MAX_LENGTH + 1),
    ],
    ids=lambda text: text[:12],
)
def test_long_and_deep_expressions_are_evaluated_or_refused(text: str) -> None:
    try:
        admitted(text, [Document("d", "t", "", {"x": 1, "a": True})])
    except FilterError:
        assert "(" * 60 in text or "not " * 60 in text or len(text) > MAX_LENGTH


@pytest.mark.parametrize(
    "where",
    [
        'title == "\'; DROP TABLE documents; --"',
        "`'; DROP TABLE documents; --` == 1",
        '`")` == 1',
        '`x" OR 1=1 --` == 1',
        "`a'||(SELECT text FROM documents)||'` == 'x'",
        "`$.*` == 1",
        '`%` contains "%"',
        "title contains '%'",
        '`"` in [1, "2"]',
    ],
)
def test_injections_are_inert(where: str) -> None:
    assert admitted(where, [Document("d", "secret", "a title", {"x": 1})]) == []
