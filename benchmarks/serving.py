"""Many questions at once: what the agent adds to the model that it asks.

    python benchmarks/serving.py [--server http://127.0.0.1:8000 --model tiny] [--asks 32] [--rounds 5]

Over the bundled corpus, so many `await agent.aask(…)` at the same time, two hops, one sample, greedy:

- against a server that takes 200 ms a call and does nothing (`slow_server.py`, a process of its own): wall
  time ÷ ideal, which is the calls of the longest chain × 200 ms. Once with all questions asked at one moment,
  once with as many askers who each ask `--each` questions in turn; with the default encoder and with the
  hashing one, which costs nothing;
- with --server, against a real vLLM on the same cores: the throughput ÷ that of a bare async httpx client
  which sends the very bodies that the agent sent, each question's calls one after the other, all questions at
  once. Three passages a prompt. Start the server with --no-enable-prefix-caching, else the second to come
  finds its prompts read.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from timing import Row, Spread, parser, report

from agentmtl import Agent, Index
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.integrations.chat_vllm import ChatVLLM
from agentmtl.retrieval.hops.evidence import PASSAGES
from agentmtl.sample import corpus_path
from agentmtl.schema import Allocation, Share

SECONDS = 0.2  # a call of the slow server
MAX_TOKENS = 24
SHORT = 3  # passages of a prompt for a real server: eight do not fit a small model's window

_CHAIN: ContextVar[list[bytes] | None] = ContextVar("chain", default=None)  # what a question sent


class Recording(ChatVLLM):
    """Keeps the body of every request with the question that it was made for."""

    def _body(self, messages: Any, stop: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        body = super()._body(messages, stop, options)
        chain = _CHAIN.get()
        if chain is not None:
            chain.append(json.dumps(body).encode())
        return body


def agent_of(index: Index, url: str, model: str, passages: int = PASSAGES) -> Agent:
    chat = Recording(model=model, base_url=f"{url}/v1", temperature=0, timeout=600)
    expert = ChatExpert(Caller(chat, "model", max_tokens=MAX_TOKENS))
    given = Allocation({"read": Share(samples=passages)})
    return Agent(index, threshold=0.0, expert=expert, allocation=given)


async def asked(agent: Agent, questions: Sequence[str], each: int = 1) -> tuple[float, list[list[bytes]]]:
    """(seconds, what each asker sent): an asker for every question, who asks `each`, beginning with it."""

    async def one(first: int) -> list[bytes]:
        chain: list[bytes] = []
        _CHAIN.set(chain)
        for turn in range(each):
            await agent.aask(questions[(first + turn) % len(questions)])
        return chain

    started = time.perf_counter()
    chains = await asyncio.gather(*(asyncio.create_task(one(n)) for n in range(len(questions))))
    return time.perf_counter() - started, chains


async def bare(url: str, chains: Sequence[Sequence[bytes]]) -> float:
    """Seconds of a client that only sends the same."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=600, trust_env=False, limits=limits) as client:

        async def one(chain: Sequence[bytes]) -> None:
            for body in chain:
                headers = {"Content-Type": "application/json"}
                reply = await client.post(f"{url}/v1/chat/completions", content=body, headers=headers)
                reply.raise_for_status()
                reply.json()

        started = time.perf_counter()
        await asyncio.gather(*(one(chain) for chain in chains))
        return time.perf_counter() - started


async def against_slow(index: Index, url: str, questions: Sequence[str], each: int, rounds: int) -> list[Row]:
    agent = agent_of(index, url, "slow")
    over: dict[int, list[float]] = {1: [], each: []}
    alone: list[float] = []
    for turn in range(rounds + 1):  # the first does not count
        for count, found in over.items():
            seconds, chains = await asked(agent, questions, count)
            calls = max(map(len, chains))
            if turn:
                found.append(seconds / SECONDS / calls)
        if turn:
            alone.append(await bare(url, chains) / SECONDS / calls)
    name = index.settings.encoder.name
    return [
        Row(f"{len(questions)} asks at one moment, {name}: wall ÷ ideal", Spread.of(over[1]), at_most=1.15),
        Row(
            f"{len(questions)} askers, {each} each, {name}: wall ÷ ideal", Spread.of(over[each]), at_most=1.15
        ),
        Row("the bare client for the latter ÷ ideal", Spread.of(alone)),
    ]


async def against_vllm(
    index: Index, url: str, model: str, questions: Sequence[str], rounds: int
) -> list[Row]:
    agent, share, agents, bares, calls = agent_of(index, url, model, SHORT), [], [], [], 0
    for turn in range(rounds + 1):
        seconds, chains = await asked(agent, questions)
        least = await bare(url, chains)
        if turn:
            share.append(least / seconds)
            agents.append(len(questions) / seconds)
            bares.append(len(questions) / least)
            calls = sum(map(len, chains))
    what = f"{len(questions)} asks at once ({calls} calls), vLLM: throughput ÷ bare client"
    return [
        Row(what, Spread.of(share), at_least=0.6),
        Row("the agent", Spread.of(agents), "asks/s"),
        Row("the bare client", Spread.of(bares), "asks/s"),
    ]


@contextmanager
def slow_server() -> Iterator[str]:
    script = Path(__file__).with_name("slow_server.py")
    command = [sys.executable, str(script), str(SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--server", default="", help="address of a running vLLM")
    made.add_argument("--model", default="tiny")
    made.add_argument("--asks", type=int, default=32, help="at the same time")
    made.add_argument("--encoders", nargs="+", default=["hashing", "default"])
    made.add_argument("--each", type=int, default=8, help="questions of an asker in turn")
    arguments = made.parse_args()
    lines = files("agentmtl.sample").joinpath("questions.jsonl").read_text("utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    questions = (questions * (1 + arguments.asks // len(questions)))[: arguments.asks]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for encoder in arguments.encoders:
            index, _ = Index.build(Path(name) / encoder, [str(corpus_path())], encoder=encoder)
            with slow_server() as url:
                rows += asyncio.run(against_slow(index, url, questions, arguments.each, arguments.rounds))
        if arguments.server:
            real = arguments.server.rstrip("/")
            rows += asyncio.run(against_vllm(index, real, arguments.model, questions, arguments.rounds))
    report("serving", rows, arguments)


if __name__ == "__main__":
    main()
