"""`where` expressions: a small language over metadata, compiled to SQL. Nothing is evaluated as code.

    source == "BBC" and (year >= 1969 or "moon" in tags) and not draft
    published >= 2023-10-01 and title contains "Apollo" and lang in ["en", "de"]

    expression  := term ("or" term)*
    term        := factor ("and" factor)*
    factor      := "not" factor | "(" expression ")" | comparison
    comparison  := field ("==" | "!=" | "<" | "<=" | ">" | ">=") value
                 | field "in" "[" value ("," value)* "]"     the value is one of these
                 | field "contains" value                     substring of a text, member of a list
                 | value "in" field                           the same, the other way round
                 | field                                      true where the value is true
    value       := "text" | 'text' | number | true | false | null | 2023-10-01 (a date)

A field is a metadata key (quoted with backticks where it is not a plain word), or one of title, source_id,
file. A document without the field fails every comparison, so `!=` and `not` let it pass; null is a missing
field. Numbers compare with numbers (true and false are 1 and 0), texts with texts, by code point. A list has
no order and equals nothing: use `in` and `contains`. By itself a field is false when it is missing, false, 0,
an empty text or an empty list. Dates compare with ISO 8601 texts by the day, a moment with a time zone by
its day in UTC; a date is never equal to a text that is not one.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from agentmtl.errors import FilterError

MAX_LENGTH = 10_000  # characters of an expression
MAX_DEPTH = 50  # nested parentheses and nots

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<date>\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?)?)
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<field>`[^`]+`)
    | (?P<symbol>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    | (?P<word>[^\W\d][\w.-]*)
    )""",
    re.VERBOSE,
)
_KEYWORDS = {"and", "or", "not", "in", "contains", "true", "false", "null"}
_COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
_COLUMNS = frozenset({"title", "source_id", "file"})


@dataclass(frozen=True, slots=True)
class Date:
    """A date or time literal, in ISO 8601."""

    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """`operator` is one of == != < <= > >= in contains true."""

    field: str
    operator: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Not:
    inner: Expression


@dataclass(frozen=True, slots=True)
class Both:
    """`operator` is and | or."""

    operator: str
    left: Expression
    right: Expression


