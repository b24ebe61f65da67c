"""The log of questions: what was asked, what was retrieved, what was answered. Kept on this machine only.

A SQLite file in the user's data folder. `purge` erases the bytes, not only the rows.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import finalize

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
);
PRAGMA user_version = 1;
"""
_VERSION = 1  # raised with the schema, which only ever adds
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
    """The log at `path` (default: log.sqlite in the user's data folder). Safe to use from several threads.
    Raises StorageError."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or data_folder() / "log.sqlite"
        self._open: sqlite3.Connection | None = None
        self._lock = threading.Lock()

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
        with self._database() as db, _transaction(db):
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
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _select(self, condition: str, value: int) -> list[Entry]:
        if not self.path.exists():
            return []
        with self._database() as db:
            sql = f"SELECT id, time, index_folder, answer, evidence FROM entries {condition}"
            rows = db.execute(sql, [value]).fetchall()
        return [Entry(r[0], r[1], r[2], json.loads(r[3]), json.loads(r[4])) for r in rows]

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The file, which stays open from the first use: opening and closing would cost more than a row."""
        try:
            with self._lock:
                if self._open is None or not self.path.exists():
                    self._open = _opened(self.path)
                    finalize(self, self._open.close)
                yield self._open
        except (OSError, sqlite3.Error) as error:
            self._open = None
            raise StorageError(
                f"The log {self.path} cannot be used: {error}.",
                "Turn it off with --no-log or `log = false` in agentmtl.toml, or move the file away.",
            ) from error


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # A question is not worth waiting for the disk: a power cut may take the newest entries.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA secure_delete = ON")
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, and one wait for the disk."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
