"""Checking every byte of an index folder against its hashes, whatever was verified before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from agentmtl.errors import IndexDamagedError
from agentmtl.index.files import FileEntry, hash_file
from agentmtl.index.identifiers.storage import STREAMS_NAME
from agentmtl.index.lock import HOLDER_START, LOCK_NAME
from agentmtl.index.manifest import (
    CURRENT_NAME,
    SEGMENT_MANIFEST,
    SEGMENTS_NAME,
    Manifest,
    SegmentManifest,
)
from agentmtl.index.snapshot import RACES, read_current_settled, republished


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`damaged`: a line a bad file, with the reason. `unknown`: files that belong to no generation."""

    folder: Path
    generation: int
    files: int
    bytes: int
    damaged: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.damaged


def verify(folder: Path) -> VerifyReport:
    """Hash every file of the published generation. Damage is reported, not raised.

    Raises IndexMissingError where there is no index, IndexFormatError for another version's format.
    """
    for _ in range(RACES):
        try:
            manifest, published = read_current_settled(folder)
        except IndexDamagedError as error:
            return VerifyReport(folder, 0, 0, 0, error.files, ())
        report = _verify(folder, manifest)
        if report.ok or not republished(folder, published):  # else a writer removed files meanwhile
            return report
    return report


def _verify(folder: Path, manifest: Manifest) -> VerifyReport:
    damaged: list[str] = []
    known = {CURRENT_NAME, LOCK_NAME, manifest.name}
    count, size = 2, 0
    for name, entry in expected_files(folder, manifest, damaged):
        known.add(name)
        count, size = count + 1, size + entry.size
        if reason := _check(folder / name, entry):
            damaged.append(f"{name}: {reason}")
    damaged += _check_lock(folder)
    unknown = sorted(set(_names(folder)) - known)
    return VerifyReport(folder, manifest.generation, count, size, tuple(damaged), tuple(unknown))


def _names(folder: Path) -> Iterator[str]:
    """Everything below the folder but folders; one that a writer removes meanwhile counts as empty."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        yield from (Path(root, name).relative_to(folder).as_posix() for name in (*files, *links))


def expected_files(folder: Path, manifest: Manifest, damaged: list[str]) -> Iterator[tuple[str, FileEntry]]:
    """Every file a generation needs, by its path in the folder; a segment that cannot say is damage."""
    yield from manifest.tombstones.items()
    for stream, files in manifest.streams.items():
        yield from ((f"{STREAMS_NAME}/{stream}/{name}", entry) for name, entry in files.items())
    for name, entry in manifest.segments.items():
        path = f"{SEGMENTS_NAME}/{name}/{SEGMENT_MANIFEST}"
        yield path, entry
        segment = _segment_manifest(folder / path, entry)
        if segment is None:
            damaged.append(f"{SEGMENTS_NAME}/{name}: its files cannot be checked without {SEGMENT_MANIFEST}")
            continue
        for file, file_entry in segment.files.items():
            yield f"{SEGMENTS_NAME}/{name}/{file}", file_entry


def _segment_manifest(path: Path, entry: FileEntry) -> SegmentManifest | None:
    """A segment.json that is what it should be, else None."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    return SegmentManifest.from_bytes(raw) if sha256(raw).hexdigest() == entry.sha256 else None


def _check(path: Path, entry: FileEntry) -> str:
    """What is wrong with a file, "" for nothing."""
    if not path.is_file():
        return "missing"
    try:
        found = hash_file(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found.size != entry.size:
        return f"{found.size} bytes instead of {entry.size}"
    return "" if found == entry else "its bytes do not match their hash"


def _check_lock(folder: Path) -> list[str]:
    """LOCK is empty, or names its holder in JSON, which a kill may have cut off."""
    path = folder / LOCK_NAME
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        return [f"{LOCK_NAME}: cannot be read ({error.strerror})"]
    ours = content[: len(HOLDER_START)] == HOLDER_START[: len(content)]
    return [] if ours else [f"{LOCK_NAME}: not a lock of ours"]
