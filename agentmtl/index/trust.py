"""Which files were hashed on this machine before, so that a warm open costs a stat a file.

A file is remembered by its path, size, inode, modification and change time; any write changes at least
one of them. The memory is a small JSON file in the user's cache folder: losing it costs one hashing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

from agentmtl.errors import IndexDamagedError
from agentmtl.index.files import FileEntry, hash_file, publish
from agentmtl.settings import cache_folder

logger = logging.getLogger(__name__)

RESTED_NS = 2_000_000_000  # 2 s


class Trust:
    """The verified files of one index folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        name = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:24]
        self._path = cache_folder() / "verified" / f"{name}.json"
        self._seen = self._load()
        self._changed = False

    def _load(self) -> dict[str, str]:
        try:
            data = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def check(self, path: Path, entry: FileEntry) -> None:
        """Raise IndexDamagedError unless the file has this size and hash."""
        name = str(path.absolute().relative_to(self._folder))
        try:
            status = path.stat()
            mark = _mark(status, entry)
            if self._seen.get(name) == mark:
                return
            found = hash_file(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise IndexDamagedError.of_file(name, "missing") from error
        except OSError as error:
            raise IndexDamagedError.of_file(name, f"cannot be read ({error.strerror})") from error
        if found.size != entry.size:
            raise IndexDamagedError.of_file(name, f"{found.size} bytes instead of {entry.size}")
        if found.sha256 != entry.sha256:
            raise IndexDamagedError.of_file(name, "its bytes do not match their hash")
        # A file may be altered again within one tick of the clock and keep its times: only those that
        # had rested a while before they were hashed are remembered.
        if time.time_ns() - status.st_ctime_ns > RESTED_NS:
            self._seen[name] = mark
            self._changed = True

    def save(self, keep: set[str] | None = None) -> None:
        """Write the memory; a cache folder that cannot be written only costs the next open a hashing."""
        if not self._changed:
            return
        if keep is not None:
            self._seen = {name: mark for name, mark in self._seen.items() if name in keep}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            publish(self._path, json.dumps(self._seen).encode())
        except OSError as error:
            logger.info("cannot remember verified files in %s: %s", self._path, error)
        self._changed = False


def _mark(s: os.stat_result, entry: FileEntry) -> str:
    return f"{s.st_size}:{s.st_ino}:{s.st_mtime_ns}:{s.st_ctime_ns}:{entry.sha256}"
