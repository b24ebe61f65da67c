"""A change to an index: documents put and deleted, published together or not at all.

Segments are written as the work goes on, so that a build killed half-way resumes: the next one adopts
the finished segments it finds, provided they were made on top of the same generation with the same
settings. Nothing is visible before `Store` publishes.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentmtl.errors import IndexStoreError
from agentmtl.index.batch import Batch, Progress, SegmentDraft, encode_checked, text_hash
from agentmtl.index.files import FileEntry, hash_file, remove, storage_errors
from agentmtl.index.instructions import settled, told_by_head
from agentmtl.index.live import DOCUMENTS, NOBODY, Dead
from agentmtl.index.manifest import (
    SEGMENT_MANIFEST,
    SEGMENT_PATTERN,
    SEGMENTS_NAME,
    IndexSettings,
    SegmentManifest,
)
from agentmtl.index.merge import MAX_SMALL, KeepsNote, groups, live_units, merge_segments, small
from agentmtl.index.rows import NO_DOCUMENTS, FileNote, content_hash, content_of_file
from agentmtl.index.segment import Segment, open_segment, write_segment
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.trust import Trust
from agentmtl.index.vectors import vectors_of
from agentmtl.ingest import cut
from agentmtl.schema import Document
from agentmtl.trunk.encoder import Encoder, Vectors

if TYPE_CHECKING:
    from agentmtl.index.identifiers.tokenizer import StreamTokenizer

FLUSH_UNITS = 8_192  # units gathered before they are encoded and written: what a crash can cost at most
FLUSH_CHARACTERS = 16_000_000

Outcome = Literal["added", "updated", "unchanged"]
_Place = tuple[Segment, int]  # a document row in a segment


@dataclass(frozen=True, slots=True)
class Draft:
    """What a transaction wants published: segments by name, and what is newly dead in each."""

    segments: dict[str, FileEntry]
    opened: dict[str, Segment]
    dead: dict[str, Dead]
    changed: bool
    streams: tuple[StreamTokenizer, ...] = ()  # to be added
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # all there are then


class Transaction:
    """Gathers changes on top of `base` (None: on top of nothing). Used under the writer's lock only."""

    def __init__(
        self,
        folder: Path,
        settings: IndexSettings,
        encoder: Encoder | None,
        base: Snapshot | None,
        base_sha256: str,
        progress: Progress = lambda units: None,
    ) -> None:
        self._folder = folder / SEGMENTS_NAME
        self._settings = settings
        self._encoder = encoder
        self._base_sha256 = base_sha256
        self._progress = progress
        self._trust = Trust(folder)
        self._segments: list[Segment] = list(base.segments) if base else []
        self._entries: dict[str, FileEntry] = dict(base.manifest.segments) if base else {}
        self._dead: dict[str, Dead] = dict(base.dead) if base else {}
        self._new: list[str] = []  # names of the segments of this transaction
        self._adopted: dict[str, set[int]] = {}  # segment name → rows nobody has asked for yet
        self._batch = Batch()
        self._made: dict[bytes, Vectors] = {}  # of sentences of the batch
        self._mentioned: set[bytes] = set()  # entities that lost a mention
        self._changed = base is None
        self._known_streams = set(base.manifest.streams) if base else set()
        self.cards = dict(base.manifest.tasks) if base else {}  # of tasks, by name
        self._streams: dict[str, StreamTokenizer] = {}

    # --- changes ------------------------------------------------------------------------------------

    def put(self, document: Document) -> Outcome:
        """Add a document, or replace the one with its key; the same content again costs nothing."""
        key, content = document.key, self._hash(document)
        held, place = self._batch.documents.get(key), self._find(key)
        known = self._hash(held[0]) if held else self._content(place) if place else None
        if known == content:
            return "unchanged"
        if known is not None:
            self.delete(key)
        if leftover := self._leftover(key, content):
            self._adopt(leftover)
        else:
            self._gather(document)
        return "added" if known is None else "updated"

    def _hash(self, document: Document) -> bytes:
        return content_hash(document, told_by_head(self._settings, self.cards, document))

    def _gather(self, document: Document) -> None:
        one = self._settings
        self._batch.add(document, cut(document, one.chunking, self._encode, one.encoder.space))
        if self._batch.units >= FLUSH_UNITS or self._batch.characters >= FLUSH_CHARACTERS:
            self._flush()

    def _encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors of sentences for the chunker, kept until they are written so that none is made twice."""
        if self._encoder is None:
            raise ValueError("a transaction that adds documents needs an encoder")
        vectors = encode_checked(self._encoder, texts)
        self._made.update(zip(map(text_hash, texts), vectors, strict=True))
        return vectors

    def delete(self, key: str) -> bool:
        """Delete the document with this key; False when there is none."""
        if key in self._batch.documents:
            self._batch.remove(key)
            return True
        place = self._find(key)
        if place is not None:
            self._kill_rows(place[0], [place[1]])
            self._changed = True
        return place is not None

    def add_stream(self, tokenizer: StreamTokenizer) -> None:
        """Give the index a token stream; one that it has already costs nothing."""
        if tokenizer.identity not in self._known_streams:
            self._streams[tokenizer.identity] = tokenizer
            self._changed = True

    def put_task(self, name: str, card: Mapping[str, Any]) -> None:
        """Add a task card, as plain JSON, or replace the one of that name. Raises UsageError for another
        instruction or encoder than examples were encoded with."""
        card = settled(self._settings, self.cards, name, card)
        if self.cards.get(name) != card:
            self.cards[name] = card
            self._changed = True

    def note_file(self, file: str, note: FileNote) -> None:
        """Remember that a file was read to its end, so that it need not be read again while unchanged."""
        if note not in (segment.rows.file_note(file) for segment in self._kept()):
            self._batch.files[file] = note

    def is_unchanged(self, file: str, sha256: str) -> bool:
        """Whether all that a file with these bytes gives is here already (adopting what a crash left)."""
        noted = [n for segment in self._segments if (n := segment.rows.file_note(file))]
        contents = {n.content for n in noted if n.sha256 == sha256}
        here = self._documents_of(file)
        wanted = [content for place, content in here if self._is_wanted(place)]
        if content_of_file(wanted) in contents:
            return True
        if wanted or content_of_file(content for _, content in here) not in contents:
            return False
        for place, _ in here:
            self.delete(self._key(place))  # the same document, if it came another way
            self._adopt(place)
        return True

    def count_of_file(self, file: str) -> int:
        """How many documents that came from a file are wanted so far."""
        return sum(self._is_wanted(place) for place, _ in self._documents_of(file))

    def _documents_of(self, file: str) -> list[tuple[_Place, bytes]]:
        """The documents that came from a file, leftovers of a crash included, with their content hashes."""
        sql = "SELECT row, content FROM documents WHERE file = ?"
        return [
            ((segment, row), content)
            for segment in self._segments
            for row, content in segment.rows.query(sql, [file])
            if not self._dead_in(segment).has(DOCUMENTS, row)
        ]

    def keys_by_file(self) -> Iterator[tuple[str, str]]:
        """(file, key) of every document that is wanted so far and came from a file."""
        for segment in self._segments:
            rows = segment.rows.query("SELECT row, file, key FROM documents WHERE file != ''")
            for row, file, key in rows:
                dead = self._dead_in(segment).has(DOCUMENTS, row)
                if not dead and self._is_wanted((segment, row)):
                    yield file, key

    def has(self, key: str) -> bool:
        """Whether a document with this key is there."""
        return key in self._batch.documents or self._find(key) is not None

    def adopt_leftovers(self, published: Collection[str]) -> None:
        """Take over finished segments of an interrupted transaction like this one, and remove others.

        `published` segments are none: readers need them, even where this transaction does not.
        """
        found = (p.name for p in self._folder.iterdir() if SEGMENT_PATTERN.fullmatch(p.name))
        for name in sorted(name for name in found if name not in published):
            segment = self._open_leftover(self._folder / name)
            if segment is None:
                remove(self._folder / name)
                continue
            self._segments.append(segment)
            self._entries[name] = hash_file(self._folder / name / SEGMENT_MANIFEST)
            self._adopted[name] = set(range(segment.manifest.documents))
            self._new.append(name)

    def finish(self, merge_all: bool = False) -> Draft:
        """Write what is left and say what should be published. `merge_all` drops all deleted units."""
        self._flush()
        self._drop_unwanted()
        self._kill_orphans()
        self._leave_out_empty()
        self._merge(merge_all)
        segments = {s.name: self._entries[s.name] for s in self._segments}
        dead = {s.name: d for s in self._segments if (d := self._dead.get(s.name)) and d.positions}
        opened = {s.name: s for s in self._segments}
        return Draft(segments, opened, dead, self._changed, tuple(self._streams.values()), dict(self.cards))

    # --- finding ------------------------------------------------------------------------------------

    def _dead_in(self, segment: Segment) -> Dead:
        return self._dead.get(segment.name, NOBODY)

    def _find(self, key: str) -> _Place | None:
        """Where the wanted document with this key is, unless it is in the batch."""
        for segment in reversed(self._segments):
            for (row,) in segment.rows.query("SELECT row FROM documents WHERE key = ?", [key]):
                if not self._dead_in(segment).has(DOCUMENTS, row) and self._is_wanted((segment, row)):
                    return segment, row
        return None

    def _leftover(self, key: str, content: bytes) -> _Place | None:
        """The same document in what a crash left, where nobody has asked for it yet."""
        sql = "SELECT row FROM documents WHERE key = ? AND content = ?"
        for segment in self._segments:
            if self._adopted.get(segment.name):
                for (row,) in segment.rows.query(sql, [key, content]):
                    if not self._is_wanted((segment, row)):
                        return segment, row
        return None

    def _kept(self) -> list[Segment]:
        """The segments that will be part of the index for certain."""
        return [segment for segment in self._segments if not self._adopted.get(segment.name)]

    def _key(self, place: _Place) -> str:
        segment, row = place
        return str(segment.rows.query("SELECT key FROM documents WHERE row = ?", [row])[0][0])

    def _content(self, place: _Place) -> bytes:
        segment, row = place
        return bytes(segment.rows.query("SELECT content FROM documents WHERE row = ?", [row])[0][0])

    def _is_wanted(self, place: _Place) -> bool:
        segment, row = place
        return row not in self._adopted.get(segment.name, ())

    def _adopt(self, place: _Place) -> None:
        segment, row = place
        self._adopted[segment.name].discard(row)
        self._progress(len(segment.rows.positions_of_document(row)))
        self._changed = True

    # --- deleting -----------------------------------------------------------------------------------

    def _kill_rows(self, segment: Segment, rows: Sequence[int]) -> None:
        doomed: dict[str, list[int]] = {DOCUMENTS: list(rows)}
        for row in rows:
            for level, position in segment.rows.positions_of_document(row):
                doomed.setdefault(level, []).append(position)
        passages = doomed.get("passage", [])
        self._mentioned |= {entity for entity, _ in segment.rows.entities_of(passages)}
        self._dead[segment.name] = self._dead_in(segment).union(doomed)

    def _drop_unwanted(self) -> None:
        """Documents of adopted segments that this transaction did not ask for."""
        for segment in self._segments:
            if rows := self._adopted.get(segment.name):
                self._kill_rows(segment, sorted(rows))
        self._adopted.clear()

    def _leave_out_empty(self) -> None:
        """New segments of which nothing is left need not be published.

        An adopted segment none of whose documents was asked for may still be needed for its entities.
        """
        for segment in [s for s in self._segments if s.name in self._new and s.manifest.documents]:
            if live_units(segment, self._dead_in(segment)) == 0:
                self._segments.remove(segment)

    def _kill_orphans(self) -> None:
        """Delete the entities that no live passage mentions any more."""
        for entity in self._mentioned:
            if any(self._is_mentioned(segment, entity) for segment in self._segments):
                continue
            for segment in self._segments:
                for _, level, position in segment.rows.positions_of([entity]):
                    if not self._dead_in(segment).has(level, position):
                        self._dead[segment.name] = self._dead_in(segment).union({level: [position]})

    def _is_mentioned(self, segment: Segment, entity: bytes) -> bool:
        dead = self._dead_in(segment)
        return any(not dead.has("passage", passage) for passage, _, _ in segment.rows.mentions(entity))

    # --- writing ------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if not self._batch.documents and not self._batch.files:
            return
        if self._encoder is None:
            raise ValueError("a transaction that adds documents needs an encoder")
        draft = SegmentDraft(self._batch, self._settings, self.cards)
        draft.add_entities(self._live_ids)
        rows, levels = draft.finish(self._encoder, self._known_vectors, self._progress)
        folder = self._folder / self._new_name()
        with storage_errors(folder, "write"):
            entry = write_segment(folder, self._base_sha256, self._settings, rows, draft.documents, levels)
        self._append(folder, entry)
        self._batch = Batch()
        self._made.clear()

    def _new_name(self) -> str:
        return f"{len(self._entries):06d}-{secrets.token_hex(4)}"

    def _append(self, folder: Path, entry: FileEntry) -> None:
        self._entries[folder.name] = entry
        self._segments.append(open_segment(folder, entry, self._settings, self._trust))
        self._new.append(folder.name)
        self._changed = True

    def _live_ids(self, ids: Sequence[bytes]) -> set[bytes]:
        return {
            id_
            for segment in self._segments
            for id_, level, position in segment.rows.positions_of(ids)
            if not self._dead_in(segment).has(level, position)
        }

    def _known_vectors(self, hashes: Sequence[bytes]) -> Mapping[bytes, Vectors]:
        found = {h: self._made[h] for h in hashes if h in self._made}
        for segment in self._segments:
            for hashed, (level, position) in segment.rows.texts_encoded(hashes).items():
                found[hashed] = vectors_of(segment.levels[level].flat)[position].copy()
        return found

    def _open_leftover(self, folder: Path) -> Segment | None:
        """The finished segment in `folder`, if it may be adopted."""
        try:
            entry = hash_file(folder / SEGMENT_MANIFEST)
            manifest = SegmentManifest.from_bytes((folder / SEGMENT_MANIFEST).read_bytes())
            wanted = (self._base_sha256, self._settings.fingerprint)
            if (manifest.base, manifest.fingerprint) != wanted or not manifest.documents:
                return None
            return open_segment(folder, entry, self._settings, self._trust)
        except (OSError, ValueError, LookupError, AttributeError, IndexStoreError):
            return None  # unfinished: it was never part of the index, and the caller removes it

    def _merge(self, merge_all: bool) -> None:
        candidates = groups(self._segments if merge_all else self._small_ones(), self._dead_in)
        if not merge_all:
            candidates = [group for group in candidates if len(group) > 1]
        if not candidates:
            return
        files = {file for file, _ in self.keys_by_file()}

        def keeps_note(file: str, note: FileNote) -> bool:
            return file in files or note.content == NO_DOCUMENTS

        for group in candidates:
            if len(group) > 1 or self._holds_deleted(group[0], keeps_note):
                self._merge_group(group, keeps_note)

    def _small_ones(self) -> list[Segment]:
        """What may be merged in passing: all small segments when there are many, else those just made."""
        few = small(self._segments, self._dead)
        return few if len(few) > MAX_SMALL else [s for s in self._segments if s.name in self._new]

    def _holds_deleted(self, segment: Segment, keeps_note: KeepsNote) -> bool:
        stale = (file for file, note in segment.rows.file_notes().items() if not keeps_note(file, note))
        return bool(self._dead_in(segment).positions) or any(stale)

    def _merge_group(self, group: list[Segment], keeps_note: KeepsNote) -> None:
        folder = self._folder / self._new_name()
        # never adopted after a crash: the segments it was made of are still there then
        with storage_errors(folder, "write"):
            entry = merge_segments(folder, "merged", self._settings, group, self._dead_in, keeps_note)
        at = self._segments.index(group[0])
        self._segments = [s for s in self._segments if s not in group]
        for segment in group:
            self._dead.pop(segment.name, None)
        self._changed = True
        if entry is not None:
            self._append(folder, entry)
            self._segments.insert(at, self._segments.pop())
