"""Fusing and refining: one answer of several, counted, within the window and the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentmtl import Agent, Answer, Budget, Index
from agentmtl.errors import UsageError
from agentmtl.experts.fake import FakeChatModel
from agentmtl.schema import Allocation, Share
from tests.agent.chats import chat

QUESTION = "Where was John Harrison born?"
RIGHT, WRONG = "Foulby [1]", "Larvik [1]"


def asked(
    index: Index,
    replies: Mapping[str, Sequence[str]],
    aggregator: str,
    budget: Budget | None = None,
    rounds: int | None = None,
) -> Answer:
    shares = {"sample": Share("", 3, aggregator), "hop": Share("embedded")}
    if rounds is not None:
        shares["aggregate"] = Share("", rounds)
    return Agent(
        index, expert=chat(replies), threshold=0.0, allocation=Allocation(shares), budget=budget
    ).ask(QUESTION)


def proposed(answer: Answer) -> Mapping[str, Any]:
    return next(step for step in answer.trace if step["step"] == "propose")


def test_different_answers_are_fused_by_one_call(index: Index) -> None:
    answer = asked(index, {"sample": [RIGHT, WRONG, WRONG], "fuse": [RIGHT]}, "fuse")
    assert answer.text == RIGHT and answer.usage.calls == 2
    assert proposed(answer)["drafts"] == 2 and proposed(answer)["used"] == 2
    assert answer.confidence == pytest.approx((1 + 1) / (3 + 1))


def test_one_answer_needs_no_fusing(index: Index) -> None:
    answer = asked(index, {"sample": [RIGHT]}, "fuse")
    assert answer.text == RIGHT and answer.usage.calls == 1


def test_a_fuser_that_says_nothing_leaves_the_vote(index: Index) -> None:
    answer = asked(index, {"sample": [RIGHT, WRONG, WRONG], "fuse": ["no answer"]}, "fuse")
    assert answer.text == WRONG and answer.confidence == pytest.approx(2 / 3)


@pytest.mark.parametrize("aggregator", ["fuse", "refine"])
def test_without_budget_the_vote_stands_and_says_so(index: Index, aggregator: str) -> None:
    answer = asked(index, {"sample": [RIGHT, WRONG, RIGHT]}, aggregator, Budget(calls=1))
    assert answer.text == RIGHT and proposed(answer)["left_out"] == "budget"


def test_drafts_beyond_the_window_are_left_out_and_counted(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "Larvik " + "and so on " * 60 + "[1]"
    expert = chat({"sample": [RIGHT, long, RIGHT], "fuse": [RIGHT]}, max_tokens=250)
    monkeypatch.setattr(FakeChatModel, "context_window", 450, raising=False)
    shares = {"sample": Share("", 3, "fuse"), "hop": Share("embedded")}
    answer = Agent(index, expert=expert, threshold=0.0, allocation=Allocation(shares)).ask(QUESTION)
    assert proposed(answer)["drafts"] == 2 and proposed(answer)["used"] == 1


def test_refining_stops_where_a_round_changes_nothing(index: Index) -> None:
    replies = {"sample": [WRONG, WRONG, RIGHT], "refine": [RIGHT]}
    answer = asked(index, replies, "refine", rounds=4)
    assert answer.text == RIGHT and proposed(answer)["rounds"] == 2 and proposed(answer)["agreed"]
    assert answer.usage.calls == 1 + 2


def test_refining_ends_after_its_rounds(index: Index) -> None:
    replies = {"sample": [WRONG], "refine": [RIGHT, WRONG, RIGHT, WRONG]}
    answer = asked(index, replies, "refine")
    assert proposed(answer)["rounds"] == 2 and not proposed(answer)["agreed"]


def test_a_citation_that_the_fuser_makes_up_is_dropped(index: Index) -> None:
    replies = {"sample": [RIGHT, WRONG], "fuse": ["Foulby [9]"], "repair": ["Foulby [9]"]}
    assert asked(index, replies, "fuse").text in (RIGHT, WRONG)


def test_an_expert_that_cannot_write_is_refused(index: Index) -> None:
    shares = {"sample": Share("", 3, "fuse"), "hop": Share("embedded"), "aggregate": Share("sentences")}
    from agentmtl.experts.sentences import SentenceExpert

    agent = Agent(
        index, expert=chat({"sample": [RIGHT, WRONG]}), experts=[SentenceExpert()],
        allocation=Allocation(shares),
    )  # fmt: skip
    with pytest.raises(UsageError, match="cannot write"):
        agent.ask(QUESTION)
