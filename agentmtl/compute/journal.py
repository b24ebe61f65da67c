"""What a search has paid for, on disk: one JSON object a line, only ever appended.

The first line says what the rows are of. A line that a killed process left unfinished is cut off when the
file is opened. A search that runs again with the same seed asks for the same things and finds them here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from io import BufferedRandom
from pathlib import Path
from typing import Any

from agentmtl.errors import StorageError, UsageError

FORMAT = 1


class Journal:
    """Rows under keys; without a path in memory only. Safe to use from several threads.

    Raises UsageError for a file of something else than `header`, or that is there without `resume`, and
    StorageError where it cannot be written.
    """

    def __init__(
        self, path: Path | None = None, header: Mapping[str, Any] | None = None, resume: bool = True
    ) -> None:
        self.path, self._rows = path, dict[str, Any]()
        self._lock, self._file = threading.Lock(), None
        if path is not None:
            self._file = self._opened(path, {"format": FORMAT, **(header or {})}, resume)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Any:
        """The row of that key; None where there is none."""
        return self._rows.get(key)

    def add(self, key: str, value: Any) -> None:
        """A row, which outlives this process when this returns."""
        with self._lock:
            self._rows[key] = value
            if self._file is not None:
                self._write({"key": key, "value": value})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self, path: Path, header: dict[str, Any], resume: bool) -> BufferedRandom:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("r+b" if path.exists() else "w+b")
        except OSError as error:
            raise StorageError(
                f"{path} cannot be written: {error.strerror}.", "Give another --out."
            ) from None
        whole, *told = _complete(file)
        if told and not resume:
            file.close()
            raise UsageError(f"{path} holds a search already.", "Add --resume, or give another --out.")
        if told and json.loads(told[0]) != header:
            file.close()
            raise UsageError(
                f"{path} is of another search: {told[0].decode('utf-8', 'replace')}.",
                "Resume with the pipeline, data, method and seed it was begun with, or give another --out.",
            )
        for line in told[1:]:
            row = json.loads(line)
            self._rows[row["key"]] = row["value"]
        file.seek(whole)
        file.truncate()
        self._file = file
        if not told:
            self._write(header)
        return file

    def _write(self, row: Mapping[str, Any]) -> None:
        assert self._file is not None
        try:
            self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written: {error.strerror}.", "Make room, then resume."
            ) from None


def _complete(file: BufferedRandom) -> tuple[Any, ...]:
    """Where the last complete line ends, and the complete lines. Only the last can be cut off."""
    text = file.read()
    end = text.rfind(b"\n") + 1
    return (end, *text[:end].splitlines())
