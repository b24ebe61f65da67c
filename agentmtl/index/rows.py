"""Documents, units and mentions of one segment, in SQLite.

A document's text is stored once; a passage or sentence is a span of it, so a citation always shows in
place. The database is filled in memory, written once, and opened read-only and immutable.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmtl.errors import IndexDamagedError
from agentmtl.schema import LEVELS, Document, Level, Metadata, Unit

ROWS_NAME = "units.sqlite"
LEVEL_NUMBER: dict[Level, int] = {level: number for number, level in enumerate(LEVELS)}
_VARIABLES = 900  # SQLite allows at least 999 bound values in one statement

_SCHEMA = """
CREATE TABLE documents (
  row INTEGER PRIMARY KEY,        -- 0, 1, 2 … in the order they came
  key TEXT NOT NULL UNIQUE,       -- Document.key
  source_id TEXT NOT NULL,
  file TEXT NOT NULL,
  title TEXT NOT NULL,
  content BLOB NOT NULL,          -- hash of all that its units are made of; here, before the long texts
  metadata TEXT NOT NULL,         -- a JSON object
  text TEXT NOT NULL
);
CREATE TABLE units (
  level INTEGER NOT NULL,
  pos INTEGER NOT NULL,           -- row of the level's vectors and postings
  id BLOB NOT NULL,               -- 12 bytes
  doc INTEGER NOT NULL,           -- documents.row; -1 for an entity
  start INTEGER NOT NULL,
  end INTEGER NOT NULL,
  parent BLOB,
  name TEXT,                      -- of an entity
  text_hash BLOB NOT NULL,        -- of what was encoded, so that equal text is never encoded twice
  PRIMARY KEY (level, pos)
) WITHOUT ROWID;
CREATE TABLE mentions (
  entity BLOB NOT NULL,           -- units.id of an entity, perhaps of another segment
  passage INTEGER NOT NULL,       -- units.pos of a passage of this segment
  start INTEGER NOT NULL,
  end INTEGER NOT NULL,
  PRIMARY KEY (entity, passage, start, end)
) WITHOUT ROWID;
CREATE TABLE files (              -- files read to their end
  file TEXT PRIMARY KEY,
  sha256 TEXT NOT NULL,           -- of its bytes
  content BLOB NOT NULL           -- of the documents it gave, see content_of_file
) WITHOUT ROWID;
"""
_INDEXES = """
CREATE INDEX documents_source ON documents (source_id);
CREATE INDEX documents_file ON documents (file);
CREATE INDEX units_id ON units (id);
CREATE INDEX units_doc ON units (doc, level, start);
CREATE INDEX units_text ON units (text_hash);
CREATE INDEX mentions_passage ON mentions (passage);
"""


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A unit as it is stored. `id` and `parent` are 12 raw bytes."""

    pos: int
    id: bytes
    doc: int
    start: int
    end: int
    parent: bytes | None
    name: str | None
    text_hash: bytes


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document as it is stored."""

    row: int
    key: str
    source_id: str
    file: str
    title: str
    content: bytes
    metadata: str
    text: str


@dataclass(frozen=True, slots=True)
class FileNote:
    """A file that was read to its end: the hash of its bytes, and of the documents it gave.

    The note holds as long as exactly those documents are in the index under that file, however they came
    there: whoever changes one of them by another way, or loses one in a crash, makes the file be read again.
    """

    sha256: str
    content: bytes


def content_of_file(contents: Iterable[bytes]) -> bytes:
    """One hash of the content hashes of a file's documents, in any order."""
    return hashlib.blake2b(b"".join(sorted(contents)), digest_size=16).digest()


NO_DOCUMENTS = content_of_file([])


def content_hash(document: Document, told: str = "") -> bytes:
    """Of everything that a document's units are made of (its file's own hash is not); `told`: what a head
    encodes of it."""
    names = [document.key, document.source_id, document.file, document.title]
    parts = [*names, document.text, metadata_json(document.metadata), *([told] if told else [])]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def metadata_json(metadata: Metadata) -> str:
    return json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False, allow_nan=False)


def document_row(row: int, document: Document, told: str = "") -> DocumentRow:
    return DocumentRow(
        row=row,
        key=document.key,
        source_id=document.source_id,
        file=document.file,
        title=document.title,
        content=content_hash(document, told),
        metadata=metadata_json(document.metadata),
        text=document.text,
    )


class RowsBuilder:
    """Fills a segment's database in memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def add_documents(self, rows: Iterable[DocumentRow]) -> None:
        values = ([getattr(r, n) for n in DocumentRow.__slots__] for r in rows)
        self._db.executemany("INSERT INTO documents VALUES (?,?,?,?,?,?,?,?)", values)

    def add_units(self, level: Level, rows: Iterable[UnitRow]) -> None:
        number = LEVEL_NUMBER[level]
        values = ([number, *(getattr(r, n) for n in UnitRow.__slots__)] for r in rows)
        self._db.executemany("INSERT INTO units VALUES (?,?,?,?,?,?,?,?,?)", values)

    def add_mentions(self, rows: Iterable[tuple[bytes, int, int, int]]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO mentions VALUES (?,?,?,?)", rows)

    def add_files(self, notes: Mapping[str, FileNote]) -> None:
        values = ([file, note.sha256, note.content] for file, note in notes.items())
        self._db.executemany("INSERT OR REPLACE INTO files VALUES (?,?,?)", values)

    def finish(self) -> bytes:
        """The database's bytes; the builder is of no use afterwards."""
        self._db.execute("COMMIT")
        self._db.executescript(_INDEXES)
        data = self._db.serialize()
        self._db.close()
        return data


