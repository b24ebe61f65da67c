"""Small writers, each through another way into libc; run by `test_shim.py` under injected faults."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np

BYTES = b"0123456789" * 1000


def python_file(workdir: Path) -> None:
    with (workdir / "a.bin").open("wb") as out:
        out.write(BYTES)
        out.flush()
        os.fsync(out.fileno())


def replaced_file(workdir: Path) -> None:
    """Write aside, sync, rename, sync the folder: the way files are published."""
    new = workdir / "a.new"
    with new.open("wb") as out:
        out.write(BYTES)
        out.flush()
        os.fsync(out.fileno())
    new.replace(workdir / "a.bin")
    folder = os.open(workdir, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def small_writes(workdir: Path) -> None:
    """Open (1), three writes (2, 3, 4), unlink (5); the file is removed whatever happens."""
    handle = os.open(workdir / "a.bin", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(3):
            view = memoryview(BYTES)
            while view:
                view = view[os.write(handle, view) :]
    finally:
        os.close(handle)
        (workdir / "a.bin").unlink()


def keeps_going(workdir: Path) -> int:
    """Three attempts to write after each other; how many failed."""
    failed = 0
    for name in "abc":
        try:
            (workdir / name).write_bytes(BYTES)
        except OSError:
            failed += 1
    return failed


def every_call(workdir: Path) -> None:
    """One call of each kind that Python offers."""
    (workdir / "folder").mkdir()
    handle = os.open(workdir / "a.bin", os.O_RDWR | os.O_CREAT)
    os.write(handle, BYTES)
    os.pwrite(handle, BYTES, 5)
    os.writev(handle, [BYTES, BYTES])
    os.pwritev(handle, [BYTES, BYTES], 7)
    os.fsync(handle)
    os.fdatasync(handle)
    os.ftruncate(handle, 100)
    os.posix_fallocate(handle, 0, 200)
    other = os.open(workdir / "b.bin", os.O_WRONLY | os.O_CREAT)
    os.sendfile(other, handle, 0, 50)
    os.close(other)
    os.close(handle)
    os.truncate(workdir / "a.bin", 50)
    os.link(workdir / "a.bin", workdir / "hard")
    (workdir / "soft").symlink_to("a.bin")
    (workdir / "hard").rename(workdir / "folder" / "hard")
    (workdir / "b.bin").replace(workdir / "a.bin")
    (workdir / "soft").unlink()
    (workdir / "a.bin").unlink()
    shutil.rmtree(workdir / "folder")  # unlinkat relative to an open folder, then rmdir


def relative_paths(workdir: Path) -> None:
    os.chdir(workdir)
    Path("sub").mkdir()
    Path("sub/../sub/a.bin").write_bytes(BYTES)
    folder = os.open("sub", os.O_RDONLY)
    os.rename("a.bin", "b.bin", src_dir_fd=folder, dst_dir_fd=folder)
    os.unlink("b.bin", dir_fd=folder)
    os.close(folder)


def sqlite_insert(workdir: Path) -> None:
    with closing(sqlite3.connect(workdir / "units.sqlite")) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS units (id INTEGER PRIMARY KEY, text TEXT)")
        with connection:
            connection.executemany("INSERT INTO units(text) VALUES (?)", [("word " * 50,)] * 100)


def sqlite_rows(workdir: Path) -> int:
    """Rows after reopening, or -1 where the table was never made; raises where the file is damaged."""
    with closing(sqlite3.connect(workdir / "units.sqlite")) as connection:
        if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise ValueError("damaged")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            return -1
        return int(connection.execute("SELECT count(*) FROM units").fetchone()[0])


def _flat_index() -> faiss.Index:
    index = faiss.IndexFlatIP(16)
    index.add(np.random.default_rng(7).random((2000, 16), dtype=np.float32))
    return index


def faiss_write(workdir: Path) -> None:
    faiss.write_index(_flat_index(), str(workdir / "vectors.faiss"))


def faiss_through_python(workdir: Path) -> None:
    data = faiss.serialize_index(_flat_index())
    (workdir / "vectors.faiss").write_bytes(data.data)


def numpy_save(workdir: Path) -> None:
    np.save(workdir / "a.npy", np.arange(50_000))


def numpy_save_small(workdir: Path) -> None:
    np.save(workdir / "a.npy", np.arange(50))


def numpy_through_python(workdir: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(50))
    (workdir / "a.npy").write_bytes(buffer.getbuffer())


def outside_and_inside(workdir: Path) -> None:
    """Writes beside the watched folder first and last, and into a folder whose name only begins like it."""
    neighbour = workdir.with_name(workdir.name + "-not")
    neighbour.mkdir()
    (neighbour / "before").write_bytes(BYTES)
    np.save(neighbour / "array.npy", np.arange(50_000))
    faiss.write_index(_flat_index(), str(neighbour / "vectors.faiss"))
    try:
        (workdir / "inside").write_bytes(BYTES)
    except OSError:
        (neighbour / "refused").write_bytes(BYTES)
    (neighbour / "before").rename(neighbour / "after")


def in_a_thread(workdir: Path) -> None:
    thread = threading.Thread(target=python_file, args=(workdir,))
    thread.start()
    thread.join()


def prints(workdir: Path) -> dict[str, int]:
    print("not part of the protocol")
    return {"answer": 42}


def hangs(workdir: Path) -> None:
    time.sleep(60)


def exits(workdir: Path) -> None:
    os._exit(3)


def crashes(workdir: Path) -> None:
    os.abort()
