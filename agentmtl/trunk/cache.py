"""The user's cache folder: digests already computed, networks already converted.

Everything in it can be deleted at any time; it is made again when needed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)
CACHE_VARIABLE = "AGENTMTL_CACHE_DIR"


def default_cache_dir() -> Path:
    """$AGENTMTL_CACHE_DIR, or the platform's cache folder for agentmtl. It need not exist."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("agentmtl"))


def file_sha256(path: Path, cache_dir: Path) -> str:
    """Hex SHA-256 of a file, remembered by device, inode, size, mtime and ctime.

    A file with the same five as when it was hashed is not read again. ctime cannot be set back by a user,
    so a file altered in place and given its old mtime is hashed anew.
    """
    path = path.resolve()
    stat = path.stat()
    stamp = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    note = cache_dir / "digests" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"
    remembered = read_json(note)
    if remembered.get("stamp") == stamp and isinstance(remembered.get("sha256"), str):
        return str(remembered["sha256"])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    write_json(note, {"stamp": stamp, "sha256": digest})
    return digest


def read_json(path: Path) -> dict[str, object]:
    """The object in a file of the cache; empty where it is absent or unreadable."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: dict[str, object]) -> None:
    """Writes by a temporary file and a rename. A cache that cannot be written is a lost saving, no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(data, stream)
        Path(name).replace(path)
    except OSError as error:
        _log.debug("the cache %s cannot be written: %s", path, error)
