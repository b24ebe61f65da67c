"""A real server that is late, slow, killed, or says what cannot be used: what the client and the agent do."""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from agentmtl import Agent, Index
from agentmtl.errors import BudgetExceededError, ModelError
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.integrations.chat_vllm import ChatVLLM
from agentmtl.schema import Budget
from agentmtl.spending import Ledger

from .proxy import misbehaving
from .server import Server

pytestmark = pytest.mark.server

ASKED = "Who built the lighthouse of Tarn?"
LONG = {"max_tokens": 900, "ignore_eos": True, "n": 4}  # some seconds of work


def model(url: str, **options: Any) -> ChatVLLM:
    return ChatVLLM(model="tiny", base_url=f"{url}/v1", temperature=1.0, **{"timeout": 60, **options})


def idle(server: Server, seconds: float = 20.0) -> bool:
    """Whether the server comes to have no request, as it says itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        told = httpx.get(f"{server.url}/metrics", trust_env=False).text
        running = re.findall(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} ([\d.]+)", told, re.M)
        if running and not any(float(count) for count in running):
            return True
        time.sleep(0.1)
    return False


# --- late ---------------------------------------------------------------------------------------------------


def test_a_request_that_takes_too_long_fails_once_and_is_not_left_running(spare: Server) -> None:
    with pytest.raises(ModelError, match="did not answer in time") as caught:
        model(spare.url, timeout=0.5).invoke(ASKED, **LONG)
    assert "curl" in caught.value.hint and idle(spare)


async def test_a_budgets_deadline_cancels_the_request(spare: Server) -> None:
    caller = Caller(model(spare.url, extra={"ignore_eos": True}), "tiny", max_tokens=900)
    expert = ChatExpert(caller)
    with Ledger(Budget(seconds=0.5)).active(), pytest.raises(BudgetExceededError, match="0.5 seconds"):
        await caller.acall(_messages(), "sample", 4)
    assert expert.name == "tiny" and await asyncio.to_thread(idle, spare)


def _messages() -> list[Any]:
    from langchain_core.messages import HumanMessage

    return [HumanMessage(ASKED)]


@pytest.mark.parametrize("how", [{"late": 2.0}, {"drip": 0.02}], ids=["late", "drip"])
async def test_a_slow_server_is_given_up_after_the_timeout(spare: Server, how: dict[str, float]) -> None:
    with misbehaving(spare.url, **how) as proxy:
        chat = model(proxy.url, timeout=0.6)
        for call in (chat.invoke, lambda asked: asyncio.run(chat.ainvoke(asked))):
            with pytest.raises(ModelError, match="did not answer in time"):
                await asyncio.to_thread(call, ASKED)
        assert proxy.asked == 2  # a timeout is not tried again


async def test_failures_of_a_moment_are_tried_again(spare: Server) -> None:
    with misbehaving(spare.url, statuses=[500, 503]) as proxy:
        assert model(proxy.url).invoke(ASKED, max_tokens=4).usage_metadata
        assert proxy.asked == 3
        proxy.statuses[:] = [502]
        assert [piece async for piece in model(proxy.url).astream(ASKED, max_tokens=4)]


# --- killed -------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_in_the_middle_and_comes_back(spare: Server, notes: Index) -> None:
    chat, other = model(spare.url), model(spare.url)
    agent = Agent(notes, expert=ChatExpert(Caller(chat, "tiny", max_tokens=8)), threshold=0.0)
    try:
        whole, piece = _raised_when_killed(spare, chat, other)
        assert "broke the connection off" in str(piece)
        assert "broke the connection off" in str(whole) or "cannot be reached" in str(whole)
        with pytest.raises(ModelError, match="cannot be reached"):
            other.invoke(ASKED)
        for _ in range(2):
            with pytest.raises(ModelError):
                chat.invoke(ASKED)
        with pytest.raises(ModelError, match=r"failed \d+ times in a row: not asked for \d+ s"):
            chat.invoke(ASKED)
        with pytest.raises(ModelError, match="in a row"):
            agent.ask(ASKED)  # the agent says why, and not only that the model failed
    finally:
        spare.start()
    assert agent.ask(ASKED).usage.calls >= 1  # the circuit's pause is over, and the same objects work


def _raised_when_killed(server: Server, whole: ChatVLLM, piecewise: ChatVLLM) -> list[Exception]:
    """What a call and a stream raise whose server is killed at the stream's first piece."""
    list(piecewise.stream(ASKED, max_tokens=2))  # what a first call loads takes long enough to miss the end

    def stream() -> None:
        for at, _ in enumerate(piecewise.stream(ASKED, **LONG)):
            if not at:
                server.kill()

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(whole.invoke, ASKED, **LONG), pool.submit(stream)]
        raised = [job.exception(timeout=60) for job in jobs]
    assert all(isinstance(error, ModelError) for error in raised), raised
    return raised  # type: ignore[return-value]


# --- saying what cannot be used -----------------------------------------------------------------------------

NONSENSE = [b"", b"{", b"[]", b"null", b'{"choices": []}', b'{"choices": [1]}', b'{"choices": {"a": 1}}',
            b"<html>502</html>"]  # fmt: skip


@pytest.mark.parametrize("raw", NONSENSE)
def test_a_reply_that_is_none_is_an_error(spare: Server, raw: bytes) -> None:
    with misbehaving(spare.url, raw=raw) as proxy, pytest.raises(ModelError):
        model(proxy.url).invoke(ASKED, max_tokens=4)


@pytest.mark.parametrize(
    "said", ["Mira Holm [9]", "Mira Holm", "[1]", "…", "Jonas Berg [1]"],
    ids=["no such document", "cites nothing", "says nothing", "no words", "not in the document"],
)  # fmt: skip
def test_malformed_answers_are_repaired_once_at_most_and_then_refused(
    spare: Server, notes: Index, said: str
) -> None:
    with misbehaving(spare.url, said=lambda text: said) as proxy:
        expert = ChatExpert(Caller(model(proxy.url), "tiny", max_tokens=8))
        answer = Agent(notes, hops=1, expert=expert, threshold=0.0).ask(ASKED)
    assert answer.abstained and answer.text == "" and answer.citations == ()
    assert answer.usage.calls == proxy.asked <= 2


def test_one_repair_that_helps_is_used(spare: Server, notes: Index) -> None:
    replies = iter(["Mira Holm", "Mira Holm [1]"])
    with misbehaving(spare.url, said=lambda text: next(replies)) as proxy:
        expert = ChatExpert(Caller(model(proxy.url), "tiny", max_tokens=8))
        answer = Agent(notes, hops=1, expert=expert, threshold=0.0).ask(ASKED)
    assert answer.text == "Mira Holm [1]" and answer.usage.calls == proxy.asked == 2
    assert answer.citations[0].source == "n0"