class Rows:
    """Read access to a segment's database; safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        uri = path.absolute().as_uri() + "?mode=ro&immutable=1"
        self._db = sqlite3.connect(
            uri, uri=True, check_same_thread=False, isolation_level=None, cached_statements=8
        )
        weakref.finalize(self, self._db.close)
        self._lock = threading.Lock()
        self._db.execute("PRAGMA mmap_size=1073741824")
        self.query("SELECT count(*) FROM sqlite_master")  # opens the file now, so that unlinking is harmless

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.ProgrammingError:  # a mistake in the call, not in the file
            raise
        except sqlite3.DatabaseError as error:
            raise IndexDamagedError.of_file(self._path.name, f"cannot be read ({error})") from error

    def close(self) -> None:
        self._db.close()

    def in_chunks(self, sql: str, fixed: Sequence[Any], values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run `sql`, whose one `{}` becomes the placeholders, over any number of values."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(values), _VARIABLES):
            part = values[start : start + _VARIABLES]
            found += self.query(sql.format(",".join("?" * len(part))), [*fixed, *part])
        return found

    def file_note(self, file: str) -> FileNote | None:
        found = self.query("SELECT sha256, content FROM files WHERE file = ?", [file])
        return FileNote(*found[0]) if found else None

    def file_notes(self) -> dict[str, FileNote]:
        rows = self.query("SELECT file, sha256, content FROM files")
        return {file: FileNote(sha256, content) for file, sha256, content in rows}

    def units(self, level: Level, positions: Sequence[int]) -> dict[int, Unit]:
        """The units at these positions. An entity's mentions and source are left to the snapshot."""
        found = self.in_chunks(_UNITS_SQL, [LEVEL_NUMBER[level]], positions)
        return {row[0]: _unit(level, row) for row in found}

    def positions_of(self, ids: Sequence[bytes]) -> list[tuple[bytes, Level, int]]:
        """(id, level, position) of every one of these ids that is here."""
        rows = self.in_chunks("SELECT id, level, pos FROM units WHERE id IN ({})", [], ids)
        return [(row[0], LEVELS[row[1]], row[2]) for row in rows]

    def positions_of_document(self, row: int) -> list[tuple[Level, int]]:
        found = self.query("SELECT level, pos FROM units WHERE doc = ?", [row])
        return [(LEVELS[level], pos) for level, pos in found]

    def spans_within(self, level: Level, doc: int, start: int, end: int) -> list[int]:
        """Positions of the units of `level` inside [start, end) of a document, in order."""
        within = "doc=? AND level=? AND start>=? AND start<? AND end<=?"
        sql = f"SELECT pos FROM units WHERE {within} ORDER BY start"
        return [r[0] for r in self.query(sql, [doc, LEVEL_NUMBER[level], start, end, end])]

    def texts_encoded(self, hashes: Sequence[bytes]) -> dict[bytes, tuple[Level, int]]:
        """Where the vector of an already encoded text is. A document's own vector is a mean: left out."""
        sql = "SELECT text_hash, level, pos FROM units WHERE level != 0 AND text_hash IN ({})"
        return {r[0]: (LEVELS[r[1]], r[2]) for r in self.in_chunks(sql, [], hashes)}

    def mentions(self, entity: bytes) -> list[tuple[int, int, int]]:
        """(passage position, start, end) of every mention in this segment."""
        rows = self.query("SELECT passage, start, end FROM mentions WHERE entity=?", [entity])
        return [(r[0], r[1], r[2]) for r in rows]

    def names_within(self, doc: int, start: int, end: int) -> list[tuple[str, bytes]]:
        """(name, entity id) of the mentions in the passages that hold the span [start, end) of a document."""
        rows = self.query(_NAMES_SQL, [LEVEL_NUMBER["passage"], doc, start, end])
        return [(" ".join(text.split()), entity) for entity, text in rows]

    def entities_of(self, passages: Sequence[int]) -> list[tuple[bytes, int]]:
        """(entity id, passage position) of every mention in these passages."""
        sql = "SELECT DISTINCT entity, passage FROM mentions WHERE passage IN ({})"
        return [(r[0], r[1]) for r in self.in_chunks(sql, [], passages)]


_UNITS_SQL = """
SELECT u.pos, u.id, coalesce(u.name, substr(d.text, u.start + 1, u.end - u.start)), coalesce(d.source_id, ''),
       coalesce(d.title, ''), u.parent, u.start, u.end, coalesce(d.metadata, '{{}}'), coalesce(d.file, '')
FROM units u LEFT JOIN documents d ON d.row = u.doc
WHERE u.level = ? AND u.pos IN ({})
"""

_NAMES_SQL = """
SELECT DISTINCT m.entity, substr(d.text, m.start + 1, m.end - m.start)
FROM units u JOIN mentions m ON m.passage = u.pos JOIN documents d ON d.row = u.doc
WHERE u.level = ? AND u.doc = ? AND u.start <= ? AND u.end >= ? AND m.end > m.start
"""


def _unit(level: Level, row: tuple[Any, ...]) -> Unit:
    _, id_, text, source_id, title, parent, start, end, metadata, file = row
    return Unit(
        id=id_.hex(),
        level=level,
        text=text,
        source_id=source_id,
        title=title,
        parent=parent.hex() if parent is not None else None,
        start=start,
        end=end,
        metadata=json.loads(metadata) if metadata != "{}" else {},
        file=file,
    )
