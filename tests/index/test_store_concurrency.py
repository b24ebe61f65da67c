"""One writer, any number of readers, in threads and in processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentmtl.errors import IndexLockedError, StorageError
from agentmtl.index import trust
from agentmtl.index import verify as verifying
from agentmtl.index.files import FileEntry, hash_file
from agentmtl.index.lock import LOCK_NAME, writer_lock
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.store import Store
from agentmtl.index.verify import verify
from agentmtl.retrieval.index import Index
from agentmtl.schema import Document

from . import toy

ENVIRONMENT = {"PYTHONPATH": toy.python_path()}


@contextmanager
def python(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process; ended on leaving."""
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


HOLDS = """
import sys
from pathlib import Path
from agentmtl.index.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_holds_the_lock(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(2), encoder)
    with python(HOLDS, str(folder)) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        for attempt in (
            lambda: toy.delete(folder, ["d0"]),
            lambda: toy.build(folder, toy.several(3), encoder),
        ):
            with pytest.raises(IndexLockedError, match=rf"process {holder.pid} on .*, for \d+ s") as caught:
                attempt()
            assert caught.value.hint
        assert Store(folder).open().count("document") == 2, "readers need no lock"
        assert verify(folder).ok
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert f'"pid": {holder.pid}' in (folder / LOCK_NAME).read_text(), "the name stays, the lock does not"
        assert verify(folder).ok
        assert toy.delete(folder, ["d0"]) == 1
        assert (folder / LOCK_NAME).read_bytes() == b""


def test_a_thread_of_the_same_process_is_another_writer(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(2), encoder)
    with Store(folder).write(toy.settings(encoder), encoder) as changing:
        changing.delete("d0")
        with pytest.raises(IndexLockedError, match=str(os.getpid())):
            toy.delete(folder, ["d1"])
    assert Store(folder).open().count("document") == 1


def test_a_writer_can_wait(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(2), encoder)
    released = threading.Event()

    def hold() -> None:
        with writer_lock(folder):
            held.set()
            released.wait(10)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    timer = threading.Timer(0.1, released.set)
    timer.start()
    with Store(folder).write(wait_seconds=10) as changing:
        assert released.is_set() and changing.delete("d0")
    thread.join()


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path, encoder: toy.ToyEncoder) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        toy.build(tmp_path / "file" / "index", toy.several(1), encoder)


def test_garbage_in_the_lock_file_is_reported(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(1), encoder)
    (folder / LOCK_NAME).write_bytes(b"\xff{")
    assert verify(folder).damaged == ("LOCK: not a lock of ours",)
    toy.build(folder, toy.several(2), encoder)
    assert verify(folder).ok


# --- readers during writes

SIZE = 6


def batch(number: int) -> list[Document]:
    """Every generation holds one such batch, whole: a mix would show two numbers, or fewer documents."""
    return [
        Document(f"d{i}", f"Number {number} is here. It was met by Ada {number}.", metadata={"n": number})
        for i in range(SIZE)
    ]


def assert_whole(snapshot: Snapshot, encoder: toy.ToyEncoder) -> int:
    """The batch a reader sees; fails where it is not one whole batch in every channel and level."""
    from agentmtl.retrieval.retriever import Retriever

    units = toy.content(snapshot)["units"].values()
    numbers = {u.metadata["n"] for u in units if u.level != "entity"}
    assert len(numbers) == 1, numbers
    assert sum(u.level == "document" for u in units) == SIZE
    (number,) = numbers
    assert [u.text for u in units if u.level == "entity"] == [f"Ada {number}"]
    retriever = Retriever(snapshot, encoder)
    for channel in ("dense", "lexical", "fused"):
        hits = retriever.retrieve(f"Number {number}", k=100, channel=channel)  # type: ignore[arg-type]
        assert {h.unit.metadata["n"] for h in hits} == {number} and len(hits) == SIZE, channel
    return int(number)


def write_stream(folder: Path, encoder: toy.ToyEncoder, count: int) -> None:
    for number in range(1, count):
        toy.build(folder, batch(number), encoder)
        if number % 3 == 0:
            toy.compact(folder)


READS = """
import sys
from pathlib import Path
from tests.index import toy
from tests.index.test_store_concurrency import assert_whole
from agentmtl.index.store import Store
from agentmtl.index.verify import verify
encoder, seen, checked, snapshot = toy.ToyEncoder(), set(), 0, None
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    snapshot = Store(Path(sys.argv[1])).open(known=snapshot if checked % 2 else None)
    seen.add(assert_whole(snapshot, encoder))
    checked += 1
    if checked % 5 == 0:
        assert verify(Path(sys.argv[1])).ok
