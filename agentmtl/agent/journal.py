"""The log of questions: what was asked, what was retrieved, what was answered. Kept on this machine only.

A SQLite file in the user's data folder. `purge` erases the bytes, not only the rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentmtl.errors import StorageError
from agentmtl.schema import Answer, Evidence, Usage
from agentmtl.settings import data_folder
from agentmtl.spending import Call

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time TEXT NOT NULL,             -- ISO 8601, UTC
  index_folder TEXT NOT NULL,
  answer TEXT NOT NULL,           -- Answer.to_json
  evidence TEXT NOT NULL          -- a list of Hit.to_json
);
CREATE TABLE IF NOT EXISTS calls (
  entry INTEGER NOT NULL,         -- the question it was made for
  call TEXT NOT NULL              -- Call.to_json
);
CREATE TABLE IF NOT EXISTS sessions (
  name TEXT NOT NULL,             -- of a conversation
  entry INTEGER NOT NULL          -- a question that belongs to it
)
"""
BUSY_SECONDS = 10.0  # how long to wait for another process that is logging


@dataclass(frozen=True, slots=True)
class Entry:
    """One question. `answer` and `evidence` are in the forms scripts rely on."""

    id: int
    time: str
    index: str
    answer: dict[str, Any]
    evidence: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Journal:
    """The log at `path` (default: log.sqlite in the user's data folder). Raises StorageError."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or data_folder() / "log.sqlite"

    def add(
        self,
        index: Path,
        answer: Answer,
        evidence: Evidence,
        calls: Sequence[Call] = (),
        session: str = "",
    ) -> int:
        """Note a question with the calls of models made for it; the number of the entry. `session`: the
        conversation that it belongs to."""
        hits = [hit.to_json() for hit in evidence.sentences or evidence.passages]
        row = (
            datetime.now(UTC).isoformat(timespec="seconds"),
            str(index),
            json.dumps(answer.to_json(), ensure_ascii=False),
            json.dumps(hits, ensure_ascii=False),
        )
        with self._database() as db:
            cursor = db.execute(
                "INSERT INTO entries (time, index_folder, answer, evidence) VALUES (?,?,?,?)", row
            )
            number = int(cursor.lastrowid or 0)
            told = [(number, json.dumps(call.to_json(), ensure_ascii=False)) for call in calls]
            db.executemany("INSERT INTO calls (entry, call) VALUES (?,?)", told)
            if session:
                db.execute("INSERT INTO sessions (name, entry) VALUES (?,?)", [session, number])
            return number

    def answers_of(self, session: str) -> list[Answer]:
        """The answers of a conversation, in order, with what later questions lean on: question, text, route
        and trace."""
        if not self.path.exists():
            return []
        with self._database() as db:
            rows = db.execute(
                "SELECT answer FROM entries JOIN sessions ON entry = id WHERE name = ? ORDER BY id", [session]
            ).fetchall()
        told = [json.loads(row[0]) for row in rows]
        return [
            Answer(
                one["question"], one["answer"], (), one["confidence"], one["abstained"], one["route"],
                Usage(), tuple(one["trace"]),
            )
            for one in told
        ]  # fmt: skip

    def calls(self, number: int) -> list[dict[str, Any]]:
        """The calls of models that were made for an entry, in order: `Call.to_json`."""
        if not self.path.exists():
            return []
        with self._database() as db:
            rows = db.execute("SELECT call FROM calls WHERE entry = ? ORDER BY rowid", [number]).fetchall()
        return [json.loads(row[0]) for row in rows]

    def newest(self, count: int) -> list[Entry]:
        return self._select("ORDER BY id DESC LIMIT ?", count)

    def get(self, number: int) -> Entry | None:
        found = self._select("WHERE id = ?", number)
        return found[0] if found else None

    def count(self) -> int:
        if not self.path.exists():
            return 0
        with self._database() as db:
            return int(db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def purge(self) -> None:
        """Erase every entry: rows are overwritten with zeros and the file is shrunk."""
        if not self.path.exists():
            return
        with self._database() as db:
            db.execute("DELETE FROM entries")
            db.execute("DELETE FROM calls")
            db.execute("DELETE FROM sessions")
            db.execute("DELETE FROM sqlite_sequence")
            db.execute("VACUUM")

    def _select(self, condition: str, value: int) -> list[Entry]:
        if not self.path.exists():
            return []
        with self._database() as db:
            sql = f"SELECT id, time, index_folder, answer, evidence FROM entries {condition}"
            rows = db.execute(sql, [value]).fetchall()
        return [Entry(r[0], r[1], r[2], json.loads(r[3]), json.loads(r[4])) for r in rows]

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                db.execute("PRAGMA secure_delete = ON")
                db.executescript(_SCHEMA)
                yield db
            finally:
                db.close()
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"The log {self.path} cannot be used: {error}.",
                "Turn it off with --no-log or `log = false` in agentmtl.toml, or move the file away.",
            ) from error
