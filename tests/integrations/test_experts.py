"""Experts of LangChain: what they are given, what is read of what they give, what is counted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import StructuredTool, Tool, tool
from pydantic import BaseModel

from agentmtl import Agent, Demonstration, Document, Index, Task
from agentmtl.errors import BudgetExceededError, ModelError, UsageError
from agentmtl.experts.calling import FORBID, Price
from agentmtl.experts.conformance import QUESTION, evidence
from agentmtl.experts.fake import FakeChatModel
from agentmtl.experts.reader import ReaderExpert
from agentmtl.experts.registry import ExpertEntry, Registry
from agentmtl.experts.sentences import SentenceExpert
from agentmtl.integrations.experts import health, open_expert
from agentmtl.integrations.runnable_expert import RunnableExpert, said
from agentmtl.integrations.runnables import Cost
from agentmtl.integrations.tool_expert import LONGEST, ToolExpert, agreeing, text_of
from agentmtl.schema import Budget, Evidence
from agentmtl.spending import Call, Ledger
from agentmtl.trunk.encoder import EncoderIdentity

RIGHT = "John Harrison [1]"
HASHING = EncoderIdentity("name:hashing-v1", 64, name="hashing:64")


def runnable(made: Any, **options: Any) -> RunnableExpert:
    return RunnableExpert(made, name="made", card="Answers from documents.", harmless=True, **options)


def answers(made: Any, **options: Any) -> list[str]:
    return [c.text for c in runnable(made, sampled=False, **options).propose(QUESTION, evidence())]


# --- Runnables ------------------------------------------------------------------------------------------


class Structured(BaseModel):
    answer: str
    documents: list[int]


@dataclass
class Plain:
    answer: str
    documents: tuple[int, ...]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (RIGHT, RIGHT),
        (AIMessage(RIGHT), RIGHT),
        ({"answer": "John Harrison", "documents": [1]}, RIGHT),
        ({"answer": "John Harrison", "documents": ["1"]}, RIGHT),
        (Structured(answer="John Harrison", documents=[1]), RIGHT),
        (Plain("John Harrison", (1,)), RIGHT),
        ({"messages": [AIMessage("x"), AIMessage(RIGHT)]}, RIGHT),
        ({"messages": [], "structured_response": Structured(answer="John Harrison", documents=[1])}, RIGHT),
        ({"answer": "John Harrison [9]", "documents": [1, 7]}, RIGHT),
    ],
)
def test_what_it_gives_is_read(given: Any, text: str) -> None:
    assert answers(lambda _: given) == [text]


@pytest.mark.parametrize("given", [None, 3, {"x": 1}, {"answer": "a", "documents": [True]}, object()])
def test_what_is_no_answer_is_an_error(given: Any) -> None:
    with pytest.raises(ModelError, match="no answer with documents"):
        answers(lambda _: given)


def test_it_says_nothing_that_cannot_be_cited() -> None:
    for given in ("no answer", {"answer": "", "documents": [1]}, "the Queen [1]", "Foulby", "Foulby [7]"):
        assert answers(lambda _, given=given: given) == []
    assert said({"answer": None}) == "no answer "


def test_it_is_given_the_question_with_quoted_evidence_or_messages() -> None:
    seen: list[Any] = []

    def look(given: Any) -> str:
        seen.append(given)
        return RIGHT

    assert answers(look) == [RIGHT]
    (fields,) = seen
    assert fields["question"] == QUESTION and fields["documents"][1]["text"].endswith("Foulby (9).")
    assert "=== end " in fields["evidence"] and [m.type for m in fields["messages"]] == ["system", "human"]
    model = FakeChatModel(replies=lambda messages, _: look(list(messages)) or RIGHT)
    for chain in (model, model.bind(stop=["\n"]), model | StrOutputParser()):
        assert answers(chain) == [RIGHT]
        assert [m.type for m in seen[-1]] == ["system", "human"]
    agent = create_agent(FakeChatModel(replies=[RIGHT]), [])
    assert answers(agent) == [RIGHT]
    expert = runnable(look)
    assert "Question: Who built" in str(expert.messages(QUESTION, evidence())[1].text)
    assert expert.messages(QUESTION, Evidence(QUESTION)) == []
    with pytest.raises(UsageError, match="is a int"):
        runnable(3)


async def test_only_sync_and_only_async_work_both_ways() -> None:
    async def later(given: Any) -> str:
        await asyncio.sleep(0)
        return RIGHT

    for made in (lambda _: RIGHT, later, RunnableLambda(later) | RunnableLambda(lambda text: text)):
        expert = runnable(made)
        for _ in range(2):
            assert [c.text for c in await expert.apropose(QUESTION, evidence(), n=3)] == [RIGHT] * 3
            assert [c.text for c in expert.propose(QUESTION, evidence(), n=3)] == [RIGHT] * 3
        # Within a running loop, as here, and without one.
        assert [c.text for c in await asyncio.to_thread(expert.propose, QUESTION, evidence())] == [RIGHT]


def test_every_model_inside_is_counted_and_can_be_refused() -> None:
    price = Price(prompt=1.0, output=2.0)
    prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
    two = RunnableParallel(
        first=prompt | FakeChatModel(replies=["one two three"]),
        second=prompt | FakeChatModel(replies=[RIGHT]),
    )
    chain = two | RunnableLambda(lambda found: found["second"])
    calls: list[Call] = []
    expert = runnable(chain, cost=Cost(price, usd=0.5, max_tokens=10), sampled=False)
    with Ledger(Budget(calls=2), on_call=calls.append).active() as ledger:
        assert [c.text for c in expert.propose(QUESTION, evidence())] == [RIGHT]
    spent = ledger.spent
    assert (spent.calls, spent.prompt_tokens, spent.output_tokens) == (2, 10, 6)
    assert spent.money == pytest.approx(0.5 + (10 + 2 * 6) / 1e6) and not ledger.overshoot
    assert sorted(call.purpose for call in calls) == ["inside", "inside", "sample"]
    assert sum(call.usage.calls for call in calls) == 2
    for budget in (Budget(calls=1), Budget(tokens=15), Budget(usd=0.4)):
        with Ledger(budget).active() as ledger, pytest.raises(BudgetExceededError):
            expert.propose(QUESTION, evidence())
        assert ledger.spent.calls <= 1 and not ledger.overshoot


def test_a_model_in_an_expert_in_an_expert_is_counted_once() -> None:
    inner = runnable(FakeChatModel(replies=[RIGHT]), sampled=False)
    outer = RunnableLambda(lambda given: inner.propose(QUESTION, evidence())[0].text)
    with Ledger().active() as ledger:
        assert answers(outer) == [RIGHT]
    assert ledger.spent.output_tokens == 3


async def test_a_budget_that_is_short_draws_fewer_samples() -> None:
    expert = runnable(lambda _: RIGHT)
    for asynchronous in (False, True):
        with Ledger(Budget(calls=2)).active() as ledger:
            ask = expert.apropose if asynchronous else partial(asyncio.to_thread, expert.propose)
            assert len(await ask(QUESTION, evidence(), n=3)) == 2 and ledger.spent.calls == 2
            with pytest.raises(BudgetExceededError):
                await ask(QUESTION, evidence(), n=3)

    def fails_once(given: Any) -> str:
        if not seen:
            seen.append(given)
            raise ValueError
        return RIGHT

    seen: list[Any] = []
    with pytest.raises(ModelError):
        runnable(fails_once).propose(QUESTION, evidence(), n=2)


async def test_what_fails_says_so_without_its_secrets() -> None:
    def fails(given: Any) -> str:
        raise ConnectionError("key sk-very-secret was refused")

    calls: list[Call] = []
    with Ledger(on_call=calls.append).active() as ledger:
        for ask in (
            lambda: answers(fails),
            lambda: asyncio.run(runnable(fails).apropose(QUESTION, evidence())),
        ):
            with pytest.raises(ModelError) as caught:
                await asyncio.to_thread(ask)
            assert "ConnectionError" in str(caught.value) and "secret" not in f"{caught.value}{calls}"
    assert ledger.spent.calls == 2 and [call.error for call in calls] == ["ConnectionError"] * 2

    def model_fails(messages: Sequence[BaseMessage], number: int) -> str:
        raise ConnectionError("sk-very-secret")

    with Ledger(on_call=calls.append).active(), pytest.raises(ModelError):
        answers(FakeChatModel(replies=model_fails))
    assert "secret" not in str(calls)


async def test_a_deadline_and_a_ban_hold_for_them() -> None:
    async def slow(given: Any) -> str:
        await asyncio.sleep(5)
        return RIGHT

    late = pytest.raises(BudgetExceededError, match="seconds passed")
    with Ledger(Budget(seconds=0.5)).active(), late:
        await runnable(slow).apropose(QUESTION, evidence())

    async def own_deadline(given: Any) -> str:
        return await asyncio.wait_for(slow(given), 0.01)

    for budget in (Budget(), Budget(seconds=60)):
        with Ledger(budget).active(), pytest.raises(ModelError, match="TimeoutError"):
            await runnable(own_deadline).apropose(QUESTION, evidence())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FORBID, "1")
        assert answers(lambda _: RIGHT) == [RIGHT]
        with pytest.raises(UsageError, match="may not be called"):
            RunnableExpert(lambda _: RIGHT, name="x", card="Something.").propose(QUESTION, evidence())


def test_an_agent_asks_a_chain(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing")
    index.add([Document("h", "John Harrison was born in Foulby.", "John Harrison")])
    prompt = ChatPromptTemplate.from_messages([("system", "{evidence}"), ("user", "{question}")])
    agent = Agent(index, expert=runnable(prompt | FakeChatModel(replies=["Foulby [1]"])))
    answer = agent.ask("Where was John Harrison born?")
    assert answer.text == "Foulby [1]" and answer.route == "made" and answer.usage.calls == 1
    assert answer.usage.prompt_tokens > 20


# --- tools ----------------------------------------------------------------------------------------------


@tool
def weather(town: str, day: str = "today") -> str:
    """The weather of a town."""
    return f"It rains in {town} {day} [3]."


@tool
def add(a: int, b: int) -> dict[str, int]:
    """The sum."""
    return {"sum": a + b}


def test_a_tool_answers_without_a_citation_or_with_one_that_agrees() -> None:
    (found,) = ToolExpert(weather, confidence=0.8).propose("Tarn", evidence())
    assert (found.text, found.citations, found.confidence) == ("It rains in Tarn today (3).", (), 0.8)
    who = Tool("who", lambda question: "John Harrison", "Who did what.")
    (found,) = ToolExpert(who).propose(QUESTION, evidence())
    assert found.text == "John Harrison [1]"
    assert found.citations[0].text == "The H4 timekeeper was built by John Harrison."
    assert agreeing("Where is Tarn?", "John Harrison", evidence().passages) == (), "of something else"
    assert agreeing(QUESTION, "", evidence().passages) == ()
    assert ToolExpert(Tool("x", lambda q: "", "Nothing at all.")).propose(QUESTION, evidence()) == []


async def test_arguments_come_from_a_route_and_are_checked() -> None:
    expert = ToolExpert(add)
    with pytest.raises(UsageError, match="takes a, b: not one text"):
        expert.propose(QUESTION, evidence())
    (found,) = expert.given({"a": 2, "b": 3}).propose(QUESTION, evidence())
    assert found.text == '{"sum": 5}' and found.expert == "add"
    (found,) = await ToolExpert(weather).given({"town": "Tarn", "day": "now"}).apropose("?", evidence())
    assert found.text == "It rains in Tarn now (3)."
    with pytest.raises(UsageError, match="takes no 'c'"):
        expert.given({"c": 1})
    with pytest.raises(ModelError, match="ValidationError"):
        expert.given({"a": "two", "b": 3}).propose(QUESTION, evidence())
    with pytest.raises(UsageError, match="no tool but a function"):
        ToolExpert(lambda question: "x")  # type: ignore[arg-type]


async def test_tools_that_are_only_async_work_both_ways() -> None:
    async def look_up(question: str) -> str:
        """Look something up."""
        return "John Harrison"

    expert = ToolExpert(StructuredTool.from_function(coroutine=look_up))
    assert [c.text for c in expert.propose(QUESTION, evidence())] == ["John Harrison [1]"]
    assert await expert.apropose(QUESTION, evidence()) == expert.propose(QUESTION, evidence())


def test_a_result_is_quoted_text() -> None:
    assert text_of("a\n[1] <|im_start|>system") == "a (1) < |im_start|>system"
    assert text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == "a b"
    assert text_of(None) == "" and text_of({"ä": 1}) == '{"ä": 1}'
    assert len(text_of("x" * 9999)) == LONGEST and text_of("x" * 9999).endswith("…")


def test_a_tools_calls_are_counted_and_logged() -> None:
    calls: list[Call] = []
    with Ledger(Budget(calls=1, usd=0.1), on_call=calls.append).active() as ledger:
        expert = ToolExpert(weather, cost=Cost(usd=0.1))
        expert.propose("Tarn", evidence())
        with pytest.raises(BudgetExceededError):
            expert.propose("Tarn", evidence())
    (call,) = calls
    assert call.purpose == "tool" and call.messages == (("arguments", '{"town": "Tarn"}'),)
    assert call.outputs == ("It rains in Tarn today (3).",) and ledger.spent.money == pytest.approx(0.1)


# --- from the registry ------------------------------------------------------------------------------------


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made: Any = ModuleType("our_tools")
    made.weather, made.chain, made.number = weather, RunnableLambda(lambda given: RIGHT), 3
    monkeypatch.setitem(sys.modules, "our_tools", made)
    return made  # type: ignore[no-any-return]


def entry(kind: Any, **fields: Any) -> ExpertEntry:
    return ExpertEntry.from_json("one", {"kind": kind, "card": "What it is good at.", **fields})


@pytest.mark.usefixtures("module")
def test_targets_are_imported_when_they_are_opened(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "experts.toml")
    registry.add(entry("tool", target="our_tools:weather", usd_a_call=0.1, seconds_a_call=2, confidence=0.0))
    opened = registry.get("one")
    assert (opened.usd_a_call, opened.seconds_a_call, opened.confidence) == (0.1, 2, 0.0)
    assert opened.expected_usd() == pytest.approx(0.1) and health(opened) == "ok"
    made = open_expert(opened, HASHING)
    assert isinstance(made, ToolExpert) and (made.name, made.card) == ("one", "What it is good at.")
    assert made.propose("Tarn", evidence())[0].confidence == 0.0
    card = tmp_path / "card.toml"
    card.write_text('name = "t"\nkind = "answer"\ninstruction = "Be kind."\n')
    chain = open_expert(entry("runnable", target="our_tools:chain", task=str(card)), HASHING)
    assert isinstance(chain, RunnableExpert)
    assert "Be kind." in str(chain.messages(QUESTION, evidence())[0].text)
    chat = open_expert(entry("chat", model=f"fake:{RIGHT}", task=str(card)), HASHING)
    assert "Be kind." in str(chat.messages(QUESTION, evidence())[0].text)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("kind", "target", "told"),
    [
        ("tool", "our_tools:nothing", "cannot be imported: AttributeError"),
        ("tool", "no_such_module:x", "cannot be imported: ModuleNotFoundError"),
        ("tool", "our_tools:number", "no BaseTool but a int"),
        ("tool", "our_tools:chain", "no BaseTool but a RunnableLambda"),
        ("runnable", "our_tools:number", "no Runnable but a int"),
    ],
)
def test_a_target_that_is_wrong_is_named(kind: str, target: str, told: str) -> None:
    wrong = entry(kind, target=target)
    with pytest.raises(UsageError, match=told):
        open_expert(wrong, HASHING)
    assert told in health(wrong) and target in health(wrong)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "tool"}, "no target"),
        ({"kind": "runnable", "target": "os.system"}, "no target"),
        ({"kind": "embedded", "confidence": 2}, "bad confidence"),
        ({"kind": "embedded", "usd_a_call": -1}, "bad usd_a_call"),
        ({"kind": "embedded", "seconds_a_call": "fast"}, "bad seconds_a_call"),
        ({"kind": "embedded", "task": 3}, "task that is no text"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ExpertEntry.from_json("one", {"card": "c", **fields})


def test_embedded_experts_open_and_are_well(tmp_path: Path) -> None:
    assert isinstance(open_expert(entry("embedded", model="sentences"), HASHING), SentenceExpert)
    assert isinstance(open_expert(entry("embedded"), HASHING), SentenceExpert)
    voter = open_expert(entry("embedded", model="voter:intents"), HASHING)
    assert voter.needs == "demonstrations" and voter.task == "intents"  # type: ignore[attr-defined]
    assert ReaderExpert.needs == "passages"
    for model in ("", "reader", "voter:intents"):
        assert health(entry("embedded", model=model)) == "ok"
    assert "no head in" in health(entry("embedded", model=str(tmp_path)))
    assert "cannot be read" in health(entry("embedded", task=str(tmp_path / "no.toml")))


def test_an_agent_lets_tools_and_voters_answer(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing", streams=())
    index.add([Document("h", "John Harrison was born in Foulby.", "John Harrison")])
    examples = [("a wet coat", "rain"), ("heavy rain", "rain"), ("hot sand", "sun"), ("a dry field", "sun")]
    index.add_demonstrations(Task("sky", "classification"), [Demonstration("sky", *one) for one in examples])
    answer = Agent(index, expert=ToolExpert(weather)).ask("Foulby")
    assert (answer.text, answer.citations) == ("It rains in Foulby today (3).", ())
    assert answer.usage.calls == 1 and not answer.abstained and answer.route == "weather"
    voter = open_expert(entry("embedded", model="voter:sky"), HASHING, tasks=index.tasks)
    answer = Agent(index, expert=voter).ask("a wet coat in the rain")
    assert answer.text.startswith("rain [1]") and answer.citations[0].text in ("a wet coat", "heavy rain")
