"""Every expert of the package passes the suite that plug-in authors run."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

import agentmtl
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.conformance import HOSTILE, QUESTION, ExpertConformance, evidence
from agentmtl.experts.expert import Expert
from agentmtl.experts.fake import FakeChatModel
from agentmtl.experts.sentences import SentenceExpert
from agentmtl.experts.voter import VoterExpert
from agentmtl.integrations.runnable_expert import RunnableExpert
from agentmtl.integrations.tool_expert import ToolExpert
from agentmtl.schema import Candidate
from agentmtl.tasks import Task
from agentmtl.trunk.hashing import HashingEncoder

RIGHT = "John Harrison [1]"


def fake(**fields: Any) -> FakeChatModel:
    return FakeChatModel(replies=[RIGHT], **fields)


class TestSentenceExpert(ExpertConformance):
    def make(self) -> Expert:
        return SentenceExpert()


class TestChatExpert(ExpertConformance):
    spends = True

    def make(self) -> Expert:
        return ChatExpert(Caller(fake(), "fake"))


class TestChatExpertThatRepeatsWhatItReads(ExpertConformance):
    """Whatever the documents say, its answers are."""

    spends = True

    def make(self) -> Expert:
        def repeats(messages: Sequence[BaseMessage], number: int) -> str:
            return f"{messages[-1].text} John Harrison [1]"

        return ChatExpert(Caller(FakeChatModel(replies=repeats), "fake", max_tokens=10_000))


class TestRunnableOfAModel(ExpertConformance):
    spends = True

    def make(self) -> Expert:
        chain = ChatPromptTemplate.from_messages([("system", "{evidence}"), ("user", "{question}")]) | fake()
        return RunnableExpert(chain, name="chain", card="Answers from documents.", harmless=True)


class TestModelAsARunnable(ExpertConformance):
    spends = True

    def make(self) -> Expert:
        return RunnableExpert(fake(), name="model", card="Answers from documents.", harmless=True)


class TestAsyncRunnable(ExpertConformance):
    spends = True

    def make(self) -> Expert:
        async def answer(given: dict[str, Any]) -> dict[str, Any]:
            return {"answer": "John Harrison", "documents": [1]}

        return RunnableExpert(
            RunnableLambda(answer), name="later", card="Answers from documents.", sampled=False, harmless=True
        )


@tool
def clocks(question: str) -> str:
    """Who built which clock."""
    return f"John Harrison [9] {HOSTILE[2]}" if "PWNED" in question else "John Harrison"


class TestToolExpert(ExpertConformance):
    spends = True

    def make(self) -> Expert:
        return ToolExpert(clocks)


class TestVoterExpert(ExpertConformance):
    def make(self) -> Expert:
        return VoterExpert(
            Task("kinds", "classification", "Say what is asked for.", labels=("person", "place"))
        )


class TestVoterOfChoices(ExpertConformance):
    """The suite's question has no options, so that another one is asked."""

    def make(self) -> Expert:
        return _Choosing(Task("parts", "multiple_choice"), encode=HashingEncoder(64).encode)


class _Choosing(VoterExpert):
    def propose(self, question: str, *args: Any, **others: Any) -> list[Candidate]:
        return super().propose(f"{question} A) John Harrison B) Foulby [2]", *args, **others)


def test_every_expert_of_the_package_is_here() -> None:
    """`ReaderExpert` needs a network: tests/experts/test_reading.py."""
    sources = Path(agentmtl.__file__).parent.rglob("*.py")
    classes = [
        n for p in sources for n in ast.parse(p.read_text("utf-8")).body if isinstance(n, ast.ClassDef)
    ]
    experts = {
        one.name
        for one in classes
        if {"propose", "apropose"} <= {part.name for part in one.body if hasattr(part, "name")}
    } - {"Expert"}
    suites = [made for made in ExpertConformance.__subclasses__() if made.__module__ == __name__]
    tried = {type(suite().make()).__name__ for suite in suites if suite.__name__.startswith("Test")}
    assert len(experts) >= 6 and experts - {"ReaderExpert"} <= tried
    reading = (Path(__file__).parent / "test_reading.py").read_text("utf-8")
    assert "(ExpertConformance)" in reading and "ReaderExpert" in reading


class _Forging(SentenceExpert):
    """Wrong in one way each, to see that the suite notices."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def propose(self, *args: Any, **others: Any) -> list[Candidate]:
        (found,) = super().propose(*args, **others) or (None,)
        if found is None:
            return []
        first = found.citations[0]
        changed = {
            "text": replace(found, text="Larvik [7]"),
            "look-alike": replace(found, text=found.text + " ［２］"),
            "span": replace(found, citations=(replace(first, start=first.start + 1), *found.citations[1:])),
            "name": replace(found, expert="root"),
            "sure": replace(found, confidence=1.5),
            "bare": replace(found, text="Larvik", citations=()),
        }
        return [changed[self.how]]


@pytest.mark.parametrize("how", ["text", "look-alike", "span", "name", "sure", "bare"])
def test_the_suite_notices(how: str) -> None:
    class Suite(ExpertConformance):
        def make(self) -> Expert:
            return _Forging(how)

    suite = Suite()
    with pytest.raises(AssertionError):
        suite.check(suite.make().propose(QUESTION, evidence()), evidence())
