"""Events as they come about; who stops reading ends the run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from langchain_core.messages import BaseMessage

from agentmtl import Agent, Answer, Budget, Index
from agentmtl.agent.graph import compile_graph
from agentmtl.agent.state import begun
from agentmtl.errors import BudgetExceededError
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.fake import FakeChatModel
from agentmtl.schema import Allocation, Share
from tests.agent.chats import chat

QUESTION = "Where was John Harrison born?"
EMBEDDED = Allocation({"hop": Share("embedded")})
STEPS = ["route", "plan", "retrieve", "token", "sample", "propose", "verify"]


def kinds(events: Sequence[object]) -> list[str]:
    """The steps, pieces of one output as one."""
    names = ["answer" if isinstance(event, Answer) else event["step"] for event in events]  # type: ignore[index]
    return [name for n, name in enumerate(names) if name != "token" or names[n - 1] != "token"]


async def test_steps_and_pieces_come_and_then_the_answer(index: Index) -> None:
    agent = Agent(index, expert=chat({"sample": ["Foulby [1]"]}), allocation=EMBEDDED)
    events = list(agent.stream(QUESTION))
    later = [event async for event in agent.astream(QUESTION)]
    assert kinds(events) == kinds(later) == [*STEPS, "answer"]
    said = "".join(
        event["text"] for event in events if not isinstance(event, Answer) and event["step"] == "token"
    )
    assert said == "Foulby [1]"
    answer = events[-1]
    assert isinstance(answer, Answer) and answer.text == "Foulby [1]" and answer.usage.output_tokens == 2


async def test_the_graph_streams_the_same_steps(index: Index) -> None:
    graph = compile_graph(Agent(index, expert=chat({"sample": ["Foulby [1]"]}), allocation=EMBEDDED).stages())
    events = list(graph.stream(begun(QUESTION), stream_mode="custom"))
    later = [event async for event in graph.astream(begun(QUESTION), stream_mode="custom")]
    assert kinds(events) == kinds(later) == [name for name in STEPS if name != "token"]


async def test_an_error_comes_where_the_events_are_read(index: Index) -> None:
    agent = Agent(index, expert=chat({}), allocation=EMBEDDED, budget=Budget(calls=0))
    with pytest.raises(BudgetExceededError):
        list(agent.stream(QUESTION))
    with pytest.raises(BudgetExceededError):
        _ = [event async for event in agent.astream(QUESTION)]


def test_who_stops_reading_ends_the_run(index: Index) -> None:
    """The expert is not called once the reader has gone."""
    gone, called = threading.Event(), threading.Event()

    def reply(messages: Sequence[BaseMessage], number: int) -> str:
        called.set()
        return "Foulby [1]"

    class Slow(FakeChatModel):
        def count_prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
            gone.wait(10)
            return 1

    model = ChatExpert(Caller(Slow(replies=reply), "slow"))
    events = Agent(
        index, expert=model, allocation=Allocation({"hop": Share("embedded"), "sample": Share("", 9)})
    )
    stream = events.stream(QUESTION)
    assert next(stream)["step"] == "route"  # type: ignore[index]
    stream.close()  # type: ignore[attr-defined]
    gone.set()
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not called.is_set()


async def test_a_cancelled_question_cancels_its_call(index: Index) -> None:
    cancelled = asyncio.Event()

    class Waits(FakeChatModel):
        async def _agenerate(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError

    agent = Agent(index, expert=ChatExpert(Caller(Waits(), "waits")), allocation=EMBEDDED)
    task = asyncio.create_task(agent.aask(QUESTION))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_the_deadline_cancels_a_call_on_the_loop(index: Index) -> None:
    class Waits(FakeChatModel):
        async def _agenerate(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            await asyncio.sleep(60)
            raise AssertionError

    expert = ChatExpert(Caller(Waits(), "waits"))
    agent = Agent(index, expert=expert, allocation=EMBEDDED, budget=Budget(seconds=0.3))
    with pytest.raises(BudgetExceededError, match="seconds passed"):
        await agent.aask(QUESTION)
