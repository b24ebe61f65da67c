"""`agentmtl run QUESTIONS.jsonl`: every question answered once, whatever breaks a run off."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentmtl import Document, Index
from agentmtl.cli.main import _exit_code as run

from ..integrations.server import Body, Scripted, serving

COUNT = 40


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an index and a file of questions, where the program is run."""
    monkeypatch.chdir(tmp_path)
    index = Index.create(tmp_path / "ix", encoder="hashing", streams=())
    index.add(
        Document(f"b{n}", f"The bridge of Stadby{n} was opened in {1800 + n}.", f"Stadby{n}")
        for n in range(COUNT)
    )
    write(
        tmp_path,
        [{"id": f"q{n}", "question": f"When was the bridge of Stadby{n} opened?"} for n in range(COUNT)],
    )
    return tmp_path


def write(place: Path, records: list[dict[str, Any]]) -> None:
    (place / "q.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def answers(place: Path) -> dict[str, dict[str, Any]]:
    """By id; no id may come twice."""
    lines = [json.loads(line) for line in (place / "a.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["id"]: line for line in lines}


ALL = ["run", "q.jsonl", "--index", "ix", "--out", "a.jsonl", "--quiet"]


def asking(server: Scripted, *more: str) -> list[str]:
    url = server.url.removesuffix("/v1")
    return [*ALL, "--llm", f"vllm:tiny@{url}", "--updater", "embedded", "--threshold", "0", *more]


def year(body: Body) -> list[str]:
    """What the first document of the prompt says, cited."""
    shown = body["messages"][1]["content"]
    return [shown.split("opened in ", 1)[1][:4] + " [1]"] * body.get("n", 1)


def test_every_question_has_a_line_in_the_form_of_ask(place: Path) -> None:
    assert run([*ALL, "--expert", "sentences"]) == 0
    found = answers(place)
    assert set(found) == {f"q{n}" for n in range(COUNT)}
    assert all(
        line["schema"] == 1 and {"answer", "citations", "usage", "trace"} <= set(line)
        for line in found.values()
    )
    assert found["q7"]["question"] == "When was the bridge of Stadby7 opened?"
    assert "1807" in found["q7"]["answer"] and found["q7"]["citations"][0]["source"] == "b7"


def test_so_many_are_asked_at_a_time(place: Path) -> None:
    with serving(Scripted(say=year, seconds=0.15)) as server:
        assert run(asking(server, "--concurrency", "20")) == 0
    assert 10 <= server.most <= 20
    assert all(line["answer"] == f"{1800 + int(id_[1:])} [1]" for id_, line in answers(place).items())
    assert len(server.bodies) == COUNT


def test_questions_that_fail_are_named_and_asked_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = re.compile(r"of Stadby(3|11) opened\?")
    with serving(Scripted(say=year, refuses=lambda body: bool(bad.search(str(body))))) as server:
        assert run(asking(server, "--hops", "1", "--concurrency", "1")) == 1
        told = capsys.readouterr()
        assert {f"q{n}" for n in range(COUNT)} - set(answers(place)) == {"q3", "q11"}
        assert f"2 questions of {COUNT} failed" in told.err and told.out == ""
        assert all(f"{id_}: The server" in told.err for id_ in ("q3", "q11"))
        before, server.refuses = len(server.bodies), None
        assert run(asking(server, "--hops", "1", "--concurrency", "1")) == 0
    assert len(answers(place)) == COUNT and len(server.bodies) - before == 2


def test_a_model_that_is_gone_ends_the_run_early(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Scripted(say=year)) as server:
        pass
    assert run(asking(server)) == 1
    told = capsys.readouterr().err
    assert "16 times in a row" in told and "Run the same command again" in told and "Traceback" not in told
    assert (place / "a.jsonl").read_text() == ""


def test_a_budget_is_that_of_one_question(place: Path) -> None:
    with serving(Scripted(say=year)) as server:
        assert run(asking(server, "--budget", "calls=1")) == 0
        (place / "a.jsonl").unlink()
        assert run(asking(server, "--budget", "calls=0")) == 1
    assert answers(place) == {}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_a_run_that_is_broken_off_loses_and_repeats_nothing(place: Path, how: signal.Signals) -> None:
    with serving(Scripted(say=year, seconds=0.6)) as server:
        command = [sys.executable, "-m", "agentmtl", *asking(server, "--concurrency", "4")]
        own = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        # a shell's background jobs ignore Ctrl-C, and what they start would too
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(
            command, cwd=place, env=own, stderr=subprocess.PIPE, preexec_fn=heeding
        ) as process:
            until = time.monotonic() + 60
            while time.monotonic() < until and len(lines_of(place)) < 5:
                time.sleep(0.02)
            process.send_signal(how)
            told = process.stderr.read().decode() if process.stderr else ""
            code = process.wait(30)
        before = answers_whole(place)
        assert 5 <= len(before) < COUNT and code == (130 if how == signal.SIGINT else -9)
        assert how != signal.SIGINT or "it resumes" in told
        with (place / "a.jsonl").open("a") as out:
            out.write('{"id": "q39", "ques')  # cut off by a kill
        asked = len(server.bodies)
        assert run(asking(server, "--concurrency", "4")) == 0
    after = answers(place)
    assert len(after) == COUNT and all(after[id_] == line for id_, line in before.items())
    assert len(server.bodies) - asked == COUNT - len(before)


def lines_of(place: Path) -> list[str]:
    return (place / "a.jsonl").read_text().splitlines() if (place / "a.jsonl").exists() else []


def answers_whole(place: Path) -> dict[str, dict[str, Any]]:
    """Those whose line is whole."""
    text = (place / "a.jsonl").read_text()
    return {line["id"]: line for line in map(json.loads, text[: text.rfind("\n") + 1].splitlines())}


@pytest.mark.parametrize("change", ["options", "question", "fewer"])
def test_it_does_not_go_on_from_something_else(
    place: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*ALL, "--expert", "sentences"]) == 0
    before = (place / "a.jsonl").read_text()
    records = [json.loads(line) for line in (place / "q.jsonl").read_text().splitlines()]
    if change == "question":
        records[3]["question"] = "What else?"
    write(place, records[1:] if change == "fewer" else records)
    more = ["--hops", "1"] if change == "options" else []
    assert run([*ALL, "--expert", "sentences", *more]) == 2
    assert "another --out" in capsys.readouterr().err and (place / "a.jsonl").read_text() == before


BAD = ["nope", "[]", '{"id": "a"}', '{"question": "Who?"}', '{"id": "a", "question": " "}',
       '{"id": "q0", "question": "Who?"}']  # fmt: skip


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_refused_before_anything_is_asked(
    place: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (place / "q.jsonl").open("a") as file:
        file.write(line + "\n")
    assert run([*ALL, "--expert", "sentences"]) == 2
    assert f"line {COUNT + 1}" in capsys.readouterr().err and not (place / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "q.jsonl", "--index", "ix", "-k", "3"], "-k goes with a task"),
        (["run", "logs", "--index", "ix", "--samples", "2"], "--samples goes with a file of questions"),
        (["run", "logs", "--index", "ix", "--concurrency", "3"], "--concurrency goes with"),
        (["run", "nowhere.jsonl", "--index", "ix"], "cannot be read"),
        (["run", "logs", "--index", "ix", "--threshold", "2"], "no probability"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    place: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2 and says in capsys.readouterr().err
