"""JSON Lines with errors that name the file and the line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentmtl.errors import IngestError, UsageError

FORM = "One JSON object a line, in UTF-8."


class Record:
    """One line of a file. Every getter raises IngestError, naming the line, for a wrong type."""

    def __init__(self, fields: dict[str, Any], place: str) -> None:
        self.fields = fields
        self.place = place

    def text(self, name: str, default: str | None = None) -> str:
        """The string `name`; `default` where it is absent or null."""
        value = self.fields.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.error(f"has no text {name!r}")
        return value

    def number(self, name: str) -> float:
        """Raises IngestError where the field is no number."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"has no number {name!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        """The true or false of `name`."""
        value = self.fields.get(name)
        if not isinstance(value, bool):
            raise self.error(f"has no true or false {name!r}")
        return value

    def items(self, name: str) -> list[Any]:
        """The list `name`, empty where it is absent or null."""
        value = self.fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(f"has a {name!r} that is no list")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """The list of strings `name`, empty where it is absent or null."""
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"has a {name!r} that is no list of texts")
        return tuple(values)

    def error(self, what: str) -> IngestError:
        """The error for this line."""
        return IngestError(f"{self.place} {what}.", "Correct the line, or leave it out.")


def read_records(path: Path) -> Iterator[Record]:
    """The objects of a file; blank lines are passed over. Raises IngestError, UsageError for no file."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield Record(_object(line, path, number), f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise IngestError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}).", FORM) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise IngestError(f"{path}:{number} is not JSON ({error}).", FORM) from error
    if not isinstance(value, dict):
        raise IngestError(f"{path}:{number} is not a JSON object.", FORM)
    return value


def files_hash(paths: Sequence[Path]) -> str:
    """SHA-256 over the names and the bytes of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