Expression: TypeAlias = Comparison | Not | Both


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Expression:
    """The tree of a `where` expression. Raises FilterError, which points at the place."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"The filter has {len(text)} characters; {MAX_LENGTH} is the most.", "Shorten it.")
    if half := re.search("[\ud800-\udfff]", text):
        place = f"In the filter, at character {half.start() + 1}"
        raise FilterError(f"{place}: half of a surrogate pair.", "Give it as valid Unicode.")
    parser = _Parser(text, _tokens(text))
    expression = parser.either(0)
    if parser.next is not None:
        raise parser.error(f"did not expect {parser.next.text!r}")
    return expression


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            place = len(text) - len(text[at:].lstrip()) + 1
            near = text[at:].strip()[:20]
            raise FilterError(f"In the filter, at character {place}: cannot read {near!r}.", _EXAMPLE)
        kind, value = match.lastgroup, match[match.lastgroup]
        if kind == "word" and value.lower() in _KEYWORDS:
            kind, value = "keyword", value.lower()
        found.append(_Token(kind, value, match.start(match.lastgroup)))
        at = match.end()
    return found


_EXAMPLE = """Example: --where 'source == "BBC" and year >= 1969'"""


class _Parser:
    """Recursive descent; one method a rule of the grammar above."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._at = 0

    @property
    def next(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def error(self, problem: str) -> FilterError:
        at = self.next.at if self.next else len(self._text)
        return FilterError(f"In the filter {self._text!r}, at character {at + 1}: {problem}.", _EXAMPLE)

    def _take(self, *texts: str) -> str | None:
        token = self.next
        if token is not None and token.kind in {"symbol", "keyword"} and token.text in texts:
            self._at += 1
            return token.text
        return None

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            raise self.error(f"expected {text!r}")

    def either(self, depth: int) -> Expression:
        terms = [self._all(depth)]
        while self._take("or"):
            terms.append(self._all(depth))
        return _joined("or", terms)

    def _all(self, depth: int) -> Expression:
        terms = [self._one(depth)]
        while self._take("and"):
            terms.append(self._one(depth))
        return _joined("and", terms)

    def _one(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise self.error(f"nested more than {MAX_DEPTH} deep")
        if self._take("not"):
            return Not(self._one(depth + 1))
        if self._take("("):
            inner = self.either(depth + 1)
            self._need(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Expression:
        token = self.next
        if token is None:
            raise self.error("something is missing")
        if token.kind not in {"word", "field"}:
            value = self._value()
            self._need("in")
            return Comparison(self._field(), "contains", value)
        field = self._field()
        if operator := self._take(*_COMPARISONS):
            return Comparison(field, operator, self._value())
        if self._take("contains"):
            return Comparison(field, "contains", self._value())
        if self._take("in"):
            return Comparison(field, "in", self._list())
        if self.next is not None and self.next.kind not in {"keyword", "symbol"}:
            raise self.error(self._unknown_operator(self.next.text))
        return Comparison(field, "true")

    @staticmethod
    def _unknown_operator(text: str) -> str:
        near = difflib.get_close_matches(text, ["contains", "in", "and", "or", "not"], 1)
        return f"did not expect {text!r}" + (f"; did you mean {near[0]!r}" if near else "")

    def _field(self) -> str:
        token = self.next
        if token is None or token.kind not in {"word", "field"}:
            raise self.error("expected the name of a field")
        self._at += 1
        return token.text.strip("`")

    def _date(self, token: _Token) -> Date:
        try:
            datetime.fromisoformat(token.text)
        except ValueError as error:
            self._at -= 1
            raise self.error(f"there is no date {token.text}") from error
        return Date(token.text)

    def _list(self) -> tuple[Any, ...]:
        self._need("[")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._need("]")
        return tuple(values)

    def _value(self) -> Any:
        token = self.next
        if token is None:
            raise self.error("expected a value")
        self._at += 1
        if token.kind == "text":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token.kind == "number":
            number = float(token.text)
            whole = not re.search(r"[.eE]", token.text) and abs(number) < 2**63  # as far as SQLite counts
            return int(token.text) if whole else number
        if token.kind == "date":
            return self._date(token)
        if token.text in {"true", "false", "null"}:
            return {"true": True, "false": False, "null": None}[token.text]
        self._at -= 1
        raise self.error(f"expected a value, not {token.text!r}; texts stand in quotes")


def _joined(operator: str, terms: list[Expression]) -> Expression:
    """The terms under one operator as a balanced tree: SQLite and Python bear only so much depth."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return Both(operator, _joined(operator, terms[:half]), _joined(operator, terms[half:]))


def to_sql(expression: Expression) -> tuple[str, list[Any]]:
    """A condition over the `documents` table, with its bound values; it is always 0 or 1, never NULL."""
    if isinstance(expression, Not):
        inner, values = to_sql(expression.inner)
        return f"(NOT {inner})", values
    if isinstance(expression, Both):
        left, first = to_sql(expression.left)
        right, second = to_sql(expression.right)
        return f"({left} {expression.operator.upper()} {right})", first + second
    return _comparison_sql(expression)


@dataclass(frozen=True, slots=True)
class _Field:
    """SQL for a field's value and its JSON type, each with the values it binds."""

    value: str
    type: str
    binds: list[Any]


_PLAIN_KEY = re.compile(r"[^\x00-\x1f\"\\]+")


def _field(name: str) -> _Field:
    if name in _COLUMNS:
        return _Field(f"+{name}", "'text'", [])  # the plus takes off the column's affinity, by which "0" = 0
    if _PLAIN_KEY.fullmatch(name):
        return _Field("json_extract(metadata, ?)", "json_type(metadata, ?)", [f'$."{name}"'])
    # JSON paths of older SQLite versions have no escapes
    each = "(SELECT {} FROM json_each(metadata) AS pair WHERE pair.key = ?)"
    return _Field(each.format("pair.value"), each.format("pair.type"), [name])


_NUMBERS = "('integer', 'real', 'true', 'false')"


def _comparison_sql(c: Comparison) -> tuple[str, list[Any]]:
    field = _field(c.field)
    if c.operator == "true":
        empty = f"{field.type} = 'array' AND {field.value} = '[]'"
        sql = f"({field.value} IS NOT NULL AND coalesce({field.value} NOT IN (0, ''), 1) AND NOT ({empty}))"
        return sql, field.binds * 4
    if c.operator == "!=":
        same, values = _comparison_sql(Comparison(c.field, "==", c.value))
        return f"(NOT {same})", values
    if c.operator == "in":
        return _in_sql(c.field, c.value)
    if c.operator == "contains":
        return _contains_sql(c.field, c.value)
    operator = "=" if c.operator == "==" else c.operator
    if c.value is None:
        return (f"({field.value} IS NULL)", field.binds) if operator == "=" else ("0", [])
    if isinstance(c.value, Date):
        return _date_sql(field, operator, c.value)
    kinds = "= 'text'" if isinstance(c.value, str) else f"IN {_NUMBERS}"
    sql = f"coalesce({field.type} {kinds} AND {field.value} {operator} ?, 0)"
    return sql, [*field.binds, *field.binds, c.value]


def _in_sql(name: str, values: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """One `IN` for all texts and one for all numbers, so that a long list is no deep expression."""
    field, parts, binds = _field(name), [], []
    texts = [v for v in values if isinstance(v, str)]
    numbers = [v for v in values if isinstance(v, int | float)]
    for kinds, listed in (("= 'text'", texts), (f"IN {_NUMBERS}", numbers)):
        if listed:
            marks = ", ".join("?" * len(listed))
            parts.append(f"coalesce({field.type} {kinds} AND {field.value} IN ({marks}), 0)")
            binds += [*field.binds, *field.binds, *listed]
    if None in values:
        parts.append(f"({field.value} IS NULL)")
        binds += field.binds
    dates = [Comparison(name, "==", value) for value in values if isinstance(value, Date)]
    if dates:
        sql, more = to_sql(_joined("or", list(dates)))
        parts.append(sql)
        binds += more
    return f"({' OR '.join(parts)})", binds


def _date_sql(field: _Field, operator: str, value: Date) -> tuple[str, list[Any]]:
    """By the day where the literal is a day, else by the moment. Numbers are not dates here."""
    function = "date" if len(value.text) == 10 else "julianday"
    # SQLite would also take 'now' and numbers
    text = f"{field.type} = 'text' AND {field.value} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'"
    sql = f"coalesce({text} AND {function}({field.value}) {operator} {function}(?), 0)"
    return sql, [*field.binds * 3, value.text]


def _contains_sql(name: str, value: Any) -> tuple[str, list[Any]]:
    """A text within a text; a value among a list's, of its own kind. A date stands for its spelling."""
    field = _field(name)
    value = value.text if isinstance(value, Date) else value
    kind, binds = "= 'null'", []
    if isinstance(value, str):
        kind, binds = "= 'text' AND member.value = ?", [value]
    elif value is not None:
        kind, binds = f"IN {_NUMBERS} AND member.value = ?", [value]
    listed = f"CASE {field.type} WHEN 'array' THEN {field.value} ELSE '[]' END"
    sql = f"EXISTS (SELECT 1 FROM json_each({listed}) AS member WHERE member.type {kind})"
    binds = [*field.binds, *field.binds, *binds]
    if isinstance(value, str):
        sql = f"({sql} OR coalesce({field.type} = 'text' AND instr({field.value}, ?) > 0, 0))"
        binds += [*field.binds, *field.binds, value]
    return sql, binds
