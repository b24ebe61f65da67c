"""The index on disk: a folder of immutable segments, published generation by generation.

Writing: take the lock, write segments and tombstones (each file on disk before anything names it), write
the manifest, and last replace CURRENT by one rename. Whatever happens before that rename, readers see the
old generation; after it, the new one. Then files that no generation needs are removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import EncoderMismatchError, IndexMissingError, StorageError, UsageError
from agentmtl.index.batch import Progress
from agentmtl.index.files import (
    TEMPORARY_SUFFIX,
    FileEntry,
    publish_staged,
    remove,
    stage,
    storage_errors,
    sync_folder,
    write_file,
)
from agentmtl.index.identifiers.storage import unneeded_streams, write_streams
from agentmtl.index.identifiers.tokenizer import StreamTokenizer
from agentmtl.index.live import Dead, tombstone_bytes
from agentmtl.index.lock import writer_lock
from agentmtl.index.manifest import (
    CURRENT_NAME,
    MANIFEST_PATTERN,
    SEGMENT_PATTERN,
    SEGMENTS_NAME,
    TOMBSTONE_PATTERN,
    IndexSettings,
    Manifest,
    current_line,
)
from agentmtl.index.segment import Segment
from agentmtl.index.snapshot import Snapshot, open_snapshot, read_current_settled
from agentmtl.index.transaction import Draft, Transaction
from agentmtl.schema import Level
from agentmtl.trunk.encoder import Encoder

logger = logging.getLogger(__name__)

MAX_TOMBSTONE_FILES = 16  # beyond it they are written as one


@dataclass(frozen=True)
class Store:
    """An index folder. `open` reads; `write` changes."""

    folder: Path

    def open(self, known: Snapshot | None = None) -> Snapshot:
        """The published generation (see `open_snapshot`). `known` lets opened segments be shared."""
        return open_snapshot(self.folder, {s.name: s for s in known.segments} if known else None)

    def open_or_none(self) -> Snapshot | None:
        """The published generation, or None where nothing was ever published."""
        try:
            return self.open()
        except IndexMissingError:
            return None

    def create(
        self,
        settings: IndexSettings,
        streams: Sequence[StreamTokenizer] = (),
        fitted: Mapping[str, Any] | None = None,
    ) -> Snapshot:
        """Publish an empty generation, with token streams and fitted values.

        Raises UsageError where an index is already.
        """
        with self._locked(0.0), storage_errors(self.folder, "write"):
            if self.open_or_none() is not None:
                raise UsageError(
                    f"{self.folder} already holds an index.", "Open it, or choose another folder."
                )
            transaction = Transaction(self.folder, settings, None, None, "")
            for tokenizer in streams:
                transaction.add_stream(tokenizer)
            self._publish(None, settings, transaction.finish(), fitted or {})
            return self.open()

    @contextmanager
    def write(
        self,
        settings: IndexSettings | None = None,
        encoder: Encoder | None = None,
        *,
        from_scratch: bool = False,
        merge_all: bool = False,
        fitted: Mapping[str, Any] | None = None,
        wait_seconds: float = 0.0,
        progress: Progress = lambda units: None,
    ) -> Iterator[Transaction]:
        """Change the index; on leaving the block without an error, publish.

        `from_scratch` leaves the old units out (they are replaced by what is put); `merge_all` compacts.
        `settings` or `fitted` None means those of the index, which must be there where settings are not
        given. Raises IndexMissingError,
        IndexLockedError, EncoderMismatchError, StorageError (nothing has changed then).
        """
        if settings is None:
            read_current_settled(self.folder)  # where there is no index, none shall seem to be begun
        with self._locked(wait_seconds):
            base = self.open() if settings is None else self.open_or_none()
            if base is not None and not from_scratch:
                _check_settings(base, settings or base.settings)
                settings = base.settings
            assert settings is not None
            # segments made from scratch stand on nothing: they never mix with those made on top of `base`
            on_top_of = ("scratch " if from_scratch else "") + (base.sha256 if base else "")
            below = None if from_scratch else base
            transaction = Transaction(self.folder, settings, encoder, below, on_top_of, progress)
            with storage_errors(self.folder, "write"):
                transaction.adopt_leftovers(published=base.manifest.segments if base else ())
            yield transaction
            draft = transaction.finish(merge_all)
            known = base.manifest.fitted if base else {}
            values = known if fitted is None else fitted
            with storage_errors(self.folder, "write"):
                if draft.changed or base is None or values != known:
                    self._publish(base, settings, draft, values)
            self._collect_garbage(must=merge_all)

    @contextmanager
    def _locked(self, wait_seconds: float) -> Iterator[None]:
        with storage_errors(self.folder, "write"):
            (self.folder / SEGMENTS_NAME).mkdir(parents=True, exist_ok=True)
        with writer_lock(self.folder, wait_seconds):
            yield

    def _publish(
        self, base: Snapshot | None, settings: IndexSettings, draft: Draft, fitted: Mapping[str, Any]
    ) -> None:
        generation = base.generation + 1 if base else 1
        tombstones = self._write_tombstones(base, draft, generation)
        streams = self._write_streams(base, draft)
        manifest = Manifest(
            generation=generation,
            settings=settings,
            segments=draft.segments,
            tombstones=tombstones,
            live=_live_counts(draft, settings),
            code_version=_code_version(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            streams=streams,
            tasks=dict(draft.tasks),
            fitted=fitted,
        )
        raw = manifest.to_bytes()
        remove(self.folder / manifest.name)  # of a commit that got no further
        stage(self.folder / CURRENT_NAME, current_line(generation, raw))
        if base is None:  # a manifest with neither CURRENT nor a staged one means that CURRENT was lost
            sync_folder(self.folder)
        write_file(self.folder / manifest.name, [raw])
        sync_folder(self.folder)  # the names are on disk before CURRENT refers to them
        publish_staged(self.folder / CURRENT_NAME)

    def _write_streams(self, base: Snapshot | None, draft: Draft) -> dict[str, dict[str, FileEntry]]:
        """The token streams of the new generation: those of its segments that are not there yet are made."""
        known = base.manifest.streams if base else {}
        if not known and not draft.streams:
            return {}
        return write_streams(self.folder, known, draft.streams, draft.opened.values())

    def _write_tombstones(self, base: Snapshot | None, draft: Draft, generation: int) -> dict[str, FileEntry]:
        """Only what is newly dead, in a file of its own, so that a deletion costs what it deletes."""
        if not draft.dead:
            return {}
        kept = dict(base.manifest.tombstones) if base else {}
        old = base.dead if base else {}
        new = draft.dead
        if len(kept) < MAX_TOMBSTONE_FILES and set(old) <= set(draft.dead):
            new = {name: _difference(dead, old.get(name)) for name, dead in draft.dead.items()}
        else:
            kept = {}
        new = {name: dead for name, dead in new.items() if dead.positions}
        if not new:
            return kept
        name = f"tombstones-{generation:08d}.json"
        remove(self.folder / name)
        data = tombstone_bytes({segment: dead.positions for segment, dead in new.items()})
        return kept | {name: write_file(self.folder / name, [data])}

    def _collect_garbage(self, must: bool) -> None:
        """Remove what the published generation does not name. `must`: a failure is an error (erasure)."""
        try:
            for path in self.unneeded():
                remove(path)
        except OSError as error:
            if must:
                raise StorageError(
                    f"The index was compacted, but old files could not be removed: {error.strerror}.",
                    f"Run it again: agentmtl index compact {self.folder}",
                ) from error
            logger.warning("old files stay in %s for now: %s", self.folder, error)

    def unneeded(self) -> list[Path]:
        """Files and folders left by earlier generations or by an interrupted write."""
        manifest = self.open_manifest()
        known = {manifest.name, CURRENT_NAME, *manifest.tombstones}
        ours = [
            p
            for p in self.folder.iterdir()
            if p.name not in known
            and (
                MANIFEST_PATTERN.fullmatch(p.name)
                or TOMBSTONE_PATTERN.fullmatch(p.name)
                or p.name == CURRENT_NAME + TEMPORARY_SUFFIX
            )
        ]
        segments = (p for p in (self.folder / SEGMENTS_NAME).iterdir() if SEGMENT_PATTERN.fullmatch(p.name))
        old = [p for p in segments if p.name not in manifest.segments]
        return ours + old + unneeded_streams(self.folder, manifest.streams)

    def open_manifest(self) -> Manifest:
        return read_current_settled(self.folder)[0]


def _difference(dead: Dead, old: Dead | None) -> Dead:
    if old is None:
        return dead
    fresh = {level: np.setdiff1d(p, old.at(level), assume_unique=True) for level, p in dead.positions.items()}
    return Dead({level: p for level, p in fresh.items() if len(p)})


def _live_counts(draft: Draft, settings: IndexSettings) -> dict[Level, int]:
    def left(segment: Segment, level: Level) -> int:
        counts = segment.manifest.levels.get(level)
        dead = draft.dead.get(segment.name)
        return (counts.units if counts else 0) - (len(dead.at(level)) if dead else 0)

    counts = {level: sum(left(s, level) for s in draft.opened.values()) for level in settings.stored_levels}
    return {level: count for level, count in counts.items() if count or level in settings.levels}


def _code_version() -> str:
    try:
        return version("agentmtl")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "source"


def _check_settings(base: Snapshot, settings: IndexSettings) -> None:
    """Refuse an encoder or settings that do not fit the index."""
    mine, given = base.settings.encoder, settings.encoder
    if not mine.same_vectors(given):
        raise EncoderMismatchError(
            f"The index in {base.folder} was made with encoder {mine.name!r}; {given.name!r} was given.",
            f"Use --encoder {mine.name}, or re-encode the index: "
            f"agentmtl index rebuild {base.folder} --encoder {given.name}",
        )
