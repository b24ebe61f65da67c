"""The fault-injection shim itself: it sees every way of writing, strikes where asked, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import FAIL_MODES, KILL_MODES, FaultServer, FaultServerError, Operation, unsynced
from .shim_cases import BYTES

CASES = f"{__package__}.shim_cases"
MakeFolder = Callable[[], Path]


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(CASES) as started:
        yield started


@pytest.fixture
def fresh(tmp_path: Path) -> MakeFolder:
    """Makes one more empty folder at every call."""
    numbers = iter(range(10_000))

    def make() -> Path:
        folder = tmp_path / f"case{next(numbers)}"
        folder.mkdir()
        return folder

    return make


def names(operations: list[Operation]) -> list[str]:
    return [operation.name for operation in operations]


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what is seen


def test_the_record_names_each_operation_and_its_path(server: FaultServer, tmp_path: Path) -> None:
    new, final = tmp_path / "a.new", tmp_path / "a.bin"
    assert server.trace("replaced_file", tmp_path) == [
        Operation("open", new),
        Operation("write", new),
        Operation("fsync", new),
        Operation("rename", new, final),
        Operation("fsync", tmp_path),
    ]


def test_every_kind_of_call_is_seen(server: FaultServer, tmp_path: Path) -> None:
    seen = names(server.trace("every_call", tmp_path))
    assert seen[:6] == ["mkdir", "open", "write", "pwrite", "writev", "pwritev"]
    assert seen[6:11] == ["fsync", "fdatasync", "ftruncate", "fallocate", "open"]
    assert seen[11:17] == ["sendfile", "truncate", "link", "symlink", "rename", "rename"]
    assert seen[17:] == ["unlink", "unlink", "unlink", "rmdir"]


def test_paths_relative_to_the_process_or_to_an_open_folder(server: FaultServer, tmp_path: Path) -> None:
    a, b = tmp_path / "sub/a.bin", tmp_path / "sub/b.bin"
    assert server.trace("relative_paths", tmp_path) == [
        Operation("mkdir", tmp_path / "sub"),
        Operation("open", a),
        Operation("write", a),
        Operation("rename", a, b),
        Operation("unlink", b),
    ]


def test_a_root_reached_through_a_link_is_the_same_root(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert server.count("python_file", tmp_path / "link") == 3


def test_operations_of_other_threads_are_seen(server: FaultServer, tmp_path: Path) -> None:
    assert server.count("in_a_thread", tmp_path) == 3


def test_sqlite_is_seen_down_to_its_journal(server: FaultServer, tmp_path: Path) -> None:
    operations = server.trace("sqlite_insert", tmp_path)
    by_file = {(o.name, o.path.name) for o in operations}
    assert {("pwrite", "units.sqlite"), ("pwrite", "units.sqlite-journal")} <= by_file
    assert {("unlink", "units.sqlite-journal"), ("open", "units.sqlite")} <= by_file
    assert {name for name, _ in by_file} & {"fsync", "fdatasync"}


@pytest.mark.parametrize(("operation", "file"), [("faiss_write", "vectors.faiss"), ("numpy_save", "a.npy")])
def test_stdio_streams_of_c_libraries_are_seen(
    server: FaultServer, tmp_path: Path, operation: str, file: str
) -> None:
    operations = server.trace(operation, tmp_path)
    assert operations[0] == Operation("open", tmp_path / file)
    assert {o.path for o in operations} == {tmp_path / file}
    assert names(operations).count("write") >= 2


def test_rewrapped_streams_write_the_same_bytes(server: FaultServer, fresh: MakeFolder) -> None:
    direct, streamed = fresh(), fresh()
    server.count("faiss_through_python", direct)
    server.count("faiss_write", streamed)
    assert bytes_below(direct) == bytes_below(streamed)


# --- what is done


@pytest.mark.parametrize(("mode", "text"), [("eio", "Errno 5"), ("enospc", "Errno 28")])
@pytest.mark.parametrize("n", range(1, 6))
def test_the_nth_operation_fails(server: FaultServer, tmp_path: Path, n: int, mode: str, text: str) -> None:
    outcome = server.run("replaced_file", tmp_path, n=n, mode=mode)  # type: ignore[arg-type]
    assert outcome.error_type == "OSError" and text in outcome.error_message
    assert "Exception" in outcome.error_bases and "replaced_file" in outcome.traceback
    assert outcome.fired and not outcome.killed and not outcome.completed
    assert (tmp_path / "a.bin").exists() == (n == 5)


def test_a_fault_beyond_the_last_operation_never_fires(server: FaultServer, tmp_path: Path) -> None:
    outcome = server.run("replaced_file", tmp_path, n=6, mode="gone")
    assert outcome.completed and not outcome.fired and outcome.operations == 5


def test_a_short_write_does_half_and_the_next_finds_no_space(server: FaultServer, tmp_path: Path) -> None:
    outcome = server.run("python_file", tmp_path, n=2, mode="short-write")
    assert outcome.error_type == "OSError" and "Errno 28" in outcome.error_message
    assert bytes_below(tmp_path) == {"a.bin": BYTES[: len(BYTES) // 2]}


def test_a_short_write_strikes_only_where_bytes_are_written(server: FaultServer, tmp_path: Path) -> None:
    outcome = server.run("python_file", tmp_path, n=3, mode="short-write")
    assert outcome.completed and not outcome.fired


def test_a_full_disk_refuses_writes_but_lets_files_go(server: FaultServer, tmp_path: Path) -> None:
    outcome = server.run("small_writes", tmp_path, n=3, mode="full")
    assert "Errno 28" in outcome.error_message and bytes_below(tmp_path) == {}


def test_a_disk_that_is_gone_refuses_everything(server: FaultServer, tmp_path: Path) -> None:
    outcome = server.run("small_writes", tmp_path, n=3, mode="gone")
    assert "Errno 5" in outcome.error_message and bytes_below(tmp_path) == {"a.bin": BYTES}


def test_one_failure_passes_and_a_full_disk_stays(server: FaultServer, fresh: MakeFolder) -> None:
    assert server.run("keeps_going", fresh(), n=2, mode="enospc").value == 1
    assert server.run("keeps_going", fresh(), n=2, mode="full").value == 3


@pytest.mark.parametrize(
    ("mode", "n", "left"),
    [
        ("kill-before", 1, {}),
        ("kill-after", 1, {"a.new": b""}),
        ("kill-before", 2, {"a.new": b""}),
        ("kill-torn", 2, {"a.new": BYTES[: len(BYTES) // 2]}),
        ("kill-after", 2, {"a.new": BYTES}),
        ("kill-before", 4, {"a.new": BYTES}),
        ("kill-after", 4, {"a.bin": BYTES}),
    ],
)
def test_killed_just_before_in_the_middle_and_just_after(
    server: FaultServer, tmp_path: Path, mode: str, n: int, left: dict[str, bytes]
) -> None:
    outcome = server.run("replaced_file", tmp_path, n=n, mode=mode)  # type: ignore[arg-type]
    assert outcome.killed and outcome.signal == 9 and not outcome.completed
    assert bytes_below(tmp_path) == left


def test_a_transaction_of_sqlite_survives_a_kill_anywhere(server: FaultServer, fresh: MakeFolder) -> None:
    total = server.count("sqlite_insert", fresh())
    assert total > 10
    rows = set()
    for mode in ("kill-before", "kill-after", "kill-torn"):
        for n in range(1, total + 1):
            folder = fresh()
            outcome = server.run("sqlite_insert", folder, n=n, mode=mode)
            assert outcome.killed or mode == "kill-torn"
            rows.add(server.run("sqlite_rows", folder).value)
    assert rows == {-1, 0, 100}


@pytest.mark.parametrize("operation", ["faiss_write", "numpy_save"])
def test_streams_of_c_libraries_can_be_failed(server: FaultServer, fresh: MakeFolder, operation: str) -> None:
    whole = fresh()
    total = server.count(operation, whole)
    for mode in FAIL_MODES:
        for n in range(1, total + 1):
            folder = fresh()
            outcome = server.run(operation, folder, n=n, mode=mode)
            # The last buffer is written by fclose, whose result both libraries may ignore: the file is then
            # cut off without an error. That is why nothing of an index may be written through them unchecked.
            assert outcome.error_type is not None or not outcome.fired or n == total, (mode, n)
            assert (bytes_below(folder) == bytes_below(whole)) == (not outcome.fired), (mode, n)


@pytest.mark.parametrize("operation", ["faiss_through_python", "numpy_through_python"])
def test_bytes_written_by_python_never_fail_in_silence(
    server: FaultServer, fresh: MakeFolder, operation: str
) -> None:
    total = server.count(operation, fresh())
    for mode in FAIL_MODES:
        for n in range(1, total + 1):
            outcome = server.run(operation, fresh(), n=n, mode=mode)
            assert outcome.error_type == "OSError" or not outcome.fired, (mode, n)


@pytest.mark.parametrize("operation", ["faiss_write", "numpy_save"])
def test_streams_of_c_libraries_can_be_killed(server: FaultServer, fresh: MakeFolder, operation: str) -> None:
    whole = fresh()
    total = server.count(operation, whole)
    size = len(next(iter(bytes_below(whole).values())))
    for n in (2, total):
        folder = fresh()
        assert server.run(operation, folder, n=n, mode="kill-torn").killed
        assert len(next(iter(bytes_below(folder).values()))) < size


def test_nothing_outside_the_root_is_touched(server: FaultServer, fresh: MakeFolder) -> None:
    for mode in (*FAIL_MODES, *KILL_MODES):
        folder = fresh()
        server.run("outside_and_inside", folder, n=1, mode=mode)
        beside = bytes_below(folder.with_name(folder.name + "-not"))
        assert {"array.npy", "vectors.faiss"} < beside.keys()
        assert mode in KILL_MODES or beside["after"] == BYTES
    trace = server.trace("outside_and_inside", folder := fresh())
    assert {operation.path for operation in trace} == {folder / "inside"}


# --- the server


def test_values_come_back_and_printing_does_no_harm(server: FaultServer, tmp_path: Path) -> None:
    assert server.run("prints", tmp_path).value == {"answer": 42}


def test_exits_and_crashes_are_outcomes_not_kills(server: FaultServer, tmp_path: Path) -> None:
    exited, crashed = server.run("exits", tmp_path), server.run("crashes", tmp_path)
    assert exited.exit_status == 3 and not exited.completed and not exited.killed
    assert crashed.signal == 6 and not crashed.completed and not crashed.killed
    assert server.run("python_file", tmp_path).completed


def test_an_operation_that_hangs_is_ended(tmp_path: Path) -> None:
    with FaultServer(CASES, timeout=0.3) as impatient:
        outcome = impatient.run("hangs", tmp_path)
        assert outcome.hung and not outcome.killed and not outcome.completed


def test_a_wrong_name_a_failing_operation_and_a_missing_folder_are_errors(
    server: FaultServer, tmp_path: Path
) -> None:
    with pytest.raises(FaultServerError, match="no attribute 'nothing'"):
        server.run("nothing", tmp_path)
    with pytest.raises(FaultServerError, match="cannot watch"):
        server.run("python_file", tmp_path / "missing")
    with pytest.raises(FaultServerError, match="fails without a fault"):
        server.count("python_file", tmp_path / "missing", root=tmp_path)


def test_a_module_that_cannot_be_imported_says_so() -> None:
    with pytest.raises(FaultServerError, match="No module named 'no_such_module'"):
        FaultServer("no_such_module").__enter__()


def test_what_a_power_cut_could_lose_is_read_off_the_record() -> None:
    new, final = Path("a.new"), Path("a")
    write, sync, rename = Operation("write", new), Operation("fsync", new), Operation("rename", new, final)
    assert unsynced([write, sync, rename], before=3) == set()
    assert unsynced([write, rename], before=2) == {new}
    assert unsynced([write, rename], before=3) == {final}
    assert unsynced([write, sync, write, Operation("unlink", new)], before=4) == {new}
    assert unsynced([write, Operation("unlink", new)], before=3) == set()
