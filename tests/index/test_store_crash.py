"""Each write, fsync, rename and unlink of each change fails, or is the last: old or new, never a mix."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentmtl.errors import IndexMissingError
from agentmtl.index import lock
from agentmtl.index.identifiers import ngrams_of
from agentmtl.index.manifest import CURRENT_NAME
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.store import Store
from agentmtl.index.verify import verify
from tests.faults.harness import FAIL_MODES, KILL_MODES, FaultServer, Mode, unsynced

from . import store_cases, toy

OPERATIONS = (
    "first_build",
    "add",
    "update",
    "delete",
    "compact",
    "re_encode",
    "add_stream",
    "add_streamed",
    "delete_streamed",
    "compact_streamed",
)
CASES = store_cases.__name__


@pytest.fixture(scope="module", autouse=True)
def small_segments() -> Iterator[None]:
    """The sizes that the server of injected faults works with."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in store_cases.SMALL:
            patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(CASES) as started:
        yield started


def opened(folder: Path) -> Snapshot | None:
    try:
        return Store(folder).open()
    except IndexMissingError as error:
        assert "again" in error.hint or "Make one" in error.hint
        return None


def state(snapshot: Snapshot | None) -> Any:
    """All that the index holds and answers; None where there is none yet."""
    if snapshot is None:
        return None
    name = snapshot.settings.encoder.name
    found = toy.answers(snapshot, toy.ToyEncoder(name), depths=(4,), queries=toy.QUERIES[:1])
    answers = {k: [(i, round(s, 5)) for i, s in hits] for k, hits in found.items()}
    return name, toy.content(snapshot), answers, streamed(snapshot)


def streamed(snapshot: Snapshot) -> dict[str, dict[int, int]]:
    """What each token stream holds: every token with how often it stands in live text."""
    found = {}
    for identity in snapshot.manifest.streams:
        tokens, counts = ngrams_of(snapshot, identity).next_distribution([])
        found[identity] = dict(zip(tokens.tolist(), counts.tolist(), strict=True))
    return found


@dataclass
class Matrix:
    """The cases of one operation, with a fresh copy of the old state for each."""

    server: FaultServer
    operation: str
    base: Path
    ended: dict[str, int] = field(default_factory=lambda: {"old": 0, "new": 0, "mixed": 0})

    def __post_init__(self) -> None:
        self.start = self.base / "start"
        self.start.mkdir(parents=True)
        if self.operation != "first_build":
            store_cases.prepare_for(self.operation, self.start)
        before = opened(self.start / "index")
        self.old, self.old_sha256 = state(before), before.sha256 if before else ""
        finished = self.copy("finished")
        self.trace = self.server.trace(self.operation, finished)
        self.new = state(opened(finished / "index"))
        assert self.operation.startswith("compact") or self.old != self.new
        assert ("stream" in self.operation) == bool(self.new[3])

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.start, self.base / name))

    def run(self, modes: Sequence[Mode], step: int = 1, every: int = 1, first: int = 1) -> None:
        """Each mode at each `step`-th operation from the `first`; after a failure, the command again at
        each `every`-th."""
        for mode in modes:
            for n in range(first, len(self.trace) + 1, step):
                self.case(n, mode, mode in KILL_MODES or n % every == 0)
        assert self.ended["mixed"] == 0, self.ended
        print(
            self.operation,
            len(self.trace),
            "operations;",
            sum(self.ended.values()),
            "cases ended",
            self.ended,
        )

    def case(self, n: int, mode: Mode, again: bool = True) -> None:
        workdir = self.copy("case")
        outcome = self.server.run(self.operation, workdir, n=n, mode=mode)
        where = f"{self.operation}, {mode} at {n}: {self.trace[n - 1]}"
        if mode in KILL_MODES:
            assert outcome.killed or not outcome.fired, where
        else:
            assert outcome.completed or outcome.error_type == "StorageError", f"{where}\n{outcome.traceback}"
        found = opened(workdir / "index")
        # the hash in CURRENT covers every byte, and opening has checked them
        same = found is None if self.old is None else found is not None and found.sha256 == self.old_sha256
        which = "old" if same else "new" if state(found) == self.new else "mixed"
        self.ended[which] += 1
        assert which != "mixed", where
        if found is not None:
            assert verify(workdir / "index").ok, where
        if again:
            self.again(workdir, where)
        shutil.rmtree(workdir)

    def again(self, workdir: Path, where: str) -> None:
        """Whoever runs the same command again has what was wanted, and nothing left over."""
        if (workdir / "index").exists():
            with lock.writer_lock(workdir / "index"):
                pass  # whoever was killed does not keep it
        getattr(store_cases, self.operation)(workdir)
        after = opened(workdir / "index")
        assert after is not None, where
        assert (after.settings.encoder.name, toy.content(after)) == self.new[:2], where
        assert streamed(after) == self.new[3], where
        report = verify(workdir / "index")
        assert report.ok and report.unknown == (), (where, report)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_or_a_refused_write_anywhere_leaves_old_or_new(
    server: FaultServer, memory_folder: Path, operation: str, no_fsync: None
) -> None:
    """At every operation one of the two, in turn; the slow test below has every mode at each."""
    step = 5 if operation == "re_encode" else 1  # long, and made of the same steps as the others
    matrix = Matrix(server, operation, memory_folder)
    matrix.run(["kill-before"], 2 * step)
    matrix.run(["enospc"], 2 * step, first=1 + step, every=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_fault_anywhere_leaves_old_or_new(
    server: FaultServer, memory_folder: Path, operation: str, no_fsync: None
) -> None:
    Matrix(server, operation, memory_folder).run([*FAIL_MODES, *KILL_MODES])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_everything_is_synced_before_it_is_published(
    server: FaultServer, memory_folder: Path, operation: str
) -> None:
    """What a power cut could lose: nothing that CURRENT refers to, when it is renamed."""
    matrix = Matrix(server, operation, memory_folder)
    renames = [
        n
        for n, o in enumerate(matrix.trace, 1)
        if o.name == "rename" and o.target and o.target.name == CURRENT_NAME
    ]
    assert len(renames) == 1
    assert {p.name for p in unsynced(matrix.trace, before=renames[0])} <= {lock.LOCK_NAME}
    after = matrix.trace[renames[0] :]
    assert any(o.name == "fsync" and o.path.name == "index" for o in after), "the rename itself is synced"
    removed = [o for o in after if o.name in {"unlink", "rmdir"}]
    first = after.index(removed[0]) if removed else len(after)
    assert any(o.name == "fsync" for o in after[:first]), "nothing old goes before the new is on disk"
