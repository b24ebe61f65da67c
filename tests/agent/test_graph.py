"""The graph gives what the plain run gives, tells its steps, fans samples out, and goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentmtl import Agent, Index
from agentmtl.agent.graph import compile_graph, serializer
from agentmtl.agent.state import Step
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.fake import FakeChatModel
from agentmtl.schema import Answer, Budget
from agentmtl.spending import Ledger
from tests.agent.test_sampling import drawing

QUESTION = "Where was John Harrison born?"


def agent(index: Index, samples: int = 5, replies: Any = None) -> Agent:
    fake = FakeChatModel(replies=replies or ["Foulby [1]", "Larvik [1]", "Foulby [1]"])
    return Agent(index, expert=ChatExpert(Caller(fake, "fake")), allocation=drawing(samples))


def same(one: Answer, other: Answer) -> bool:
    return replace(one, usage=other.usage, trace=()) == replace(other, trace=())


@pytest.mark.parametrize("expert", ["sentences", None])
async def test_the_graph_gives_what_the_plain_run_gives(index: Index, expert: str | None) -> None:
    made = Agent(index, threshold=0.0, expert=expert) if expert else agent(index)
    plain = made.ask(QUESTION)
    made = Agent(index, threshold=0.0, expert=expert) if expert else agent(index)
    found = compile_graph(made.stages()).invoke({"question": QUESTION})["answer"]
    made = Agent(index, threshold=0.0, expert=expert) if expert else agent(index)
    later = (await compile_graph(made.stages()).ainvoke({"question": QUESTION}))["answer"]
    assert same(plain, found) and same(plain, later) and plain.text
    assert [step["step"] for step in found.trace] == [step["step"] for step in plain.trace]


def test_every_step_is_told_as_it_ends(index: Index) -> None:
    told: list[Step] = []
    made = agent(index)
    compile_graph(made.stages(told.append)).invoke({"question": QUESTION})
    assert [step["step"] for step in told] == [
        "route", "plan", "retrieve", "sample", "sample", "propose", "verify",
    ]  # fmt: skip


def test_a_model_that_draws_one_gets_a_send_for_each(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Caller, "many", False)
    made = agent(index)
    with Ledger(Budget(calls=5)).active() as ledger:
        found = compile_graph(made.stages()).invoke({"question": QUESTION})
    assert found["drawn"] == 5 and ledger.spent.calls == 5 and len(found["candidates"]) == 5


def test_a_run_that_was_killed_goes_on_from_its_last_step(index: Index) -> None:
    """The first try dies in the sampling; the second does not search again."""
    broken = True

    def reply(messages: Sequence[BaseMessage], number: int) -> str:
        if broken:
            raise KeyboardInterrupt
        return "Foulby [1]"

    saver = InMemorySaver(serde=serializer())
    config: Any = {"configurable": {"thread_id": "1"}}
    told: list[Step] = []
    graph = compile_graph(agent(index, 3, reply).stages(told.append), saver)
    with pytest.raises(KeyboardInterrupt):
        graph.invoke({"question": QUESTION}, config)
    broken = False
    again = compile_graph(agent(index, 3, reply).stages(told.append), saver)
    answer = again.invoke(None, config)["answer"]
    assert answer.text == "Foulby [1]" and answer.citations[0].source == "harrison"
    assert [step["step"] for step in told].count("retrieve") == 1
