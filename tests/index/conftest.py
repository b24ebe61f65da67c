"""Fixtures of the storage tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .toy import ToyEncoder


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and settings of these tests stay away from the user's."""
    for kind in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"AGENTMTL_{kind}_DIR", str(tmp_path_factory.mktemp(kind.lower())))


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
