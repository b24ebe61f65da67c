"""Files of records: .jsonl and .csv, read a record at a time, and .json, read whole.

A record has `text` and, if it likes, `id` and `title`; every other field is metadata.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from agentmtl.ingest.clean import clean_line, clean_metadata, clean_text
from agentmtl.ingest.events import Skipped
from agentmtl.ingest.limits import Limits, Refused, size_text
from agentmtl.ingest.plain import decode, number_or_text
from agentmtl.schema import DEMONSTRATION_MARK, Document

_NAMED = ("id", "title", "text")
_KEPT_OUT = {*_NAMED, DEMONSTRATION_MARK}  # a row of a table is a document, whatever it says of itself
_PIECE = 1024 * 1024  # bytes read at a time while a line that is too long is passed over
_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, slots=True)
class Record:
    """One record, or the reason it could not be read. `number` counts lines or rows from 1."""

    number: int
    fields: Mapping[str, Any]
    problem: str = ""


class LineReader:
    """Lines of a binary stream as text, in bounded memory; knows the number of the last one.

    `next` raises Refused for a line of more than `limit` bytes, whose rest is passed over, or of bytes
    that are not UTF-8; the call after that gives the next line. `limit` counts from the last `reset`.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._used = 0
        self._offset = 0
        self.number = 0

    def reset(self) -> None:
        self._used = 0

    def __iter__(self) -> LineReader:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self._limit - self._used + 1)
        if not line:
            raise StopIteration
        self.number += 1
        start, self._offset = self._offset, self._offset + len(line)
        self._used += len(line)
        if self._used > self._limit:
            self._pass_over(line)
        return self._decoded(line, start)

    def _pass_over(self, line: bytes) -> NoReturn:
        while line and not line.endswith(b"\n"):
            line = self._stream.readline(_PIECE)
            self._offset += len(line)
        raise Refused(f"is longer than {size_text(self._limit)}")

    def _decoded(self, line: bytes, start: int) -> str:
        if self.number == 1:
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise Refused("is UTF-16; save the file as UTF-8")
            bom = len(codecs.BOM_UTF8) if line.startswith(codecs.BOM_UTF8) else 0
            line, start = line[bom:], start + bom
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused(f"is not valid UTF-8 at byte {start + error.start} of the file") from error


def parse_json(text: str, limits: Limits) -> Any:
    """The value of `text`. Raises Refused where it is not JSON or is nested too deep.

    The depth is counted before the parser runs, which recurses.
    """
    if text.count("[") + text.count("{") > limits.json_depth and _depth(text) > limits.json_depth:
        raise Refused(f"is nested more than {limits.json_depth} deep")
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused(f"is not valid JSON: {error}") from error


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in "]}":
            depth -= 1
    return deepest


def read_jsonl(stream: BinaryIO, limits: Limits) -> Iterator[Record]:
    """One JSON object a line; blank lines are passed over. A bad line costs that record only."""
    lines = LineReader(stream, limits.line_bytes)
    while True:
        lines.reset()
        try:
            line = next(lines, None)
            if line is None:
                return
            if line.strip():
                yield _record(lines.number, parse_json(line, limits))
        except Refused as refusal:
            yield Record(lines.number, {}, f"line {refusal.reason}")


def _record(number: int, value: Any) -> Record:
    if isinstance(value, dict):
        return Record(number, value)
    return Record(number, {}, f"is a JSON {type(value).__name__}, not an object")


def read_json(data: bytes, limits: Limits) -> Iterator[Record]:
    """A list of records; one record; or an object with a list of objects in one of its fields.

    In the last form the records are those of that one list, whatever its field is called.
    """
    value = parse_json(decode(data), limits)
    for number, item in enumerate(_items(value), start=1):
        yield _record(number, item)


def _items(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        if "text" in value or not lists:
            return [value]
        if len(lists) == 1:
            return lists[0]
    raise Refused("holds neither a record nor one list of records")


def read_csv(stream: BinaryIO, limits: Limits) -> Iterator[Record]:
    """A header, then a record a row, apart by commas, semicolons or tabs (as the header shows).

    A cell that is wholly a plain number becomes one; empty cells are left out. Rows are counted without
    the header. A row with more or fewer cells than the header is not a record: after damage inside a
    quoted cell, that is how the rest of the cell shows.
    """
    if csv.field_size_limit() < limits.line_bytes:  # the module's own cap is smaller than one article
        csv.field_size_limit(limits.line_bytes)
    lines = LineReader(stream, limits.line_bytes)
    rows, header = _header(lines)
    number = 0
    while True:
        number += 1
        lines.reset()
        try:
            row = next(rows, None)
            if row is None:
                return
            if row:
                yield _row(number, header, row)
        except Refused as refusal:
            yield Record(number, {}, f"row {refusal.reason}")
        except csv.Error as error:
            yield Record(number, {}, f"row is not valid CSV: {error}")


def _header(lines: LineReader) -> tuple[Iterator[list[str]], list[str]]:
    first = next(lines, "")
    for delimiter in _DELIMITERS:
        header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if "text" in header:
            if len(set(header)) < len(header):
                raise Refused("has two columns of the same name")
            return csv.reader(lines, delimiter=delimiter), header
    raise Refused(f"has no column named text in its first line ({clean_line(first)[:80]!r})")


def _row(number: int, header: list[str], row: list[str]) -> Record:
    if len(row) != len(header):
        return Record(number, {}, f"row has {len(row)} cells where the header has {len(header)}")
    cells = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    return Record(number, {n: c if n in _NAMED else number_or_text(c.strip()) for n, c in cells.items()})


def document_of(record: Record, file: str, sha256: str, limits: Limits) -> Document | Skipped:
    """The Document of a record, named `file#id`, or `file#number` where it has no id."""
    place = f"{file}#{record.number}"
    if record.problem:
        return Skipped(file, record.problem, place)
    try:
        identifier = _identifier(record.fields.get("id"))
        place = f"{file}#{identifier}" if identifier else place
        text = _text(record.fields.get("text"), limits)
    except Refused as refusal:
        return Skipped(file, refusal.reason, place)
    title = record.fields.get("title")
    return Document(
        source_id=identifier or place,
        text=text,
        title=clean_line(str(title)[:1_000]) if isinstance(title, (str, int, float)) else "",
        metadata=clean_metadata({k: v for k, v in record.fields.items() if k not in _KEPT_OUT}, limits),
        origin=place,
        file=file,
        file_sha256=sha256,
    )


def _identifier(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise Refused("its id is neither text nor a whole number")
    return clean_line(str(value))


def _text(value: Any, limits: Limits) -> str:
    if value is None:
        raise Refused("has no text")
    if not isinstance(value, str):
        raise Refused("its text is not a string")
    if len(value) > limits.text_chars:
        raise Refused(f"holds more than {limits.text_chars} characters of text")
    if not (text := clean_text(value)):
        raise Refused("empty")
    return text
