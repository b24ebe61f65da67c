"""Fault injection: run an operation in a fresh process whose n-th change to a folder fails or is its last.

    with FaultServer("tests.faults.cases") as server:
        total = server.count("add_three", workdir)                 # of a run without a fault
        outcome = server.run("add_three", fresh_copy, n=17, mode="kill-before")

An operation is a function `name(workdir: Path)` of the module given; what it returns must fit into JSON. The
module should import what is slow to import at its top: it is imported once, and each case costs a fork. The
module must not start threads. Operations are counted (see shim.c) at or below `root`, by default the workdir,
which must exist. Each case needs a workdir of its own in the state the operation starts from.

A kill ends a process, not the machine: what was written but not yet synced is still there afterwards. Whether
everything was synced in time is to be read off the record: `unsynced(server.trace(...), before=n)`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, TypeAlias, get_args

import pytest

Mode: TypeAlias = Literal[
    "count",  # no fault
    "eio",  # the n-th operation fails
    "enospc",  # the n-th operation fails
    "short-write",  # the n-th, if it writes bytes, writes half; the next write fails with ENOSPC
    "full",  # from the n-th on all that may need space fails with ENOSPC; unlink, rmdir, truncate work
    "gone",  # the n-th and every later operation fails with EIO
    "kill-before",  # SIGKILL instead of the n-th operation
    "kill-after",  # SIGKILL when the n-th operation has been done
    "kill-torn",  # the n-th, if it writes bytes, writes half, then SIGKILL
]
MODES: tuple[Mode, ...] = get_args(Mode)  # in the order of the enumeration in shim.c
FAIL_MODES: tuple[Mode, ...] = ("eio", "enospc", "short-write", "full", "gone")
KILL_MODES: tuple[Mode, ...] = ("kill-before", "kill-after", "kill-torn")
DATA_OPERATIONS = frozenset({"write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range"})
SYNC_OPERATIONS = frozenset({"fsync", "fdatasync"})
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
HERE = Path(__file__).parent
START_SECONDS = 120.0


class FaultServerError(Exception):
    """The harness itself failed: the server did not start or died, or a case cannot be run."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One counted operation. `target` is the new name of a rename; paths are absolute."""

    name: str
    path: Path
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended. A killed or hung process leaves no counts, error or value.

    `fired` is False where the fault never came: n beyond the last operation, or a write fault at another
    operation. `error_bases` are the class names up to `object`, to tell a family of errors. `signal` is set
    where a process died of anything (11: a crash in C code); `killed` only where SIGKILL was due.
    """

    killed: bool = False
    hung: bool = False
    signal: int = 0
    exit_status: int = 0
    error_type: str | None = None
    error_message: str = ""
    error_bases: tuple[str, ...] = ()
    traceback: str = ""
    operations: int = 0
    fired: bool = False
    value: Any = None

    @property
    def completed(self) -> bool:
        """The operation returned."""
        return not (self.hung or self.signal or self.exit_status) and self.error_type is None


@functools.cache
def shim_path() -> Path:
    """The compiled shim, made once a session; skips the test, with a warning, where it cannot be made."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None or not sys.platform.startswith("linux"):
        reason = "FAULT INJECTION NOT TESTED: it needs Linux and a C compiler (cc)"
        warnings.warn(reason, stacklevel=2)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="fault-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    flags = ["-O2", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-o", str(folder / "shim.so")]
    sources = [str(HERE / "shim.c"), str(HERE / "streams.c")]
    command = [compiler, *flags, *sources, "-ldl", "-lpthread"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise FaultServerError(f"the shim does not compile:\n{made.stderr}")
    return folder / "shim.so"


class FaultServer:
    """A context manager around the child interpreter; a case hangs after `timeout` seconds."""

    def __init__(self, setup_module: str, timeout: float = 60.0) -> None:
        self._module = setup_module
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> FaultServer:
        environment = self._environment()
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "server.py"), self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        try:
            self._receive(START_SECONDS)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None and self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.kill()
            self._process.wait()
        if self._errors is not None:
            self._errors.close()

    def count(self, operation: str, workdir: Path, *, root: Path | None = None) -> int:
        """How many operations a run without a fault makes; it must return."""
        return len(self.trace(operation, workdir, root=root))

    def trace(self, operation: str, workdir: Path, *, root: Path | None = None) -> list[Operation]:
        """The operations of a run without a fault, in order; the i-th (from 0) is n = i + 1."""
        answer = self._ask(operation, workdir, 0, "count", root)
        outcome = _outcome(answer)
        if not outcome.completed:
            raise FaultServerError(f"{operation} fails without a fault:\n{outcome.traceback or outcome}")
        rows = answer["record"]
        return [Operation(n, Path(path), Path(target) if target else None) for n, path, target in rows]

    def run(
        self, operation: str, workdir: Path, *, n: int = 0, mode: Mode = "count", root: Path | None = None
    ) -> Outcome:
        """Runs the operation with a fault at its n-th change, counted from 1; "count" runs it without."""
        return _outcome(self._ask(operation, workdir, n, mode, root))

    def _environment(self) -> dict[str, str]:
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        preload = {"LD_PRELOAD": str(shim_path()), "PYTHONPATH": paths}
        return {**os.environ, **ONE_THREAD, **preload}

    def _ask(self, operation: str, workdir: Path, n: int, mode: Mode, root: Path | None) -> dict[str, Any]:
        if self._process is None or self._process.stdin is None:
            raise FaultServerError("use the server inside its with block")
        watched = {"root": str(root or workdir), "n": n, "mode": MODES.index(mode)}
        request = {"operation": operation, "workdir": str(workdir), "timeout": self._timeout, **watched}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return self._receive(self._timeout + 30)

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], seconds)[0]
        line = self._process.stdout.readline() if ready else b""
        answer = json.loads(line) if line else {"broken": f"the server does not answer\n{self._stderr()}"}
        if "broken" in answer:
            raise FaultServerError(answer["broken"])
        return dict(answer)

    def _stderr(self) -> str:
        assert self._errors is not None
        self._errors.seek(0)
        return self._errors.read()[-4000:].decode(errors="replace")


def _outcome(answer: dict[str, Any]) -> Outcome:
    fields = {name: value for name, value in answer.items() if name != "record"}
    killed = fields.get("signal") == signal.SIGKILL and not fields.get("hung")
    return Outcome(**{**fields, "killed": killed, "error_bases": tuple(fields.get("error_bases", ()))})


def unsynced(operations: Sequence[Operation], *, before: int) -> set[Path]:
    """Files whose bytes were written, and not synced after that, by the operations 1 … before - 1.

    What a power cut just before operation `before` could lose. Follows renames and unlinks of the files.
    """
    dirty: set[Path] = set()
    for operation in operations[: before - 1]:
        if operation.name in DATA_OPERATIONS or operation.name == "ftruncate":
            dirty.add(operation.path)
        elif operation.name in SYNC_OPERATIONS or operation.name == "unlink":
            dirty.discard(operation.path)
        elif operation.name == "rename" and operation.target:
            dirty.discard(operation.target)
            if operation.path in dirty:
                dirty.remove(operation.path)
                dirty.add(operation.target)
    return dirty
