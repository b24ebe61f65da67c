"""The command line as scripts and newcomers meet it: real processes, real indexes, a model-free encoder."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from agentmtl.cli import app, run
from agentmtl.index.identifiers import load_tokenizer
from agentmtl.retrieval.fitted import fitted_values

from ..conftest import environment_in

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with documents and an index of them in indexes/docs."""
    place = tmp_path_factory.mktemp("place")
    docs = place / "docs"
    docs.mkdir()
    (docs / "harrison.md").write_text("# John Harrison\n\nJohn Harrison was born in Foulby in Yorkshire.\n")
    (docs / "h4.txt").write_text("The H4 timekeeper was built by the clockmaker John Harrison in 1759.\n")
    rows = [
        {"id": "r1", "title": "Fram", "text": "The ship Fram was designed by Colin Archer.", "year": 1892},
        {"id": "r2", "title": "Bread", "text": "Bread is baked from flour and water.", "year": 1900},
    ]
    (docs / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (docs / "empty.txt").write_text("")
    done = agentmtl(place, "index", "build", "docs", "--out", "indexes/docs", "--encoder", "hashing")
    assert done.returncode == 0, done.stderr
    return place


def agentmtl(place: Path, *arguments: str, stdin: str = "", **environment: str) -> Result:
    """Run the command in `place`, with folders of its own."""
    return subprocess.run(
        [sys.executable, "-m", "agentmtl", *arguments],
        cwd=place,
        env={**environment_in(place), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def as_json(result: Result) -> dict[str, Any]:
    """The one JSON object on stdout."""
    (line,) = result.stdout.splitlines()
    data: dict[str, Any] = json.loads(line)
    assert data["schema"] == 1
    return data


def test_build_reports_what_it_read_and_what_it_skipped(place: Path) -> None:
    done = agentmtl(
        place, "index", "build", "docs", "--out", "indexes/again", "--encoder", "hashing", "--json"
    )
    data = as_json(done)
    assert data["report"]["added"] == 4 and data["units"]["document"] == 4
    assert [(s["file"], s["reason"]) for s in data["report"]["skipped"]] == [("docs/empty.txt", "empty")]
    people = agentmtl(place, "index", "build", "docs", "--out", "indexes/again", "--encoder", "hashing")
    assert "4 unchanged" in people.stdout and "1 skipped" in people.stdout
    assert "docs/empty.txt: empty" in people.stderr


def test_search_in_json_and_for_people(place: Path) -> None:
    data = as_json(
        agentmtl(place, "search", "Who designed the Fram?", "-i", "indexes/docs", "-k", "2", "--json")
    )
    hit = data["hits"][0]
    assert hit["meta"]["source"] == "r1" and {"id", "level", "score", "channels", "keys"} <= set(hit)
    shown = agentmtl(place, "search", "Fram", "-i", "docs", "--explain")
    assert "lexical" in shown.stdout and "words: fram" in shown.stdout and shown.returncode == 0


def test_search_with_a_filter(place: Path) -> None:
    data = as_json(agentmtl(place, "search", "ship", "-i", "docs", "--where", "year >= 1900", "--json"))
    assert {h["meta"]["source"] for h in data["hits"]} == {"r2"}


def test_ask_cites_logs_and_purges(place: Path) -> None:
    done = agentmtl(place, "ask", "Who designed the ship Fram?", "-i", "docs", "--threshold", "0", "--json")
    data = as_json(done)
    assert done.returncode == 0 and "Colin Archer" in data["answer"]
    assert {"marker", "unit_id", "source", "start", "end", "text"} <= set(data["citations"][0])
    assert {"question", "answer", "abstained", "confidence", "route", "citations", "usage", "trace"} <= set(
        data
    )
    assert "Colin Archer" in agentmtl(place, "log").stdout
    assert as_json(agentmtl(place, "log", "--json"))["entries"][0]["answer"]["question"].startswith("Who")
    assert as_json(agentmtl(place, "log", "show", "1", "--json"))["evidence"]
    assert as_json(agentmtl(place, "log", "purge", "--yes", "--json")) == {
        "schema": 1,
        "entries": 1,
        "purged": True,
    }
    assert as_json(agentmtl(place, "log", "--json"))["entries"] == []


def test_abstaining_is_exit_3_and_still_prints_the_object(place: Path) -> None:
    done = agentmtl(place, "ask", "Who?", "-i", "docs", "--threshold", "1", "--no-log", "--json")
    data = as_json(done)
    assert done.returncode == 3 and data["abstained"] and data["answer"] == ""
    people = agentmtl(place, "ask", "Who?", "-i", "docs", "--threshold", "1", "--no-log")
    assert people.returncode == 3 and people.stdout == "" and "No answer" in people.stderr


def test_the_life_of_an_index(place: Path, tmp_path: Path) -> None:
    docs = tmp_path / "d"
    docs.mkdir()
    (docs / "a.txt").write_text("Alpha is the first letter.")
    (docs / "b.txt").write_text("Beta is the second letter.")
    out = str(tmp_path / "i")

    def run(*arguments: str) -> dict[str, Any]:
        done = agentmtl(tmp_path, "index", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return as_json(done)

    run("build", str(docs), "--out", out, "--encoder", "hashing")
    (docs / "c.txt").write_text("Gamma is the third letter.")
    (docs / "a.txt").write_text("Alpha was the first letter.")
    assert run("update", str(docs), "-i", out)["report"]["updated"] == 1
    assert run("add", str(docs), "-i", out)["report"]["added"] == 1
    (docs / "b.txt").unlink()
    assert run("add", str(docs), "-i", out, "--prune")["report"]["deleted"] == 1
    assert [d["source"] for d in run("list", out)["documents"]] == ["d/a.txt", "d/c.txt"]
    assert run("delete", "d/c.txt", "-i", out)["deleted"] == 1
    run("compact", out)
    held = b"".join(p.read_bytes() for p in Path(out).rglob("*") if p.is_file())
    assert b"Alpha was" in held and b"Beta" not in held and b"Gamma" not in held
    assert run("verify", out)["ok"]
    assert run("rebuild", out, "--encoder", "hashing:64")["settings"]["encoder"]["dimension"] == 64
    assert run("info", out)["units"]["document"] == 1


def test_a_damaged_index_is_exit_4_with_a_line_a_file(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "i"
    agentmtl(place, "index", "build", "docs", "--out", str(out), "--encoder", "hashing")
    victim = next(out.rglob("passage.faiss"))
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(raw)
    checked = agentmtl(place, "index", "verify", str(out))
    assert checked.returncode == 4 and "passage.faiss" in checked.stdout
    searched = agentmtl(place, "search", "Fram", "-i", str(out), "--json")
    assert searched.returncode == 4 and as_json(searched)["error"]["code"] == "index-damaged"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code", "says"),
    [
        (["search", "x", "-i", "nowhere"], 4, "index-missing", "agentmtl index build"),
        (["search", "x", "-i", "docs", "--level", "chapter"], 2, "usage", "passage"),
        (["search", "x", "-i", "docs", "--where", "year >"], 2, "filter", "expected a value"),
        (["search", "x", "-i", "docs", "--wher", "y"], 2, "usage", "--where"),
        (["serch", "x"], 2, "usage", "search"),
        (["index", "delete", "no-such", "-i", "docs"], 2, "usage", "no-such"),
        (["index", "build", "missing.txt", "--out", "o", "--encoder", "hashing"], 1, "ingest", "missing.txt"),
        (["ask", "", "-i", "docs"], 2, "usage", "characters"),
        (["log", "show", "999"], 2, "usage", "999"),
        (["eval", "multihop", "--data", "nowhere"], 2, "usage", "nowhere"),
    ],
)
def test_failures_are_json_on_stdout_and_words_on_stderr(
    place: Path, arguments: list[str], exit_code: int, code: str, says: str
) -> None:
    done = agentmtl(place, *arguments, "--json")
    error = as_json(done)["error"]
    assert (done.returncode, error["code"]) == (exit_code, code)
    assert says in error["message"] + error["hint"] and error["hint"]
    assert "Traceback" not in done.stderr and error["message"] in done.stderr


def test_settings_come_from_flag_environment_file_and_default(place: Path, tmp_path: Path) -> None:
    (tmp_path / "agentmtl.toml").write_text("k = 3\nhops = 1\n")
    shown = as_json(agentmtl(tmp_path, "config", "show", "--json", AGENTMTL_K="5"))["settings"]
    assert shown["k"] == {"value": 5, "origin": "AGENTMTL_K"}
    assert shown["hops"] == {"value": 1, "origin": "agentmtl.toml"}
    assert shown["encoder"] == {"value": "default", "origin": "default"}
    (tmp_path / "agentmtl.toml").write_text("encodr = 'x'\n")
    wrong = agentmtl(tmp_path, "config", "show")
    assert wrong.returncode == 2 and "Did you mean 'encoder'?" in wrong.stderr
    (tmp_path / "agentmtl.toml").unlink()
    assert agentmtl(tmp_path, "config", "init").returncode == 0
    assert agentmtl(tmp_path, "config", "show", "--origin").returncode == 0


def test_a_closed_pipe_is_no_failure(place: Path) -> None:
    line = f"{shlex.quote(sys.executable)} -m agentmtl index list indexes/docs | head -0"
    done = subprocess.run(["bash", "-c", line], cwd=place, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_shell_completion_knows_the_commands(place: Path) -> None:
    done = agentmtl(place, _AGENTMTL_COMPLETE="complete_bash", COMP_WORDS="agentmtl in", COMP_CWORD="1")
    assert "index" in done.stdout


def leaves(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for name, sub in getattr(command, "commands", {}).items():
        found += leaves(sub, (*path, name)) if hasattr(sub, "commands") else [((*path, name), sub)]
    return found


LEAVES = leaves(get_command(app))


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(p) for p, _ in LEAVES])
def test_every_help_has_two_examples(path: tuple[str, ...], command: Any) -> None:
    examples = examples_of(command)
    assert len(examples) >= 2
    assert all(re.search(r"agentmtl " + " ".join(path[:1]), line) for line in examples)


def examples_of(command: Any) -> list[str]:
    text = (command.help or "").partition("Examples:")[2]
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_examples_of_every_help_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each example, as it stands, in a folder where its files are; only the encoder is made cheap. In this
    process: starting a hundred takes more than a minute."""
    prepare_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path, command in LEAVES:
        if path[0] in {"demo", "doctor", "eval", "train"}:  # they run the real model
            continue
        for line in examples_of(command):
            with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
                run_example(tmp_path, line, patch)
            said = capsys.readouterr()
            assert left.value.code in {0, 3}, f"{line}\n{said.out}\n{said.err}"


def run_example(place: Path, line: str, patch: pytest.MonkeyPatch) -> None:
    pairs = shlex.split(line)
    patch.setenv("AGENTMTL_ENCODER", "hashing")
    while "=" in pairs[0]:
        patch.setenv(*pairs.pop(0).split("=", 1))
    assert pairs[0] == "agentmtl"
    stdin = b""
    if "<" in pairs:  # what the shell would do
        stdin = (place / pairs[pairs.index("<") + 1]).read_bytes()
        pairs = pairs[: pairs.index("<")]
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    cheap = [w if w != "default" else "hashing" for w in pairs[1:]]
    if cheap[:2] == ["config", "init"]:
        (place / "agentmtl.toml").unlink(missing_ok=True)
    run(cheap)


def prepare_traces(place: Path) -> None:
    """A pipeline of one stage and what two models said to its questions."""
    stage = '[[stages]]\nname = "sums"\nmodels = ["small", "large"]\nsamples = [1, 2, 4]\n'
    (place / "pipeline.toml").write_text(f'name = "sums"\nunit = "tokens"\n{stage}')
    (place / "traces").mkdir()
    for model, tokens in (("small", 100), ("large", 1000)):
        asked = [{"gold": "4", "traces": [["4", tokens], ["5", tokens]] * 4} for _ in range(6)]
        told = {"model": model, "set": "sums", "questions": asked}
        (place / "traces" / f"{model}.json").write_text(json.dumps(told))


def prepare_examples(place: Path) -> None:
    docs, more = place / "docs", place / "more-docs"
    docs.mkdir()
    more.mkdir()
    (docs / "old.md").write_text("# Old\n\nThe old bridge was opened in 1890.\n")
    (docs / "changed.md").write_text("# Changed\n\nAda Lovelace wrote the first computer program.\n")
    (more / "new.txt").write_text("The new bridge was opened in 1964.\n")
    rows = [
        {"id": f"2w-0000{i}", "title": f"T{i}", "text": f"Record {i} of the corpus."} for i in range(1, 5)
    ]
    (place / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "models").mkdir()
    (place / "models" / "mine").symlink_to(Path(__file__).parent.parent / "serving" / "tiny")
    (place / "trec.json").write_text('{"name": "trec", "kind": "classification", "labels": ["x", "y"]}')
    (place / "intents.json").write_text('{"name": "intents", "kind": "classification"}')
    lines = [json.dumps({"input": f"Which {word} is it?", "output": "x"}) for word in ("year", "town")]
    (place / "train.jsonl").write_text("\n".join(lines) + "\n")
    (place / "questions.jsonl").write_text('{"id": 1, "question": "When was the old bridge opened?"}\n')
    (place / "inputs.jsonl").write_text('{"input": "Which year was it?"}\n')
    cards = [w for name in ("trec", "intents") for w in ("--task", f"{name}.json", "--demos", "train.jsonl")]
    agentmtl(place, "index", "build", *cards, "--out", "indexes/tasks", "--encoder", "hashing")
    (place / "weights.json").write_text(json.dumps(fitted_values()))
    prepare_traces(place)
    (place / "models" / "reader").mkdir(parents=True)
    (place / "models" / "reader" / "tokenizer.json").write_text(load_tokenizer().json)
    for source, out in (("docs", "indexes/docs"), ("docs", "indexes/demo")):
        agentmtl(place, "index", "build", source, "--out", out, "--encoder", "hashing")
    agentmtl(place, "ask", "Who wrote the first program?", "-i", "docs", "--threshold", "0")
