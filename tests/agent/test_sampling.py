"""A chat model in the agent: drawn as often as the vote needs, within the budget, every call in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from agentmtl import Agent, Index
from agentmtl.agent.journal import Journal
from agentmtl.cli.main import _exit_code as run
from agentmtl.errors import BudgetExceededError, ModelError, UsageError
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.fake import FakeChatModel
from agentmtl.integrations.models import open_chat_model
from agentmtl.schema import Allocation, Answer, Budget, Share

QUESTION = "Where was John Harrison born?"
RIGHT, WRONG, LOST = "Foulby [1]", "Larvik [1]", "Paris"


def drawing(samples: int, aggregator: str = "majority") -> Allocation:
    """So many samples, and the later hops by the embedded search."""
    return Allocation({"sample": Share("", samples, aggregator), "hop": Share("embedded")})


def agent(
    index: Index, replies: list[str], samples: int = 1, budget: Budget | None = None, log: bool = False
) -> Agent:
    expert = ChatExpert(Caller(FakeChatModel(replies=replies), "fake", max_tokens=8))
    return Agent(index, expert=expert, allocation=drawing(samples), budget=budget, log=log)


def proposed(answer: Answer) -> Mapping[str, Any]:
    return next(step for step in answer.trace if step["step"] == "propose")


def test_the_answer_of_most_samples_is_given_with_its_share(index: Index) -> None:
    answer = agent(index, [RIGHT, WRONG, WRONG, RIGHT, RIGHT], samples=5).ask(QUESTION)
    assert answer.text == "Foulby [1]" and answer.route == "fake" and not answer.abstained
    assert answer.citations[0].text == "John Harrison was born in Foulby."
    assert proposed(answer)["samples"] == 5 and answer.confidence == pytest.approx(0.6)
    assert answer.usage.calls == 2 and answer.usage.output_tokens == 10


def test_the_best_by_reward_can_be_in_the_minority(index: Index) -> None:
    vague = "It is said that John Harrison was perhaps born in the town called Larvik [1]"
    expert = ChatExpert(Caller(FakeChatModel(replies=[vague, RIGHT, vague]), "fake", max_tokens=20))
    made = Agent(index, expert=expert, allocation=drawing(3, "best-of-n"))
    assert made.ask(QUESTION).text == RIGHT
    with pytest.raises(UsageError, match="no aggregator"):
        Agent(index, allocation=drawing(1, "loudest"))


def test_drawing_stops_where_the_vote_is_decided(index: Index) -> None:
    answer = agent(index, [RIGHT], samples=64).ask(QUESTION)
    assert proposed(answer)["samples"] == 6 and proposed(answer)["stopped"] == "decided"
    assert answer.confidence == 1.0


def test_what_cites_nothing_counts_against(index: Index) -> None:
    """Every sample is sent back once, and none of it can be used: an honest refusal."""
    answer = agent(index, [LOST], samples=3).ask(QUESTION)
    assert answer.abstained and answer.confidence == 0.0 and answer.usage.calls == 1 + 3


def test_a_budget_ends_the_drawing_or_is_refused(index: Index) -> None:
    answer = agent(index, [RIGHT, WRONG], samples=64, budget=Budget(calls=2)).ask(QUESTION)
    assert answer.usage.calls == 2 and proposed(answer)["stopped"] == "budget"
    with pytest.raises(BudgetExceededError):
        agent(index, [RIGHT], budget=Budget(tokens=5)).ask(QUESTION)


async def test_every_call_is_in_the_log(index: Index) -> None:
    await agent(index, ["Foulby", RIGHT], log=True).aask(QUESTION)
    entry = Journal().newest(1)[0]
    calls = Journal().calls(entry.id)
    assert [call["purpose"] for call in calls] == ["sample", "repair"]
    assert calls[0]["outputs"] == ["Foulby"] and "Question: Where was" in calls[0]["messages"][1]["text"]
    Journal().purge()
    assert Journal().calls(entry.id) == []


def test_from_the_command_line(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--index", str(index.folder)]
    assert run(["ask", QUESTION, *where, "--llm", f"fake:{RIGHT}", "--samples", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == RIGHT and told["usage"]["calls"] == 2 and told["route"].startswith("fake")
    assert run(["ask", QUESTION, *where, "--llm", f"fake:{RIGHT}", "--budget", "calls=0"]) == 5
    assert "calls are taken" in capsys.readouterr().err
    assert run(["ask", QUESTION, *where, "--llm", "fake:x", "--show-prompt"]) == 0
    assert "Question: Where was John Harrison born?" in capsys.readouterr().out
    assert run(["ask", QUESTION, *where, "--show-prompt"]) == 0
    assert "no prompt" in capsys.readouterr().err
    assert run(["log", "show", "1"]) == 0
    assert "=> Foulby [1]" in capsys.readouterr().out


def test_models_by_name() -> None:
    model = open_chat_model("vllm:tiny@http://127.0.0.1:9/")
    assert (model.model_name, model.base_url) == ("tiny", "http://127.0.0.1:9/v1")  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="no provider"):
        open_chat_model("tiny")
    with pytest.raises(ModelError, match="cannot be opened"):
        open_chat_model("nobody:tiny")
