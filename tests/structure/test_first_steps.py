"""A newcomer's first steps, with the real model: the README's code and commands, the demo, the wheel."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import share_networks

ROOT = Path(__file__).parents[2]
CACHE = Path()  # set by `shared_cache`
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The network made for this processor is kept over the tests here: making it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        cache = share_networks(tmp_path_factory.mktemp("models"))
        patch.setattr("tests.structure.test_first_steps.CACHE", cache)
        yield


def run(
    arguments: list[str], place: Path, *, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in `place` with data and settings of its own."""
    own = {f"AGENTMTL_{kind}_DIR": str(place / kind.lower()) for kind in ("DATA", "CONFIG")}
    own["AGENTMTL_CACHE_DIR"] = str(CACHE)
    return subprocess.run(
        arguments,
        cwd=place,
        env={**os.environ, **own, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=280,
    )


def agentmtl(place: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "agentmtl", *arguments], place, stdin=stdin)


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_demo_answers_from_two_documents(tmp_path: Path) -> None:
    done = agentmtl(tmp_path, "demo", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {"h4", "corpus/john-harrison.md"} <= {c["source"] for c in answer["citations"]}
    assert "Foulby" in answer["citations"][-1]["quote"] and not answer["abstained"]
    assert answer["route"] == "reader"


def test_the_transcript_in_the_readme_is_what_the_demo_prints(tmp_path: Path) -> None:
    (transcript,) = fenced("text")
    done = agentmtl(tmp_path, "demo")
    shown = [line for line in done.stdout.splitlines() if line and not line.startswith("confidence")]
    assert shown
    for line in shown:
        assert line in transcript


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    wanted = [("h4", "John Harrison"), ("place", "Where was Harrison born?")]
    for code, said in zip(fenced("python"), wanted, strict=True):
        (tmp_path / "snippet.py").write_text(code)
        done = run([sys.executable, "snippet.py"], tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, done.stderr
        assert all(text in done.stdout for text in said), done.stdout


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "ada.md").write_text("# Ada Lovelace\n\nAda Lovelace wrote the first computer program in 1843.\n")
    (tmp_path / "trec.json").write_text('{"name": "trec", "kind": "classification"}')
    (tmp_path / "train.jsonl").write_text('{"input": "When was it built?", "output": "year"}\n')
    (tmp_path / "inputs.jsonl").write_text('{"input": "When was it lit?"}\n')
    lines = [
        line[2:]
        for block in fenced("console")
        for line in block.splitlines()
        if line.startswith("$ agentmtl")
    ]
    assert len(lines) >= 5
    for line in lines:
        words, _, source = line.partition(" < ")
        given = (tmp_path / source).read_text() if source else None
        done = agentmtl(tmp_path, *shlex.split(words)[1:], stdin=given)
        assert done.returncode in {0, 3}, f"{line}\n{done.stderr}"


def test_doctor_finds_everything_that_is_needed(tmp_path: Path) -> None:
    done = agentmtl(tmp_path, "doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert {c["name"] for c in json.loads(done.stdout)["checks"]} >= {"encoder", "locks", "faiss-cpu"}


def test_eval_prints_the_contract(tmp_path: Path) -> None:
    data = tmp_path / "set"
    data.mkdir()
    rows = [
        {"id": f"d{i}", "title": f"T{i}", "text": f"Thing {i} was made in {1900 + i}."} for i in range(12)
    ]
    (data / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    asked = [
        {
            "id": f"q{i}",
            "question": f"When was thing {i} made?",
            "answer": str(1900 + i),
            "answers": [str(1900 + i)],
            "gold": [f"d{i}"],
        }
        for i in range(6)
    ]
    (data / "questions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))
    for command in ("multihop", "answers"):
        done = agentmtl(tmp_path, "eval", command, "--data", str(data), "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert {
            "schema",
            "benchmark",
            "data",
            "n",
            "seed",
            "methods",
            "default",
            "seconds",
            "commands",
        } <= set(report)
        assert report["n"] == 6 and report["default"] in report["methods"]


@pytest.mark.slow
def test_the_wheel_runs_the_demo_away_from_the_checkout(tmp_path: Path) -> None:
    """In an environment of its own, whose packages come from this one: what is tested is our wheel."""
    built = run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)], tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    installed = run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], tmp_path)
    assert installed.returncode == 0, installed.stderr
    theirs = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    (site / "others.pth").write_text(f"{theirs}\n")
    where = run([str(python), "-c", "import agentmtl; print(agentmtl.__file__)"], tmp_path)
    assert where.stdout.startswith(str(tmp_path)), where.stdout
    done = run([str(tmp_path / "env" / "bin" / "agentmtl"), "demo"], tmp_path)
    assert done.returncode == 0 and "Foulby" in done.stdout, done.stderr
