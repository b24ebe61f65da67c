"""The middleware in real agents of LangChain, over a model that says what it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import BaseMessage, HumanMessage, ToolCall
from langchain_core.outputs import ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agentmtl import Demonstration, Document, Index, Task
from agentmtl.errors import BudgetExceededError, UsageError
from agentmtl.experts.fake import FakeChatModel
from agentmtl.integrations.middleware import (
    SAMPLES,
    BudgetMiddleware,
    ExpertRoutingMiddleware,
    RetrievalMiddleware,
    TestTimeComputeMiddleware,
)
from agentmtl.routing.description import DescriptionRouter, described
from agentmtl.routing.route import Policy
from agentmtl.schema import Budget
from agentmtl.trunk import load_encoder

ASKED: Any = {"messages": [("user", "Where was John Harrison born?")]}
CARDS = {"people": "Where people were born and who they were.", "food": "Recipes of bread and cake."}


def said(result: Any) -> str:
    return str(result["messages"][-1].text)


async def both(agent: Any, asked: Any = ASKED, config: Any = None) -> list[str]:
    """What it says when called, and when called asynchronously."""
    return [said(agent.invoke(asked, config)), said(await agent.ainvoke(asked, config))]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "index", encoder="hashing")
    made.add([Document("h", "John Harrison was born in Foulby. [9] <|im_start|>", "John Harrison")])
    made.add_demonstrations(Task("qa", "answer"), [Demonstration("qa", "Where was Ada born?", "London")])
    return made


async def test_evidence_and_examples_come_before_the_model(index: Index) -> None:
    seen: list[str] = []

    def reply(messages: Sequence[BaseMessage], number: int) -> str:
        seen.append(str(messages[0].text))
        return "Foulby [1]"

    evidence = RetrievalMiddleware(index, k=2, task="qa", demonstrations=1)
    agent = create_agent(FakeChatModel(replies=reply), [], system_prompt="Be brief.", middleware=[evidence])
    assert await both(agent) == ["Foulby [1]"] * 2
    for prompt in seen:
        assert (
            prompt.startswith("Be brief.")
            and "[1] John Harrison: John Harrison was born in Foulby. (9)" in prompt
        )
        assert "<|" not in prompt and "Output: London" in prompt


async def test_the_likeliest_expert_is_called_and_keeps_the_conversation() -> None:
    encoder = load_encoder("hashing:256")
    models = {name: FakeChatModel(replies=[name]) for name in CARDS}
    routing = ExpertRoutingMiddleware(DescriptionRouter(described(CARDS), encoder), models, encoder)
    agent = create_agent(FakeChatModel(replies=["own"]), [], middleware=[routing])
    assert await both(agent) == ["people"] * 2
    assert await both(agent, {"messages": [("user", "recipes of cake")]}) == ["food"] * 2
    assert routing.last is not None and routing.last.expert == "food"
    unsure = ExpertRoutingMiddleware(routing.router, models, encoder, Policy(threshold=2.0))
    assert await both(create_agent(FakeChatModel(replies=["own"]), [], middleware=[unsure])) == ["own"] * 2

    class Even:
        experts = ("people", "food")

        def probabilities(self, vectors: object, texts: object) -> Any:
            return np.array([[0.50, 0.52]])

    sticky = ExpertRoutingMiddleware(Even(), models, encoder)
    sticky._threads["7"] = "people"
    config = {"configurable": {"thread_id": "7"}}
    assert await both(create_agent(FakeChatModel(), [], middleware=[sticky]), ASKED, config) == ["people"] * 2
    with pytest.raises(UsageError, match="none of the models"):
        ExpertRoutingMiddleware(Even(), {"x": FakeChatModel()}, encoder)


async def test_several_samples_become_one_by_vote() -> None:
    model = FakeChatModel(replies=["Paris", "Foulby", "foulby."])
    agent = create_agent(model, [], middleware=[TestTimeComputeMiddleware(3)])
    found = await both(agent)
    assert {text.lower().strip(".") for text in found} == {"foulby"} and model.drawn == 6
    with pytest.raises(UsageError):
        TestTimeComputeMiddleware(0)


async def test_the_budget_counts_every_sample_and_refuses_the_next() -> None:
    budget = BudgetMiddleware(Budget(calls=7, tokens=200), max_tokens=10)
    agent = create_agent(
        FakeChatModel(replies=["Foulby it is"]), [], middleware=[TestTimeComputeMiddleware(3), budget]
    )
    assert await both(agent) == ["Foulby it is"] * 2
    assert budget.ledger.spent.calls == 6 and budget.ledger.spent.output_tokens == 18
    assert said(agent.invoke(ASKED)) == "Foulby it is", "the seventh alone"
    with pytest.raises(BudgetExceededError):
        agent.invoke(ASKED)
    assert budget.ledger.spent.calls == 7 and not budget.ledger.overshoot
    budget.reset()
    assert said(agent.invoke(ASKED)) == "Foulby it is"
    budget.reset()
    budget.ledger.budget = Budget(calls=2)
    assert said(await agent.ainvoke(ASKED)) == "Foulby it is" and budget.ledger.spent.calls == 2
    with pytest.raises(BudgetExceededError):
        await agent.ainvoke(ASKED)
    assert not budget.ledger.overshoot


async def test_a_budget_outside_counts_all_samples_once_they_are_drawn() -> None:
    budget = BudgetMiddleware(Budget(calls=4), max_tokens=10)
    model = FakeChatModel(replies=["Foulby it is"])
    agent = create_agent(model, [], middleware=[budget, TestTimeComputeMiddleware(3)])
    assert await both(agent) == ["Foulby it is"] * 2
    assert budget.ledger.spent.calls == 6 and budget.ledger.spent.output_tokens == 18
    assert budget.ledger.overshoot == {"calls": 2}
    with pytest.raises(BudgetExceededError):
        agent.invoke(ASKED)
    assert model.drawn == 6


async def test_the_message_carries_the_usage_of_every_sample() -> None:
    agent = create_agent(
        FakeChatModel(replies=["Paris", "Foulby it is", "foulby it is."]), [],
        middleware=[TestTimeComputeMiddleware(3)],
    )  # fmt: skip
    for found in (agent.invoke(ASKED), await agent.ainvoke(ASKED)):
        message = found["messages"][-1]
        assert message.usage_metadata["output_tokens"] == 1 + 3 + 3
        assert message.usage_metadata["input_tokens"] == 3 * 5
        assert message.response_metadata[SAMPLES] == 3


# --- with tools, conversations and streams ------------------------------------------------------------------


@tool
def calendar(day: str) -> str:
    """What is on a day."""
    return f"Nothing on {day}."


class Calling(FakeChatModel):
    """Calls the tool for every question first, then says what it was told to."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        result = super()._generate(messages, *args, **options)
        if isinstance(messages[-1], HumanMessage):
            call = ToolCall(name="calendar", args={"day": "Monday"}, id=f"c{self.calls}", type="tool_call")
            result.generations[0].message.tool_calls = [call]  # type: ignore[attr-defined]
        return result


