"""`where` expressions written down, and read by Python instead of SQL."""

from __future__ import annotations

import operator
import sqlite3
from datetime import date, datetime
from typing import Any

from agentmtl.index.filters import Both, Date, Expression, Not, parse, to_sql
from agentmtl.index.rows import RowsBuilder, document_row
from agentmtl.schema import Document


def literal(value: Any) -> str:
    if isinstance(value, Date):
        return value.text
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return (
        {True: "true", False: "false", None: "null"}[value]
        if value is None or isinstance(value, bool)
        else repr(value)
    )


def spelt(e: Expression) -> str:
    if isinstance(e, Not):
        return f"not ({spelt(e.inner)})"
    if isinstance(e, Both):
        return f"(({spelt(e.left)}) {e.operator} ({spelt(e.right)}))"
    field = f"`{e.field}`"
    if e.operator == "true":
        return field
    if e.operator == "in":
        return f"{field} in [{', '.join(map(literal, e.value))}]"
    return f"{field} {e.operator} {literal(e.value)}"


COMPARE = {"==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def instant(text: str) -> datetime | None:
    """A text as UTC without a zone, as SQLite reads it."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when - when.utcoffset()).replace(tzinfo=None) if when.utcoffset() is not None else when  # type: ignore[operator]


def admits(e: Expression, document: Document) -> bool:
    if isinstance(e, Not):
        return not admits(e.inner, document)
    if isinstance(e, Both):
        left, right = admits(e.left, document), admits(e.right, document)
        return (left or right) if e.operator == "or" else (left and right)
    value = document.title if e.field == "title" else document.metadata.get(e.field)
    if e.operator == "true":
        return bool(value)
    if e.operator == "!=":
        return not compares(value, "==", e.value)
    if e.operator == "in":
        return any(compares(value, "==", one) for one in e.value)
    if e.operator == "contains":
        wanted = e.value.text if isinstance(e.value, Date) else e.value
        if isinstance(value, list):
            return any(compares(one, "==", wanted) or (one is None and wanted is None) for one in value)
        return isinstance(value, str) and isinstance(wanted, str) and wanted in value
    return compares(value, e.operator, e.value)


def compares(value: Any, how: str, wanted: Any) -> bool:
    if wanted is None:
        return how == "==" and value is None
    if isinstance(wanted, Date):
        mine, other = (instant(value) if isinstance(value, str) else None), instant(wanted.text)
        if mine is None or other is None:
            return False
        if len(wanted.text) == 10:
            return bool(COMPARE[how](mine.date(), date.fromisoformat(wanted.text)))
        return bool(COMPARE[how](mine, other))
    kinds: Any = str if isinstance(wanted, str) else (int, float)
    return isinstance(value, kinds) and bool(COMPARE[how](value, wanted))


def admitted(where: str, documents: list[Document]) -> list[int]:
    builder = RowsBuilder()
    builder.add_documents(document_row(i, d) for i, d in enumerate(documents))
    database = sqlite3.connect(":memory:")
    database.deserialize(builder.finish())
    condition, values = to_sql(parse(where))
    rows = database.execute(f"SELECT row, {condition} FROM documents", values).fetchall()
    database.close()
    assert {value for _, value in rows} <= {0, 1}, "never NULL"
    return [row for row, value in rows if value]
