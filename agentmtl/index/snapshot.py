"""One generation of an index, opened for reading. It never changes, whatever writers do meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from agentmtl.errors import IndexDamagedError
from agentmtl.index.live import DOCUMENTS, NOBODY, Dead, LevelView, read_tombstones
from agentmtl.index.manifest import SEGMENTS_NAME, IndexSettings, Manifest, read_current
from agentmtl.index.segment import Segment, open_segment
from agentmtl.index.trust import Trust
from agentmtl.schema import Level, Unit

RACES = 20  # times a writer may publish while we open, before we give up

Address = tuple[int, int]  # (segment number in the snapshot, position in its level)


@dataclass(frozen=True)
class Snapshot:
    """The opened segments of a generation and what is deleted in them."""

    folder: Path
    manifest: Manifest
    sha256: str  # of the manifest
    segments: tuple[Segment, ...]
    dead: Mapping[str, Dead]

    @property
    def settings(self) -> IndexSettings:
        return self.manifest.settings

    @property
    def generation(self) -> int:
        return self.manifest.generation

    def views(self, level: Level) -> tuple[LevelView, ...]:
        """The level in every segment that has it, with its deleted units."""
        if level not in self._views:
            self._views[level] = tuple(
                LevelView(number, segment, segment.levels[level], self.dead_in(segment).at(level))
                for number, segment in enumerate(self.segments)
                if level in segment.levels
            )
        return self._views[level]

    @cached_property
    def _views(self) -> dict[Level, tuple[LevelView, ...]]:
        return {}

    @cached_property
    def derived(self) -> dict[str, Any]:
        """What others make of this generation and keep as long as it is open, by a name of their own."""
        return {}

    def dead_in(self, segment: Segment) -> Dead:
        return self.dead.get(segment.name, NOBODY)

    def count(self, level: Level) -> int:
        """Live units of a level."""
        return sum(view.units for view in self.views(level))

    def id_of(self, level: Level, address: Address) -> bytes:
        return self.segments[address[0]].levels[level].id(address[1])

    def units(self, level: Level, addresses: Sequence[Address]) -> list[Unit]:
        """The units at these addresses, in this order."""
        wanted: dict[int, list[int]] = {}
        for number, position in addresses:
            wanted.setdefault(number, []).append(position)
        found = {n: self.segments[n].rows.units(level, p) for n, p in wanted.items()}
        units = [found[number][position] for number, position in addresses]
        return [self._with_mentions(u) for u in units] if level == "entity" else units

    def _with_mentions(self, entity: Unit) -> Unit:
        mentions = self.mentions(bytes.fromhex(entity.id))
        passages = self.units("passage", [(number, position) for number, position, _, _ in mentions])
        ordered = sorted({(unit.source_id, unit.start, unit.id) for unit in passages})
        source = ordered[0][0] if ordered else ""
        return replace(entity, source_id=source, mentions=tuple(id_ for _, _, id_ in ordered))

    def mentions(self, entity: bytes) -> list[tuple[int, int, int, int]]:
        """(segment number, passage position, start, end) of the live mentions of an entity."""
        return [
            (number, passage, start, end)
            for number, segment in enumerate(self.segments)
            for passage, start, end in segment.rows.mentions(entity)
            if not self.dead_in(segment).has("passage", passage)
        ]

    def entities_of(self, passages: Iterable[Address]) -> dict[bytes, list[Address]]:
        """The entities mentioned in these passages: entity id → the passages (of those) that mention it."""
        wanted: dict[int, list[int]] = {}
        for number, position in passages:
            wanted.setdefault(number, []).append(position)
        found: dict[bytes, list[Address]] = {}
        for number, positions in wanted.items():
            for entity, passage in self.segments[number].rows.entities_of(positions):
                found.setdefault(entity, []).append((number, passage))
        return found

    def locate(self, ids: Sequence[str]) -> dict[str, tuple[Level, Address]]:
        """Where the live units with these ids are."""
        raw = [bytes.fromhex(i) for i in ids if _is_id(i)]
        found: dict[str, tuple[Level, Address]] = {}
        for number, segment in enumerate(self.segments):
            dead = self.dead_in(segment)
            for id_, level, position in segment.rows.positions_of(raw):
                if not dead.has(level, position):
                    found[id_.hex()] = (level, (number, position))
        return found

    def documents(self, column: str, value: str) -> list[tuple[int, int, str]]:
        """(segment number, row, key) of the live documents whose key, source_id or file is `value`."""
        if column not in {"key", "source_id", "file"}:
            raise ValueError(column)
        if not is_unicode(value):
            return []
        return [
            (number, row, key)
            for number, segment in enumerate(self.segments)
            for row, key in segment.rows.query(f"SELECT row, key FROM documents WHERE {column} = ?", [value])
            if not self.dead_in(segment).has(DOCUMENTS, row)
        ]

    def document_text(self, number: int, row: int) -> str:
        """The stored text of a document, to which all its spans refer."""
        found = self.segments[number].rows.query("SELECT text FROM documents WHERE row = ?", [row])
        text: str = found[0][0]
        return text

    def document_key(self, number: int, row: int) -> str:
        found = self.segments[number].rows.query("SELECT key FROM documents WHERE row = ?", [row])
        key: str = found[0][0]
        return key

    def live_rows(self, sql: str) -> Iterable[tuple[int, tuple[Any, ...]]]:
        """(segment number, row of `sql`) for live documents; the statement's first column is the row."""
        for number, segment in enumerate(self.segments):
            dead = self.dead_in(segment)
            for row in segment.rows.query(sql):
                if not dead.has(DOCUMENTS, row[0]):
                    yield number, row


def open_snapshot(folder: Path, known: Mapping[str, Segment] | None = None) -> Snapshot:
    """Open the published generation, pinning it: its files are opened now.

    `known` are segments already open in this process, by name; they are shared. Raises IndexMissingError,
    IndexDamagedError (naming the files) or IndexFormatError.
    """
    for _ in range(RACES):
        manifest, sha256 = read_current_settled(folder)
        trust = Trust(folder)
        try:
            return _open(folder, manifest, sha256, known or {}, trust)
        except IndexDamagedError:
            if not republished(folder, sha256):
                raise
        finally:
            trust.save()
    raise IndexDamagedError(f"{folder} was rewritten {RACES} times while it was opened.", "Try again.")


def _open(
    folder: Path, manifest: Manifest, sha256: str, known: Mapping[str, Segment], trust: Trust
) -> Snapshot:
    segments = tuple(
        known.get(name) or open_segment(folder / SEGMENTS_NAME / name, entry, manifest.settings, trust)
        for name, entry in manifest.segments.items()
    )
    dead = read_tombstones(folder, manifest.tombstones, trust)
    return Snapshot(folder, manifest, sha256, segments, dead)


def read_current_settled(folder: Path) -> tuple[Manifest, str]:
    """`read_current`, again where a writer published between its two reads."""
    for _ in range(RACES):
        try:
            return read_current(folder)
        except IndexDamagedError as error:
            damage = error
    raise damage


def republished(folder: Path, sha256: str) -> bool:
    """Whether another generation than the one whose manifest has this hash is published now."""
    return read_current_settled(folder)[1] != sha256


def is_unicode(text: str) -> bool:
    """False for a text with half of a surrogate pair, which UTF-8 and hence the index cannot hold."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _is_id(text: str) -> bool:
    return len(text) == 24 and all(c in "0123456789abcdef" for c in text)
