"""Any byte changed in any file of an index is found by `verify`, and never changes an answer in silence."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentmtl.errors import IndexDamagedError, IndexStoreError, UsageError
from agentmtl.index import trust
from agentmtl.index.lock import LOCK_NAME
from agentmtl.index.manifest import CURRENT_NAME
from agentmtl.index.store import Store
from agentmtl.index.verify import verify

from . import toy

FLIPS = 6  # places a file, beside the first and the last byte


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Two segments, tombstones, every kind of file."""
    folder, encoder = tmp_path / "index", toy.ToyEncoder()
    toy.build(folder, toy.several(4), encoder)
    toy.build(folder, toy.several(2, start=4), encoder)
    toy.delete(folder, ["d1"])
    return folder


def files_of(folder: Path) -> list[str]:
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != LOCK_NAME
    )


def outcome(folder: Path) -> Any:
    """What a reader gets: a typed error's name, or all answers."""
    try:
        snapshot = Store(folder).open()
        return toy.content(snapshot), toy.answers(snapshot, toy.ToyEncoder(), (5,), toy.QUERIES[:2])
    except IndexStoreError as error:
        assert error.hint
        return type(error).__name__


def damages(path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, what does it) for a file; each leaves the file damaged."""
    size = path.stat().st_size
    chance = random.Random(path.name)
    for at in {0, size - 1, *(chance.randrange(size) for _ in range(FLIPS))}:
        yield f"bit flipped at {at}", lambda at=at: flip(path, at, 1 << chance.randrange(8))
    for length in {0, size // 2, size - 1}:
        yield f"cut to {length}", lambda length=length: os.truncate(path, length)
    yield "grown", lambda: append(path)
    yield "deleted", path.unlink


def flip(path: Path, at: int, mask: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ mask]))


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


@pytest.mark.parametrize("memory", ["cold", "warm", "just built"])
def test_damage_anywhere_is_an_error_and_never_another_answer(
    index: Path, memory: str, monkeypatch: pytest.MonkeyPatch, no_fsync: None
) -> None:
    right = outcome(index)
    assert not isinstance(right, str) and verify(index).ok
    cache = Path(os.environ["AGENTMTL_CACHE_DIR"])
    if memory == "warm":  # remembered although just written: as if they had rested
        monkeypatch.setattr(trust, "RESTED_NS", -1)
        assert outcome(index) == right
        assert len(json.loads(next((cache / "verified").iterdir()).read_text())) >= len(files_of(index)) - 2
        monkeypatch.undo()
        monkeypatch.setenv("AGENTMTL_CACHE_DIR", str(cache))
        time.sleep(0.02)  # one tick of the file system's clock
    cases = errors = 0
    for name in files_of(index):
        kept, original = index.parent / "kept", index / name
        for what, damage in damages(original):
            if memory == "cold":
                shutil.rmtree(cache, ignore_errors=True)
            shutil.copy2(original, kept)
            damage()
            found = outcome(index)
            assert isinstance(found, str) or found == right, f"{name} {what}: answers changed in silence"
            errors += isinstance(found, str)
            assert_reported(index, f"{name} {what}")
            remaining = files_of(index)
            for attempt in (lambda: toy.delete(index, ["d2"]), lambda: toy.compact(index)):
                with pytest.raises(IndexStoreError):
                    attempt()
            assert files_of(index) == remaining, f"{name} {what}: a failing write removed files"
            kept.replace(original)
            cases += 1
    assert outcome(index) == right and verify(index).ok
    assert errors == cases, "nothing is stored that is never looked at"
    print(memory, cases, "cases,", errors, "typed errors, 0 silent")


def assert_reported(folder: Path, where: str) -> None:
    """`verify` says so; a changed format number is a typed error of its own."""
    try:
        report = verify(folder)
    except IndexStoreError:
        return
    assert not report.ok and report.damaged, where


def test_a_first_build_over_a_lost_current_removes_nothing(index: Path, encoder: toy.ToyEncoder) -> None:
    (index / CURRENT_NAME).unlink()
    before = files_of(index)
    for attempt in (
        lambda: Store(index).open(),
        lambda: toy.build(index, toy.several(1), encoder),
        lambda: Store(index).create(toy.settings(encoder)),
    ):
        with pytest.raises(IndexDamagedError, match="CURRENT"):
            attempt()
    assert files_of(index) == before
    assert verify(index).damaged == ("CURRENT: missing",)


def test_unknown_files_are_reported_and_left_alone(index: Path) -> None:
    (index / "notes.txt").write_text("mine")
    (index / "segments" / "mine").mkdir()
    (index / "segments" / "mine" / "a").write_text("mine")
    (index / "link").symlink_to(index.parent)
    report = verify(index)
    assert report.ok and report.unknown == ("link", "notes.txt", "segments/mine/a")
    toy.compact(index)
    assert verify(index).unknown == report.unknown


def test_a_segment_that_became_a_file_or_unreadable_is_damage(index: Path) -> None:
    segment = next(p for p in (index / "segments").iterdir())
    segment.rename(index.parent / "away")
    segment.write_text("")
    assert outcome(index) == "IndexDamagedError" and not verify(index).ok
    segment.unlink()
    segment.mkdir()
    (segment / "segment.json").mkdir()
    assert outcome(index) == "IndexDamagedError" and not verify(index).ok


def test_a_manifest_of_another_index_does_not_pass(
    index: Path, tmp_path: Path, encoder: toy.ToyEncoder
) -> None:
    other = tmp_path / "other"
    toy.build(other, toy.several(3, start=10), encoder)
    shutil.copy(other / "CURRENT", index / "CURRENT")
    shutil.copy(other / "manifest-00000001.json", index)
    assert outcome(index) == "IndexDamagedError"
    assert not verify(index).ok


def test_a_damaged_memory_of_verified_files_costs_only_a_hashing(index: Path) -> None:
    right = outcome(index)
    memory = Path(os.environ["AGENTMTL_CACHE_DIR"]) / "verified"
    memory.mkdir(parents=True, exist_ok=True)
    for content in (b"", b"[]", b"{", b"\xff", b'{"CURRENT": 1}'):
        for path in memory.iterdir():
            path.write_bytes(content)
        assert outcome(index) == right


def test_there_is_no_index(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(IndexStoreError, match="no index"):
            Store(folder).open()
        with pytest.raises(IndexStoreError, match="no index"):
            toy.compact(folder)
    assert list(tmp_path.iterdir()) == [], "asking leaves nothing behind"


def test_an_index_is_not_created_over_another(index: Path, encoder: toy.ToyEncoder) -> None:
    with pytest.raises(UsageError, match="already"):
        Store(index).create(toy.settings(encoder))
