"""Durable writing: every byte of an index goes through here.

A file is written once, hashed while it is written, and on disk (fsync) before anything refers to it.
`publish` is the one way to replace a file: write beside it, fsync, rename, fsync the folder.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmtl.errors import StorageError

READ_BLOCK = 1 << 20  # bytes read at a time while hashing
TEMPORARY_SUFFIX = ".tmp"  # of files that were never published


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and SHA-256 (hex) of a finished file."""

    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "sha256": self.sha256}


class HashingWriter:
    """Writes a new file straight to its descriptor, hashing as it goes. Refuses to overwrite."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`; a short write is continued until the disk refuses."""
        view = memoryview(data).cast("B") if data else memoryview(b"")
        self._digest.update(view)
        self._size += len(view)
        while len(view):
            view = view[os.write(self._descriptor, view) :]

    def finish(self) -> FileEntry:
        """Force the bytes to disk."""
        os.fsync(self._descriptor)
        return FileEntry(self._size, self._digest.hexdigest())

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[HashingWriter]:
    """A new file; the caller calls `finish()` for its entry."""
    writer = HashingWriter(path)
    try:
        yield writer
    finally:
        writer.close()


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> FileEntry:
    """Write a new file of these blocks, on disk when this returns."""
    with new_file(path) as writer:
        for block in blocks:
            writer.write(block)
        return writer.finish()


def publish(path: Path, data: bytes) -> None:
    """Replace `path` atomically: readers see the old bytes or the new, never a mix."""
    stage(path, data)
    publish_staged(path)


def stage(path: Path, data: bytes) -> None:
    """Write the next content of `path` beside it, for `publish_staged`."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    temporary.unlink(missing_ok=True)
    write_file(temporary, [data])


def publish_staged(path: Path) -> None:
    """Put what was staged in the place of `path`, by one rename."""
    path.with_name(path.name + TEMPORARY_SUFFIX).replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Force a folder's entries (new names, renames) to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> FileEntry:
    """Read every byte of `path`."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(READ_BLOCK):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())


def map_file(path: Path) -> memoryview:
    """The file's bytes, mapped read-only: pages are read when touched. An empty file gives b""."""
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn what the disk refuses into a `StorageError`. Wrap nothing but our own writing in it."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Cannot {doing} {path}: {error.strerror or error}.",
            "The index is whole, with all of the change or, most likely, none of it. "
            "Free space or mend the permissions, then run the command again.",
        ) from error