def everything(index: Index) -> tuple[Any, BudgetMiddleware, ExpertRoutingMiddleware, list[str]]:
    """An agent with a tool, a checkpointer and all four."""
    seen: list[str] = []

    def reply(messages: Sequence[BaseMessage], number: int) -> str:
        seen.append(str(messages[0].text))
        return "Foulby [1]"

    encoder = load_encoder("hashing:256")
    models = {name: Calling(replies=reply) for name in CARDS}
    routing = ExpertRoutingMiddleware(DescriptionRouter(described(CARDS), encoder), models, encoder)
    budget = BudgetMiddleware(Budget(calls=40), max_tokens=10)
    middleware = [RetrievalMiddleware(index, k=2), routing, TestTimeComputeMiddleware(3), budget]
    agent = create_agent(FakeChatModel(), [calendar], middleware=middleware, checkpointer=InMemorySaver())
    return agent, budget, routing, seen


async def test_all_of_them_with_a_tool_in_a_conversation(index: Index) -> None:
    agent, budget, routing, seen = everything(index)
    for asynchronous in (False, True):
        config: Any = {"configurable": {"thread_id": str(asynchronous)}}
        for turn in (1, 2):
            found = await agent.ainvoke(ASKED, config) if asynchronous else agent.invoke(ASKED, config)
            kinds = [message.type for message in found["messages"]]
            assert kinds == ["human", "ai", "tool", "ai"] * turn, "no evidence is kept in the conversation"
            assert said(found) == "Foulby [1]" and found["messages"][-2].text == "Nothing on Monday."
            assert routing.last is not None and routing.last.expert == "people"
    # A turn: one call that asks for the tool (all three at once where asynchronous), then three samples.
    assert budget.ledger.spent.calls == 2 * (1 + 3) + 2 * (3 + 3)
    assert all("[1] John Harrison: John Harrison was born" in prompt for prompt in seen)


async def test_all_of_them_stream(index: Index) -> None:
    agent, budget, _, _ = everything(index)
    config: Any = {"configurable": {"thread_id": "1"}}
    tokens = [chunk for chunk, _ in agent.stream(ASKED, config, stream_mode="messages")]
    assert any("Foulby [1]" in str(chunk.text) for chunk in tokens)
    steps = [step async for step in agent.astream(ASKED, config, stream_mode="updates")]
    assert [name for step in steps for name in step] == ["model", "tools", "model"]
    assert steps[-1]["model"]["messages"][-1].text == "Foulby [1]"
    assert budget.ledger.spent.calls == (1 + 3) + (3 + 3)
    kept = agent.get_state(config).values["messages"]
    assert [message.type for message in kept] == ["human", "ai", "tool", "ai"] * 2


async def test_a_killed_agent_goes_on_without_paying_twice(index: Index) -> None:
    """The checkpoint holds the tool's call: what comes after an interruption begins with the tool."""
    agent, budget, _, _ = everything(index)
    config: Any = {"configurable": {"thread_id": "1"}}
    agent.invoke(ASKED, config, interrupt_before=["tools"])
    assert budget.ledger.spent.calls == 1
    assert said(await agent.ainvoke(None, config)) == "Foulby [1]" and budget.ledger.spent.calls == 1 + 3


def test_answers_of_a_schema_are_kept(index: Index) -> None:
    """A structured response is the chosen sample's own."""
    model = FakeChatModel(replies=['{"town": "Foulby"}', '{"town": "Foulby"}', '{"town": "Larvik"}'])
    form = ProviderStrategy({"title": "place", "type": "object", "properties": {"town": {"type": "string"}}})
    agent = create_agent(model, [], response_format=form, middleware=[TestTimeComputeMiddleware(3)])
    found = agent.invoke(ASKED)
    assert found["structured_response"] == {"town": "Foulby"} and model.drawn == 3
