"""Runs on disk: a process that is killed in the middle goes on in the next, without asking again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agentmtl import Agent, Budget, Index
from agentmtl.agent.runs import Runs
from agentmtl.errors import BudgetExceededError, StorageError, UsageError
from agentmtl.schema import Allocation, Share
from tests.agent.chats import chat

QUESTION = "Where was John Harrison born?"
EMBEDDED = Allocation({"hop": Share("embedded")})

KILLED = """
import os, signal, sys
from pathlib import Path
from agentmtl import Agent, Index
from agentmtl.schema import Allocation, Budget, Share
from tests.agent.chats import chat

def reply(messages, number):
    os.kill(os.getpid(), signal.SIGKILL)

expert = chat({"hop": ["John Harrison", "enough"]})
hop = expert.caller.model.replies

def either(messages, number):
    return hop(messages, number) if "look up" in messages[0].text else reply(messages, number)

expert.caller.model.replies = either
agent = Agent(Index.open(Path(sys.argv[1])), expert=expert, runs=Path(sys.argv[2]), budget=Budget(calls=9),
              allocation=Allocation({"hop": Share(samples=2)}))
agent.ask(sys.argv[3], run="monday")
"""


def agent(index: Index, path: Path, replies: dict[str, list[str]], budget: Budget | None = None) -> Agent:
    allocation = Allocation({"hop": Share(samples=2)}) if "hop" in replies else EMBEDDED
    return Agent(index, expert=chat(replies), runs=path, allocation=allocation, budget=budget)


def test_a_killed_run_goes_on_from_its_last_step(index: Index, tmp_path: Path) -> None:
    """SIGKILL in the sampling: neither the search nor the calls for hops are made again, and these count."""
    path = tmp_path / "runs.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(index.folder), str(path), QUESTION],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = Agent(
        index, expert=chat({"sample": ["Foulby [1]"]}), runs=path, budget=Budget(calls=9),
        allocation=Allocation({"hop": Share(samples=2)}),
    )  # fmt: skip
    answer = again.ask(QUESTION, run="monday")
    assert answer.text == "Foulby [1]" and answer.citations[0].source == "harrison"
    assert answer.usage.calls == 3
    names = [step["step"] for step in answer.trace]
    assert names.count("retrieve") == 1 and names.count("hop") == 2
    assert path.stat().st_mode & 0o077 == 0


async def test_a_run_that_ended_gives_its_answer_without_asking(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    first = agent(index, path, {"sample": ["Foulby [1]"]}).ask(QUESTION, run="a")
    silent = agent(index, path, {})
    assert silent.ask(QUESTION, run="a").text == (await silent.aask(QUESTION, run="a")).text == first.text
    later = await agent(index, path, {"sample": ["Larvik [1]"]}).aask(QUESTION, run="b")
    assert later.text == "Larvik [1]"
    Runs(path).forget("a")
    assert agent(index, path, {"sample": ["Larvik [1]"]}).ask(QUESTION, run="a").text == "Larvik [1]"


def test_what_was_spent_before_counts_against_the_budget(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    replies = {"hop": ["John Harrison", "enough"], "sample": ["Foulby", "Foulby"], "repair": ["Foulby [1]"]}
    broken = agent(index, path, {"hop": ["John Harrison", "enough"]}, Budget(calls=3))
    with pytest.raises(Exception, match="AssertionError"):
        broken.ask(QUESTION, run="a")
    answer = agent(index, path, replies, Budget(calls=3)).ask(QUESTION, run="a")
    assert answer.usage.calls == 3 and answer.abstained  # no call was left for the repair
    with pytest.raises(BudgetExceededError):
        agent(index, path, {"sample": ["Foulby"]}, Budget(calls=0)).ask(QUESTION, run="c")


def test_purging_erases_the_bytes(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    Runs(path).purge()
    agent(index, path, {"sample": ["Foulby [1]"]}).ask(QUESTION, run="a")
    assert b"Foulby" in path.read_bytes()
    Runs(path).purge()
    assert all(b"Foulby" not in file.read_bytes() for file in tmp_path.glob("runs*"))
    assert agent(index, path, {"sample": ["Larvik [1]"]}).ask(QUESTION, run="a").text == "Larvik [1]"


def test_a_run_is_of_one_question(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    made = agent(index, path, {"sample": ["Foulby [1]"]})
    made.ask(QUESTION, run="a")
    with pytest.raises(UsageError, match="another question"):
        made.ask("Who?", run="a")
    with pytest.raises(UsageError, match="name"):
        made.ask("Who?", run=" ")


def test_a_file_that_is_none_is_a_clear_error(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    path.write_bytes(b"this is not a database, and long enough to be sure of it" * 100)
    with pytest.raises(StorageError, match="runs"):
        agent(index, path, {}).ask(QUESTION, run="a")
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(path).execute("select * from checkpoints")
