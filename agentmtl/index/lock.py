"""One writer at a time, by an advisory lock of the operating system.

The lock is the kernel's (flock), so a crashed holder does not keep it. While it is held the file names
the holder; afterwards it is empty.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentmtl.errors import IndexLockedError, StorageError
from agentmtl.index.files import storage_errors

LOCK_NAME = "LOCK"
HOLDER_START = b'{"pid": '
POLL_SECONDS = 0.05


@contextmanager
def writer_lock(folder: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the writer's lock of `folder`.

    Raises IndexLockedError, naming the holder, when another process or thread has it for longer than
    `wait_seconds`; StorageError where the file system has no locks.
    """
    with storage_errors(folder, "lock"):
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, folder, time.monotonic() + wait_seconds)
        try:
            with storage_errors(folder, "lock"):
                _write_holder(descriptor)
            yield
        finally:
            with suppress(OSError):  # a name that stays is that of a dead holder; the work is done or undone
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)  # closing drops the lock


def _write_holder(descriptor: int) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _acquire(descriptor: int, folder: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise IndexLockedError(
                    f"{folder} is being written by {_holder(descriptor)}.",
                    "Wait for it to finish, or stop that process; its lock goes with it.",
                ) from error
        except OSError as error:
            raise StorageError(
                f"The file system of {folder} has no locks: {error.strerror}.",
                "Put the index on a local disk.",
            ) from error
        time.sleep(POLL_SECONDS)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        seconds = max(0.0, time.time() - float(holder["since"]))
        return f"process {holder['pid']} on {holder['host']}, for {seconds:.0f} s"
    except (ValueError, KeyError, TypeError):  # it is between taking the lock and writing its name
        return "another process"
