"""The child interpreter of `harness.FaultServer`: imports once, then forks for every case.

Run with the shim preloaded. Requests and replies are JSON lines: standard input, and the file descriptor that
standard output was at the start (what operations print goes to standard error). Every case runs in a forked
child, which arms the shim, runs one operation and sends its outcome through a pipe; no outcome and SIGKILL
means that the shim killed it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

COUNT = 0


def load_shim() -> ctypes.CDLL:
    shim = ctypes.CDLL(None, use_errno=True)
    shim.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    shim.shim_count.restype = shim.shim_fired.restype = ctypes.c_long
    shim.shim_record.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    shim.shim_record.restype = ctypes.c_size_t
    return shim


def record(shim: ctypes.CDLL) -> list[list[str]]:
    """What the shim noted, as [operation, path, second path] rows."""
    room = shim.shim_record(None, 0)
    buffer = ctypes.create_string_buffer(room)
    shim.shim_record(buffer, room)
    fields = [os.fsdecode(part) for part in buffer.raw[:room].split(b"\0")[:-1]]
    return [fields[i : i + 3] for i in range(0, len(fields), 3)]


def describe(error: BaseException) -> dict[str, Any]:
    return {
        "error_type": type(error).__name__,
        "error_bases": [base.__name__ for base in type(error).__mro__],
        "error_message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def run_case(shim: ctypes.CDLL, module: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    """The outcome of one operation, in the forked child; whatever it raises is the outcome."""
    operation, workdir = getattr(module, request["operation"]), Path(request["workdir"])
    if shim.shim_arm(os.fsencode(request["root"]), request["n"], request["mode"]) != 0:
        raise OSError(ctypes.get_errno(), "cannot watch " + request["root"])
    outcome: dict[str, Any] = {}
    try:
        outcome["value"] = operation(workdir)
    except BaseException as error:  # noqa: BLE001 - reported to the test, which judges it
        outcome.update(describe(error))
    shim.shim_disarm()
    outcome.update(operations=shim.shim_count(), fired=shim.shim_fired() > 0)
    if request["mode"] == COUNT:
        outcome["record"] = record(shim)
    return outcome


def child(shim: ctypes.CDLL, module: ModuleType, request: dict[str, Any], pipe: int) -> None:
    try:
        outcome = run_case(shim, module, request)
        data = json.dumps(outcome).encode()
    except BaseException as error:  # noqa: BLE001 - a fault of the harness or of the case's return value
        data = json.dumps({"broken": "".join(traceback.format_exception(error))}).encode()
    with open(pipe, "wb") as out:
        out.write(data)
    os._exit(0)  # no clean-up: buffers and exit handlers belong to the server


def read_until(pipe: int, deadline: float) -> tuple[bytes, bool]:
    """All that comes through the pipe, and whether it was closed in time."""
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        block = os.read(pipe, 1 << 16)
        if not block:
            return data, True
        data += block
    return data, False


def serve_one(shim: ctypes.CDLL, module: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        child(shim, module, request, send)
    os.close(send)
    data, ended = read_until(receive, time.monotonic() + request["timeout"])
    os.close(receive)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if data and ended:
        return dict(json.loads(data))
    return {"hung": not ended, "signal": max(0, -status), "exit_status": max(0, status)}


def load(module_name: str) -> ModuleType:
    """The module with the operations; a thread started by its import would not survive a fork."""
    module = importlib.import_module(module_name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"importing {module_name} started {threads - 1} threads: forking is not safe then")
    return module


def reply(out: BinaryIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ.pop("LD_PRELOAD", None)  # programs that an operation starts are not watched
    try:
        shim, module = load_shim(), load(sys.argv[1])
    except BaseException:
        reply(out, {"broken": traceback.format_exc()})
        raise
    reply(out, {"ready": True})
    for line in sys.stdin.buffer:
        reply(out, serve_one(shim, module, json.loads(line)))


if __name__ == "__main__":
    main()
