"""agentmtl run and demos in real processes: bad lines, and runs that are killed and go on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentmtl import Index
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task

from ..conftest import environment_in

INPUTS = 4_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of two tasks; one has a label that is called error."""
    place = tmp_path_factory.mktemp("run")
    index = Index.create(place / "i", encoder="hashing:32", streams=())
    index.add_demonstrations(
        Task("logs", "classification"),
        [Demonstration("logs", f"item {i} w{i % 7} v{i % 5}", ("error", "fine")[i % 2]) for i in range(60)],
    )
    index.add_demonstrations(
        Task("parts", "multiple_choice"),
        [Demonstration("parts", "part of a car", "wheel", ("wheel", "leaf"), 0)],
    )
    return place


def command(place: Path, *arguments: str) -> dict[str, Any]:
    called = [sys.executable, "-m", "agentmtl", *arguments]
    return {"args": called, "cwd": place, "env": environment_in(place)}


def run(place: Path, inputs: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    called = command(place, "run", *arguments, "--index", "i")
    return subprocess.run(**called, input=inputs, capture_output=True, timeout=120)


def lines(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw.split(b"\n") if line]


def record(text: str, **others: Any) -> bytes:
    return json.dumps({"input": text, **others}, ensure_ascii=False).encode() + b"\n"


def test_a_line_in_a_line_out(place: Path) -> None:
    done = run(place, record("item 3 w3 v3") + b"\n" + record("item 4 w4 v4"), "logs")
    assert done.returncode == 0, done.stderr  # a label called error is no failure
    first, second = lines(done.stdout)
    assert (first["input"], second["input"]) == ("item 3 w3 v3", "item 4 w4 v4")
    assert set(first["probabilities"]) <= {"error", "fine"} and not first["abstained"]
    assert first["output"] == max(first["probabilities"], key=first["probabilities"].__getitem__)
    assert len(first["demonstrations"]) == 8 and "error" not in first


def test_options_and_abstaining(place: Path) -> None:
    done = run(
        place,
        record("which part of a car?", choices=["leaf", "a car part: wheel"]) + record("no options"),
        "parts",
    )
    chosen, bad = lines(done.stdout)
    assert done.returncode == 1 and chosen["output"].endswith("wheel") and "choices" in bad["error"]
    (unsure,) = lines(run(place, record("item 1"), "logs", "--nearest", "1").stdout)
    assert unsure["abstained"] and unsure["output"] == "" and unsure["probabilities"]


BAD = [b"nope\n", b"[]\n", b'{"input": 3}\n', b'{"input": " "}\n', b'{"input": "a \xff"}\n',
       b'{"input": "half \\ud800"}\n', b'{"input": "a", "choices": "b"}\n']  # fmt: skip


def test_bad_lines_become_records_and_the_exit_code_says_so(place: Path) -> None:
    done = run(place, b"".join(bad + record(f"item {i}") for i, bad in enumerate(BAD)), "logs")
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    found = lines(done.stdout)
    assert ["error" in line for line in found] == [True, False] * len(BAD)
    assert all(line["abstained"] and line["output"] == "" for line in found[::2])


def test_a_run_goes_on_where_it_was(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.jsonl"
    texts = [record("line\u2028separator \x85 and more"), BAD[0], record("item 4"), record("item 5")]
    whole = run(place, b"".join(texts), "logs", "--out", str(tmp_path / "whole"))
    assert run(place, b"".join(texts[:2]), "logs", "--out", str(out)).returncode == 1
    with out.open("ab") as broken:
        broken.write((tmp_path / "whole").read_bytes().split(b"\n")[2][:40])  # cut off by a kill
    again = run(place, b"".join(texts), "logs", "--out", str(out))
    assert again.returncode == whole.returncode == 1  # the bad line counts, although it was there before
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("change", ["inputs", "fewer", "options", "foreign"])
def test_it_does_not_go_on_from_something_else(place: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out.jsonl"
    inputs = record("item 1") + record("item 2")
    if change == "foreign":
        out.write_bytes(b"not ours\n")
    else:
        assert run(place, inputs, "logs", "--out", str(out)).returncode == 0
    before = out.read_bytes()
    other = {"inputs": record("item 9") + inputs, "fewer": record("item 1")}.get(change, inputs)
    options = ["-k", "2"] if change == "options" else []
    done = run(place, other, "logs", "--out", str(out), *options)
    assert done.returncode == 2 and b"another --out" in done.stderr and out.read_bytes() == before


def test_killed_runs_lose_and_repeat_nothing(place: Path, tmp_path: Path) -> None:
    inputs, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    inputs.write_bytes(b"".join(record(f"item {i} w{i % 7}") for i in range(INPUTS)))
    called = command(place, "run", "logs", "--index", "i", "--out", str(out))
    sizes = [0]
    for _ in range(2):
        with inputs.open("rb") as given, subprocess.Popen(**called, stdin=given) as process:
            while process.poll() is None and (not out.exists() or out.stat().st_size <= sizes[-1]):
                time.sleep(0.01)
            process.kill()
        sizes.append(out.stat().st_size)
    done = run(place, inputs.read_bytes(), "logs", "--out", str(out))
    assert done.returncode == 0 and 0 < sizes[1] < sizes[2] < out.stat().st_size
    assert [line["input"] for line in lines(out.read_bytes())] == [
        json.loads(line)["input"] for line in inputs.read_bytes().splitlines()
    ]


def test_an_unknown_task_and_an_output_that_cannot_be(place: Path, tmp_path: Path) -> None:
    unknown = run(place, record("x"), "nothing")
    assert unknown.returncode == 2 and b"logs" in unknown.stderr
    folder = run(place, record("x"), "logs", "--out", str(tmp_path))
    assert folder.returncode == 1 and b"Traceback" not in folder.stderr


def test_demos_shows_the_best_first(place: Path) -> None:
    called = command(
        place, "demos", "item 3 w3 v3 again", "--task", "logs", "--index", "i", "-k", "4", "--json"
    )
    done = subprocess.run(**called, capture_output=True, timeout=120)
    data = json.loads(done.stdout)
    scores = [hit["score"] for hit in data["hits"]]
    assert data["schema"] == 1 and len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert data["hits"][0]["level"] == "demonstration" and data["hits"][0]["meta"]["task"] == "logs"
