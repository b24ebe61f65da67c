"""Finds files under what the user named, and opens them, without ever leaving it.

Every folder and file is opened component by component, relative to its parent's descriptor and without
following links, so that swapping a folder for a link while the walk runs gains nothing. Only regular files
are read: a FIFO, a socket or a device is recognised before it is opened and again after.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Literal

from agentmtl.errors import IngestError
from agentmtl.ingest.events import Skipped
from agentmtl.ingest.limits import Limits, Refused

Parts = tuple[str, ...]
_WILD = frozenset("*?[")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Root:
    """One thing the user named. `folder` is never left; `name` is put in front of relative names.

    kind "folder": everything below; "glob": what matches `pattern`; "file": `pattern` is its name;
    "missing": nothing is there now, so it may have been either.
    """

    kind: Literal["folder", "glob", "file", "missing"]
    folder: str
    name: str
    pattern: Parts = ()

    def file_name(self, parts: Parts) -> str:
        """The name an index keeps: posix, with the folder's own name in front unless a file was given."""
        prefix = () if self.kind == "file" or not self.name else (self.name,)
        return "/".join((*prefix, *parts))


@dataclass(frozen=True, slots=True)
class Found:
    """A file worth opening."""

    root: Root
    parts: Parts
    file: str


def roots_of(paths: Sequence[str | Path]) -> tuple[Root, ...]:
    """What each path means: a folder, a file, or, where nothing has that very name, a glob pattern."""
    given = [paths] if isinstance(paths, str) else paths
    return tuple(_root(os.path.abspath(path)) for path in given)  # noqa: PTH100 - resolve() follows links


def _root(path: str) -> Root:
    parent, name = os.path.split(path)
    if os.path.lexists(path):
        if Path(path).is_dir() and not Path(path).is_symlink():
            return Root("folder", path, name)
        return Root("file", parent, name, (name,))
    if _WILD & set(path):
        parts = Path(path).parts
        first = next(i for i, part in enumerate(parts) if _WILD & set(part))
        base = Path(*parts[:first])
        return Root("glob", str(base), base.name, parts[first:])
    return Root("missing", parent, name, (name,))


def covers(paths: Sequence[str | Path], file: str) -> bool:
    """True when reading `paths` could yield the indexed name `file`, whether or not it still exists.

    `add --prune` drops the indexed files that are covered and were not met again.
    """
    return any(_covers(root, file) for root in roots_of(paths))


def _covers(root: Root, file: str) -> bool:
    if root.kind in ("file", "missing") and file == root.name:
        return True
    prefix = f"{root.name}/" if root.name else ""
    inside = root.kind != "file" and file.startswith(prefix)
    return inside and (root.kind != "glob" or _matches(tuple(file[len(prefix) :].split("/")), root.pattern))


def _matches(parts: Parts, pattern: Parts) -> bool:
    """Shell rules a component at a time; ** is any number of folders; a folder that matches is read whole."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _may_hold(parts: Parts, pattern: Parts) -> bool:
    """False when nothing below the folder `parts` can match, so that it need not be listed."""
    for part, wanted in zip(parts, pattern, strict=False):
        if wanted == "**":
            return True
        if not fnmatchcase(part, wanted):
            return False
    return True


def find(paths: Sequence[str | Path], limits: Limits) -> Iterator[Found | Skipped]:
    """Files under `paths`, sorted by name folder by folder, hidden ones left out; links are reported.

    Raises IngestError at once where a path, or anything a pattern could match, does not exist.
    """
    roots = roots_of(paths)
    if not roots:
        raise IngestError("No path was given.", "Name a folder, a file or a pattern.")
    for root in roots:
        _require(root, limits)
    return _find_all(roots, limits)


def _require(root: Root, limits: Limits) -> None:
    path = str(Path(root.folder, *root.pattern))
    if root.kind == "missing":
        raise IngestError(f"There is no file or folder {path!r}.", "Check the path.")
    if root.kind == "glob" and next(_walk(root, (), limits), None) is None:
        raise IngestError(
            f"Nothing matches {path!r}.", "Quote the pattern and check the folder it starts from."
        )


def _find_all(roots: tuple[Root, ...], limits: Limits) -> Iterator[Found | Skipped]:
    for root in roots:
        if root.kind == "file":
            yield Found(root, root.pattern, root.file_name(root.pattern))
        else:
            yield from _walk(root, (), limits)


def _walk(root: Root, parts: Parts, limits: Limits) -> Iterator[Found | Skipped]:
    try:
        entries = _listing(root, parts, limits)
    except (OSError, Refused) as error:
        yield Skipped(_printable(root.file_name(parts)), f"folder {_reason(error)}")
        return
    for name, is_folder in entries:
        below = (*parts, name)
        if is_folder and _may_hold(below, root.pattern):
            yield from _walk(root, below, limits)
        elif not is_folder and _matches(below, root.pattern):
            yield _found(root, below)


def _listing(root: Root, parts: Parts, limits: Limits) -> list[tuple[str, bool]]:
    if len(parts) > limits.folder_depth:
        raise Refused(f"is more than {limits.folder_depth} folders deep")
    folder = _open_folder(root, parts)
    try:
        with os.scandir(folder) as entries:
            visible = (entry for entry in entries if not entry.name.startswith("."))
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in visible)
    finally:
        os.close(folder)


def _found(root: Root, parts: Parts) -> Found | Skipped:
    file = root.file_name(parts)
    if (shown := _printable(file)) != file:
        return Skipped(shown, "its name is not valid UTF-8")
    return Found(root, parts, file)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _open_folder(root: Root, parts: Parts) -> int:
    """A descriptor of the folder `parts` below the root, reached without following any link."""
    folder = os.open(root.folder, _FOLDER)
    for part in parts:
        try:
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


@contextmanager
def opened(found: Found) -> Iterator[BinaryIO]:
    """The file's bytes, as a binary stream that is closed at the end. Raises Refused; never blocks."""
    try:
        descriptor = _open_regular(found)
    except OSError as error:
        raise Refused(_reason(error)) from error
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def _open_regular(found: Found) -> int:
    folder = _open_folder(found.root, found.parts[:-1])
    try:
        _require_regular(os.stat(found.parts[-1], dir_fd=folder, follow_symlinks=False))
        descriptor = os.open(found.parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _require_regular(os.fstat(descriptor))
    except Refused:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise Refused("is a symbolic link, which is not followed; give the file or folder it points to")
    if not stat.S_ISREG(status.st_mode):
        raise Refused("is not a regular file")


def _reason(error: OSError | Refused) -> str:
    return error.reason if isinstance(error, Refused) else f"cannot be read: {error.strerror or error}"


def total_bytes(paths: Sequence[str | Path], limits: Limits) -> int:
    """The size in bytes of the files that `read_paths` would read, by their folder entries."""
    found = (f for f in find(paths, limits) if isinstance(f, Found))
    return sum(Path(f.root.folder, *f.parts).lstat().st_size for f in found)
