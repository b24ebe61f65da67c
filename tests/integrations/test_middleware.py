"""The middleware in real agents of LangChain, over a model that says what it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage

from agentmtl import Demonstration, Document, Index, Task
from agentmtl.errors import BudgetExceededError, UsageError
from agentmtl.experts.fake import FakeChatModel
from agentmtl.integrations.middleware import (
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
    with pytest.raises(BudgetExceededError):
        agent.invoke(ASKED)
    assert budget.ledger.spent.calls == 7 and not budget.ledger.overshoot
    budget.reset()
    assert said(agent.invoke(ASKED)) == "Foulby it is"