print(checked, len(seen), flush=True)
"""


@pytest.mark.parametrize("rested", [True, False])
def test_readers_always_see_one_whole_generation(
    folder: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch, rested: bool, no_fsync: None
) -> None:
    if rested:
        monkeypatch.setattr(trust, "RESTED_NS", -1)
    toy.build(folder, batch(0), encoder)
    problems: list[BaseException] = []
    seen: set[int] = set()
    stop = threading.Event()

    def read() -> None:
        mine, snapshot = toy.ToyEncoder(), None
        try:
            while not stop.is_set():
                snapshot = Store(folder).open(known=snapshot)
                seen.add(assert_whole(snapshot, mine))
        except BaseException as error:
            problems.append(error)
            raise

    threads = [threading.Thread(target=read) for _ in range(2)]
    with python(READS, str(folder)) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
        for thread in threads:
            thread.start()
        write_stream(folder, encoder, 20)
        stop.set()
        for thread in threads:
            thread.join()
        output, _ = reader.communicate("stop", timeout=60)
        assert reader.returncode == 0
        checked, different = map(int, output.split())
    assert not problems and len(seen) > 1
    assert checked > 1 and different >= 1


@pytest.mark.parametrize("moment", range(1, 28))
def test_a_generation_that_goes_while_it_is_opened(
    folder: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch, moment: int, no_fsync: None
) -> None:
    """A writer publishes and removes the old files just after the reader has checked the `moment`-th."""
    toy.build(folder, toy.several(3), encoder)
    toy.build(folder, toy.several(2, start=3), encoder)
    toy.delete(folder, ["d1"])
    checked, check = [], trust.Trust.check

    def check_then_compact(self: trust.Trust, path: Path, entry: FileEntry) -> None:
        check(self, path, entry)
        checked.append(path)
        if len(checked) == moment:
            monkeypatch.setattr(trust.Trust, "check", check)
            toy.compact(folder)

    monkeypatch.setattr(trust.Trust, "check", check_then_compact)
    snapshot = Store(folder).open()
    assert toy.content(snapshot)["documents"].keys() == {"d0", "d2", "d3", "d4"}
    assert (len(checked) == moment) == (moment <= 21), "10 files a segment and one of tombstones"


@pytest.mark.parametrize("moment", [1, 2, 5, 12, 20])
def test_a_generation_that_goes_while_it_is_verified(
    folder: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch, moment: int, no_fsync: None
) -> None:
    toy.build(folder, toy.several(3), encoder)
    toy.build(folder, toy.several(2, start=3), encoder)
    toy.delete(folder, ["d1"])
    calls: list[Path] = []

    def hash_then_compact(path: Path) -> FileEntry:
        calls.append(path)
        if len(calls) == moment:
            toy.compact(folder)
        return hash_file(path)

    monkeypatch.setattr(verifying, "hash_file", hash_then_compact)
    report = verify(folder)
    assert report.ok and report.generation == 4


def test_a_pinned_reader_outlives_its_files(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(5), encoder)
    index = Index.open(folder, encoder=encoder)
    pinned = index.snapshot
    before, held = toy.answers(pinned, encoder), {p for p in folder.rglob("*") if p.is_file()}
    toy.build(folder, toy.several(3, start=5), encoder)
    toy.delete(folder, ["d1"])
    toy.compact(folder)
    assert not any(p.exists() for p in held if p.name not in {LOCK_NAME, "CURRENT"}), "all its files are gone"
    toy.assert_same_answers(toy.answers(pinned, encoder), before)
    assert toy.content(pinned)["documents"].keys() == {f"d{i}" for i in range(5)}
    assert index.snapshot is pinned and index.refresh() and not index.refresh()
    assert toy.content(index.snapshot)["documents"].keys() == {"d0", *(f"d{i}" for i in range(2, 8))}


def test_one_snapshot_serves_many_threads(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(8), encoder)
    toy.build(folder, toy.several(4, start=8), encoder)
    toy.delete(folder, ["d3"])
    snapshot = Store(folder).open()
    wanted = toy.answers(Store(folder).open(), encoder, (3,))
    problems: list[str] = []

    def search() -> None:
        for _ in range(3):
            if toy.answers(snapshot, toy.ToyEncoder(), (3,)) != wanted:
                problems.append("other answers")

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


class SlowEncoder(toy.ToyEncoder):
    """Sleeps at every call, as a model computes: without holding the interpreter."""

    def encode(self, texts, side="document"):  # type: ignore[no-untyped-def]
        time.sleep(0.3)
        return super().encode(texts, side)


async def test_async_twins_leave_the_loop_free(folder: Path) -> None:
    index = Index.create(folder, encoder=SlowEncoder(), chunking=toy.CHUNKING)
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    heartbeat = asyncio.create_task(heart())
    for wanted, call in (
        (2, lambda: index.aadd(toy.several(3))),
        (2, lambda: index.aretrieve("Ada Lovelace")),
        (0, lambda: index.adelete(["d0"])),
    ):
        before = beats
        await call()  # type: ignore[no-untyped-call]
        assert beats - before >= wanted, "the loop stood still"
    heartbeat.cancel()
    assert len(await index.aretrieve("London", k=100, level="document", channel="lexical")) <= 2
    assert re.fullmatch(r"[0-9a-f]{24}", (await index.aretrieve("London")).ids[0])
