"""Fixtures of the storage tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .toy import ToyEncoder, write_lines


@pytest.fixture
def encoder() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an index may be made; not there yet."""
    return tmp_path / "index"


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that commit often and cut no power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: the many syncs of a crash test then cost nothing."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=memory, prefix="store-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("Ada Lovelace lived in London. She wrote.")
    (source / "b.txt").write_text("Rivers run to the sea.")
    write_lines(
        source / "c.jsonl", {"one": "The first record.", "two": "The second record.", "three": "The third."}
    )
    return source
