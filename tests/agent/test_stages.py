"""Each stage with a model: what it asks, what it adds, and what it leaves where the budget is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agentmtl import Agent, Answer, Budget, Demonstration, Document, Index, Task
from agentmtl.agent.graph import compile_graph
from agentmtl.agent.state import begun
from agentmtl.errors import UsageError
from agentmtl.experts.expert import Expert
from agentmtl.routing.route import Route
from agentmtl.schema import Allocation, Share
from agentmtl.spending import Ledger
from tests.agent.chats import chat

QUESTION = "Where was John Harrison born?"
RIGHT, WRONG, BLANK = "Foulby [1]", "Larvik [1]", "no answer"


@pytest.fixture
def clocks(index: Index) -> Index:
    index.add([Document("h4", "The H4 was built by John Harrison in 1759.", "H4 timekeeper")])
    return index


def step(answer: Answer, name: str) -> Mapping[str, Any]:
    return next(one for one in answer.trace if one["step"] == name)


def steps(answer: Answer) -> list[str]:
    return [one["step"] for one in answer.trace]


def asked(index: Index, expert: Expert, shares: Mapping[str, Share], budget: Budget | None = None) -> Answer:
    return Agent(index, expert=expert, allocation=Allocation(shares), budget=budget).ask(QUESTION)


# --- hops -------------------------------------------------------------------------------------------------


def test_a_model_says_what_to_look_up_next_until_it_is_enough(clocks: Index) -> None:
    expert = chat({"hop": ["Search: the H4 timekeeper", "enough"], "sample": [RIGHT]})
    answer = asked(clocks, expert, {"hop": Share(samples=3)})
    assert [one["query"] for one in answer.trace if one["step"] == "hop"] == ["the H4 timekeeper", ""]
    assert answer.text == RIGHT and answer.usage.calls == 3
    assert step(answer, "plan")["updater"] == "fake"


def test_what_a_hop_finds_stands_beside_what_was_there(clocks: Index) -> None:
    expert = chat({"hop": ["flour and water"], "sample": [BLANK]})
    agent = Agent(clocks, hops=1, expert=expert, allocation=Allocation({"hop": Share(samples=1)}))
    answer = agent.ask("H4 timekeeper")
    found = step(answer, "hop")["passages"]
    first = step(answer, "retrieve")["passages"]
    assert not set(found) & set(first)


def test_a_query_that_was_asked_before_ends_the_hops(clocks: Index) -> None:
    expert = chat({"hop": [QUESTION.upper()], "sample": [RIGHT]})
    answer = asked(clocks, expert, {"hop": Share(samples=3)})
    assert [one["query"] for one in answer.trace if one["step"] == "hop"] == [""]


@pytest.mark.parametrize(("calls", "hops"), [(1, 0), (2, 1), (3, 2)])
def test_hops_leave_what_the_answer_needs(clocks: Index, calls: int, hops: int) -> None:
    expert = chat({"hop": ["John Harrison", "Foulby", "Yorkshire"], "sample": [RIGHT]})
    answer = asked(clocks, expert, {"hop": Share(samples=3)}, Budget(calls=calls))
    assert steps(answer).count("hop") == hops and answer.text == RIGHT
    assert answer.usage.calls == calls


def test_the_embedded_search_makes_no_call(clocks: Index) -> None:
    answer = asked(clocks, chat({"sample": [RIGHT]}), {"hop": Share("embedded")})
    assert answer.usage.calls == 1 and step(answer, "plan")["updater"] == "embedded"


# --- routing, cascades --------------------------------------------------------------------------------------


class Chooses:
    """A router that always says the same."""

    def __init__(self, name: str, abstained: bool = False) -> None:
        self.route = Route(name, 0.8, {name: 0.8}, "told to", abstained)
        self.asked: list[tuple[str, str | None]] = []

    def decide(self, question: str, *, last: str | None = None) -> Route:
        self.asked.append((question, last))
        return self.route

    async def adecide(self, question: str, *, last: str | None = None) -> Route:
        return self.decide(question, last=last)


HOP = {"hop": Share("embedded")}


async def test_the_router_chooses_among_the_experts(clocks: Index) -> None:
    experts = [chat({"sample": [RIGHT]}, "big")]
    agent = Agent(
        clocks, expert=chat({"sample": [WRONG]}, "small"), experts=experts, decider=Chooses("big"),
        allocation=Allocation(HOP),
    )  # fmt: skip
    answer = agent.ask(QUESTION)
    assert answer.route == "big" and answer.text == RIGHT
    assert step(answer, "route")["confidence"] == 0.8 and step(answer, "route")["scores"] == {"big": 0.8}
    assert (await agent.aask(QUESTION)).route == "big"


def test_a_router_that_abstains_leaves_it_to_the_agents_own_expert(clocks: Index) -> None:
    agent = Agent(
        clocks, expert=chat({"sample": [RIGHT]}, "small"), experts=[chat({}, "big")],
        decider=Chooses("big", abstained=True), allocation=Allocation(HOP),
    )  # fmt: skip
    assert agent.ask(QUESTION).route == "small"


def test_a_router_that_chooses_a_stranger_is_refused(clocks: Index) -> None:
    with pytest.raises(UsageError, match="stranger"):
        Agent(clocks, expert=chat({}), decider=Chooses("stranger")).ask(QUESTION)


class GoesOn:
    """A cascade: from the small expert to the big one where it abstained."""

    def next(self, expert: str, answer: Answer) -> str | None:
        return "big" if answer.abstained else None


async def test_a_refusal_goes_on_to_the_dearer_expert(clocks: Index) -> None:
    def agent() -> Agent:
        return Agent(
            clocks, expert=chat({"sample": [BLANK]}, "small"), experts=[chat({"sample": [RIGHT]}, "big")],
            cascade=GoesOn(), allocation=Allocation(HOP),
        )  # fmt: skip

    answer = agent().ask(QUESTION)
    assert answer.route == "big" and answer.text == RIGHT and answer.usage.calls == 2
    assert step(answer, "escalate") == {"step": "escalate", "from": "small", "expert": "big"}
    assert steps(answer).count("retrieve") == 1  # both read passages
    graphed = compile_graph(agent().stages()).invoke(begun(QUESTION))["answer"]
    assert steps(graphed) == steps(answer) and graphed.text == RIGHT
    assert (await agent().aask(QUESTION)).text == RIGHT


def test_an_expert_with_other_needs_searches_again(clocks: Index) -> None:
    class ToBig(GoesOn):
        def next(self, expert: str, answer: Answer) -> str | None:
            return "big"

    agent = Agent(
        clocks, expert="sentences", experts=[chat({"sample": [RIGHT]}, "big")], cascade=ToBig(),
        allocation=Allocation(HOP),
    )  # fmt: skip
    answer = agent.ask(QUESTION)
    assert steps(answer).count("retrieve") == 2 and answer.route == "big"
    again = compile_graph(agent.stages()).invoke(begun(QUESTION))["answer"]
    assert steps(again) == steps(answer)


# --- judge, demonstrations, allocations -------------------------------------------------------------------


@pytest.mark.parametrize(("verdict", "refused"), [("yes", False), ("No.", True), ("perhaps", False)])
def test_a_judge_can_only_lower_the_confidence(clocks: Index, verdict: str, refused: bool) -> None:
    answer = asked(clocks, chat({"sample": [RIGHT], "judge": [verdict]}), {**HOP, "judge": Share("fake")})
    assert answer.abstained is refused and answer.usage.calls == 2
    assert step(answer, "verify")["judged"] == {"yes": 1.0, "No.": 0.0}.get(verdict)


def test_an_answer_that_cannot_be_judged_within_the_budget_is_still_given(clocks: Index) -> None:
    answer = asked(clocks, chat({"sample": [RIGHT]}), {**HOP, "judge": Share("fake")}, Budget(calls=1))
    assert answer.text == RIGHT and step(answer, "verify")["judged"] is None


def test_demonstrations_of_the_task_are_shown(clocks: Index) -> None:
    clocks.add_demonstrations(
        Task("towns", "answer"),
        [Demonstration("towns", "Where was Colin Archer born?", "Larvik"),
         Demonstration("towns", "Where was Ada Byron born?", "London")]
    )  # fmt: skip
    expert = chat({"sample": [RIGHT]})
    calls = []
    agent = Agent(clocks, expert=expert, task="towns", demonstrations=2, allocation=Allocation(HOP))
    with Ledger(on_call=calls.append).active():
        from agentmtl.agent.flow import flow
        from agentmtl.work import now

        answer = now(flow(agent.stages(), begun(QUESTION)))["answer"]
    assert len(step(answer, "demonstrate")["examples"]) == 2
    assert "Example: Where was Colin Archer born?\nOutput: Larvik" in calls[0].messages[1][1]


def test_an_allocation_names_experts_of_the_agent_only(clocks: Index) -> None:
    with pytest.raises(UsageError, match="This agent has no"):
        asked(clocks, chat({}), {"sample": Share("somebody")})
    with pytest.raises(UsageError, match="This agent has no"):
        asked(clocks, chat({}), {"judge": Share("embedded")})


def test_the_expert_that_the_allocation_names_answers_unasked(clocks: Index) -> None:
    router = Chooses("fake")
    agent = Agent(
        clocks, expert=chat({}), experts=[chat({"sample": [RIGHT]}, "big")], decider=router,
        allocation=Allocation({**HOP, "sample": Share("big")}),
    )  # fmt: skip
    assert agent.ask(QUESTION).route == "big" and router.asked == []
