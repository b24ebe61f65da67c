"""A segment: an immutable folder of units with their vectors and postings.

segment.json        every file with size and SHA-256, and counts; written last
units.sqlite        documents, units, mentions
<level>.faiss       vectors, Flat                 (<level>.ann.faiss where a factory is set)
<level>.arrays      unit ids, documents and postings, as safetensors
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import IndexDamagedError
from agentmtl.index.files import FileEntry, sync_folder, write_file
from agentmtl.index.manifest import (
    SEGMENT_MANIFEST,
    SEGMENTS_NAME,
    IndexSettings,
    LevelCounts,
    SegmentManifest,
)
from agentmtl.index.postings import (
    Postings,
    postings_arrays,
    postings_from,
    read_arrays,
    write_arrays,
)
from agentmtl.index.rows import ROWS_NAME, Rows
from agentmtl.index.trust import Trust
from agentmtl.index.vectors import MIN_ANN_UNITS, ann_index, open_index, write_flat, write_index
from agentmtl.schema import Level
from agentmtl.trunk.encoder import Vectors

ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class LevelParts:
    """What a level of a new segment is written from. `ids` (n, 12) uint8, `docs` (n,) int32 rows."""

    ids: NDArray[np.uint8]
    docs: NDArray[np.int32]
    postings: Postings
    vectors: Iterable[Vectors]


@dataclass(frozen=True, slots=True)
class LevelFiles:
    """An opened level: `flat` and `ann` are FAISS indexes, the arrays are mapped."""

    units: int
    words: int
    flat: Any
    ann: Any
    ids: NDArray[np.uint8]
    docs: NDArray[np.int32]
    postings: Postings

    def id(self, position: int) -> bytes:
        return bytes(self.ids[position])


@dataclass(frozen=True, slots=True)
class Segment:
    """An opened segment. Its files may be unlinked while it is open: they stay readable."""

    manifest: SegmentManifest
    rows: Rows
    levels: Mapping[Level, LevelFiles]

    @property
    def name(self) -> str:
        return self.manifest.name


def write_segment(
    folder: Path,
    base: str,
    settings: IndexSettings,
    rows: bytes,
    documents: int,
    levels: Mapping[Level, LevelParts],
) -> FileEntry:
    """Write a segment into the new folder `folder`; its entry is that of segment.json, written last."""
    folder.mkdir(parents=True)
    files = {ROWS_NAME: write_file(folder / ROWS_NAME, [rows])}
    counts: dict[Level, LevelCounts] = {}
    for level, parts in levels.items():
        files |= _write_level(folder, level, parts, settings)
        counts[level] = LevelCounts(len(parts.ids), int(parts.postings.lengths.sum()))
    manifest = SegmentManifest(folder.name, base, settings.fingerprint, documents, counts, files)
    entry = write_file(folder / SEGMENT_MANIFEST, [manifest.to_bytes()])
    sync_folder(folder)
    sync_folder(folder.parent)
    return entry


def _write_level(
    folder: Path, level: Level, parts: LevelParts, settings: IndexSettings
) -> dict[str, FileEntry]:
    units, dimension = len(parts.ids), settings.encoder.dimension
    flat, arrays, ann = f"{level}.faiss", f"{level}.arrays", f"{level}.ann.faiss"
    files = {flat: write_flat(folder / flat, dimension, units, parts.vectors)}
    content: dict[str, NDArray[Any]] = {"ids": parts.ids, "docs": parts.docs}
    files[arrays] = write_arrays(folder / arrays, content | postings_arrays(parts.postings))
    if settings.factory != "Flat" and units >= MIN_ANN_UNITS:
        opened = open_index(folder / flat, files[flat], dimension, units)
        files[ann] = write_index(folder / ann, ann_index(settings.factory, opened))
    return files


def open_segment(folder: Path, entry: FileEntry, settings: IndexSettings, trust: Trust) -> Segment:
    """Open a segment whose segment.json must be `entry`, hashing what was not yet verified here.

    Raises IndexDamagedError, naming the files, for anything missing or altered.
    """
    trust.check(folder / SEGMENT_MANIFEST, entry)
    try:
        return _open_checked(folder, settings, trust)
    except (OSError, sqlite3.Error) as error:  # gone or unreadable between the check and now
        name = f"{SEGMENTS_NAME}/{folder.name}"
        raise IndexDamagedError.of_file(name, f"cannot be read ({error})") from error


def _open_checked(folder: Path, settings: IndexSettings, trust: Trust) -> Segment:
    manifest = SegmentManifest.from_bytes((folder / SEGMENT_MANIFEST).read_bytes())
    if manifest.name != folder.name or manifest.fingerprint != settings.fingerprint:
        raise IndexDamagedError(
            f"{folder} belongs to another index.", "Restore the folder as it was.", (str(folder),)
        )
    for name, file in manifest.files.items():
        trust.check(folder / name, file)
    levels = {level: _open_level(folder, level, manifest, settings) for level in manifest.levels}
    return Segment(manifest, Rows(folder / ROWS_NAME), levels)


def _open_level(folder: Path, level: Level, manifest: SegmentManifest, settings: IndexSettings) -> LevelFiles:
    counts, dimension = manifest.levels[level], settings.encoder.dimension
    arrays = read_arrays(folder / f"{level}.arrays")
    flat_name, ann_name = f"{level}.faiss", f"{level}.ann.faiss"
    flat = open_index(folder / flat_name, manifest.files[flat_name], dimension, counts.units)
    ann = None
    if ann_name in manifest.files:
        ann = open_index(folder / ann_name, manifest.files[ann_name], dimension, counts.units)
    return LevelFiles(
        units=counts.units,
        words=counts.words,
        flat=flat,
        ann=ann,
        ids=arrays["ids"],
        docs=arrays["docs"],
        postings=postings_from(arrays),
    )
