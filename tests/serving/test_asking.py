"""The whole agent over a real server: from the command line and from Python, one question and many."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentmtl import Agent, Index
from agentmtl.errors import BudgetExceededError
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.integrations.chat_vllm import ChatVLLM
from agentmtl.schema import Allocation, Answer, Budget, Share

from ..conftest import environment_in
from .conftest import NOTES
from .server import ROOT, Server

pytestmark = pytest.mark.server

QUESTION = "When was the bridge of Stadby opened?"
RIGHT = "1902 [1]"


def agentmtl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, with folders of its own instead of the user's."""
    return subprocess.run(
        [sys.executable, "-m", "agentmtl", *arguments], cwd=folder, capture_output=True, text=True,
        env={**environment_in(folder), "PYTHONPATH": str(ROOT)}, timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def asking(server: Server, notes: Index, *more: str) -> list[str]:
    return ["ask", QUESTION, "--index", str(notes.folder), "--llm", f"vllm:tiny@{server.url}", *more]


def checked(answer: dict[str, Any]) -> None:
    """Whatever it says, each citation is a span of a stored text."""
    for citation in answer["citations"]:
        text = NOTES[int(citation["source"][1:])][0]
        assert text[citation["start"] : citation["end"]] == citation["text"] != ""
    assert answer["abstained"] == (answer["answer"] == "")
    assert answer["usage"]["calls"] >= 1 and answer["usage"]["prompt_tokens"] > 0


# --- the command line ---------------------------------------------------------------------------------------


def test_ask_answers_from_the_server(server: Server, notes: Index, tmp_path: Path) -> None:
    done = agentmtl(tmp_path, *asking(server, notes, "--json", "--samples", "5", "--max-tokens", "24"))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    checked(answer)
    assert answer["answer"] == RIGHT and answer["citations"][0]["source"] == "n2"  # by vote: it samples
    assert answer["route"] == "vllm:tiny" and answer["schema"] == 1
    log = agentmtl(tmp_path, "log", "--json")
    (entry,) = json.loads(log.stdout)["entries"]
    shown = json.loads(agentmtl(tmp_path, "log", "show", str(entry["id"]), "--json").stdout)
    assert len(shown["calls"]) == answer["usage"]["calls"]
    assert sum(call["usage"]["output_tokens"] for call in shown["calls"]) == answer["usage"]["output_tokens"]


def test_several_samples_and_a_budget(server: Server, notes: Index, tmp_path: Path) -> None:
    done = agentmtl(
        tmp_path,
        *asking(server, notes, "--samples", "6", "--aggregator", "weighted", "--max-tokens", "16"),
        "--budget", "calls=9,tokens=6000,seconds=60", "--json",
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    answer = json.loads(done.stdout)
    checked(answer)
    spent = answer["usage"]
    assert spent["calls"] <= 9 and spent["prompt_tokens"] + spent["output_tokens"] <= 6000
    drawn = next(step for step in answer["trace"] if step["step"] == "sample")
    assert drawn["samples"] == 3  # a first round in one request
    for budget in ("calls=0", "tokens=30"):
        refused = agentmtl(tmp_path, *asking(server, notes, "--budget", budget, "--json"))
        assert refused.returncode == 5 and json.loads(refused.stdout)["error"]["code"] == "budget"


def test_the_prompt_is_shown_and_nothing_is_asked(notes: Index, tmp_path: Path) -> None:
    nowhere = ["ask", QUESTION, "--index", str(notes.folder), "--llm", "vllm:tiny@http://127.0.0.1:9"]
    done = agentmtl(tmp_path, *nowhere, "--show-prompt", "--json")
    messages = json.loads(done.stdout)["messages"]
    assert done.returncode == 0 and [message["role"] for message in messages] == ["system", "human"]
    assert QUESTION in messages[1]["text"] and NOTES[2][0] in messages[1]["text"]
    failed = agentmtl(tmp_path, *nowhere, "--json")
    error = json.loads(failed.stdout)["error"]
    assert failed.returncode == 1 and "cannot be reached" in error["message"] and "curl" in error["hint"]


def test_an_adapter_answers_by_its_name_and_a_stream_comes_in_pieces(
    server: Server, notes: Index, tmp_path: Path
) -> None:
    asked = [
        "ask", QUESTION, "--index", str(notes.folder), "--llm", f"vllm:tickets@{server.url}",
        "--max-tokens", "12", "--stream", "--json", "--updater", "embedded",
    ]  # fmt: skip
    done = agentmtl(tmp_path, *asked)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    checked(lines[-1])
    pieces = [line["text"] for line in lines[:-1] if line["step"] == "token"]
    assert lines[-1]["route"] == "vllm:tickets" and pieces


def test_a_file_of_questions(server: Server, notes: Index, tmp_path: Path) -> None:
    names = ["Tarn", "Stadby", "Molde", "Foulby"] * 8
    records = [{"id": n, "question": f"What is there in {name}, number {n}?"} for n, name in enumerate(names)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    command = [
        "run", "q.jsonl", "--index", str(notes.folder), "--out", "a.jsonl",
        "--llm", f"vllm:tiny@{server.url}", "--concurrency", "32", "--max-tokens", "12",
    ]  # fmt: skip
    done = agentmtl(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {answer["id"] for answer in answers} == {str(n) for n in range(32)}
    for answer in answers:
        checked(answer)
    before = (tmp_path / "a.jsonl").read_bytes()
    assert agentmtl(tmp_path, *command).returncode == 0 and (tmp_path / "a.jsonl").read_bytes() == before


# --- Python -------------------------------------------------------------------------------------------------


def agent(server: Server, notes: Index, temperature: float = 1.0, **options: Any) -> Agent:
    chat = ChatVLLM(
        model="tiny", base_url=f"{server.url}/v1", logprobs=True, timeout=120, temperature=temperature
    )
    return Agent(notes, expert=ChatExpert(Caller(chat, "tiny", max_tokens=16)), **options)


def test_an_answer_is_read_out_of_the_document_that_it_cites(server: Server, notes: Index) -> None:
    found = agent(server, notes, temperature=0, hops=1).ask(QUESTION)
    assert (found.text, found.citations[0].source) == (RIGHT, "n2")
    assert found.usage.calls == 1 and found.confidence > 0.5


async def test_thirty_two_asks_at_once_are_all_answered_and_counted(server: Server, notes: Index) -> None:
    asked = agent(server, notes, allocation=Allocation({"sample": Share(samples=3)}))
    found = await asyncio.gather(*(asked.aask(QUESTION) for _ in range(32)))
    for answer in found:
        assert isinstance(answer, Answer)
        checked(answer.to_json())
    assert sum(answer.text == RIGHT for answer in found) >= 28


async def test_a_budget_holds_for_each_of_many(server: Server, notes: Index) -> None:
    asked = agent(server, notes, budget=Budget(calls=2, tokens=1500))
    found = await asyncio.gather(*(asked.aask(QUESTION) for _ in range(8)), return_exceptions=True)
    for answer in found:
        if isinstance(answer, BudgetExceededError):
            continue
        assert isinstance(answer, Answer), answer
        assert answer.usage.calls <= 2
        assert answer.usage.prompt_tokens + answer.usage.output_tokens <= 1500
