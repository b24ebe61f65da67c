"""A chat model as an expert: what it is sent, what of its replies is used, what it costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import BaseMessage

from agentmtl.errors import BudgetExceededError, ModelError, UsageError
from agentmtl.experts.calling import FORBID, Caller, Price
from agentmtl.experts.chat import ChatExpert, Reply, cited, parse
from agentmtl.experts.conformance import QUESTION, evidence
from agentmtl.experts.fake import FakeChatModel
from agentmtl.experts.prompting import Prompts, nonce_for
from agentmtl.schema import Budget, Hit, Unit
from agentmtl.spending import Call, Ledger
from agentmtl.tasks import Task


def expert(*replies: str, price: Price | None = None, max_tokens: int = 20, **model: object) -> ChatExpert:
    fake = FakeChatModel(replies=list(replies) or ["John Harrison [1]"], **model)  # type: ignore[arg-type]
    return ChatExpert(Caller(fake, "fake", price=price, max_tokens=max_tokens))


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("John Harrison [1]", Reply("John Harrison", (1,))),
        ("He was born there.\nAnswer: Foulby [2][1]", Reply("Foulby", (2, 1))),
        ("**Answer**: Foulby [1, 2].", Reply("Foulby.", (1, 2))),
        ("no answer", Reply("", ())),
        ("Answer: No answer.", Reply("", ())),
        ("Foulby", Reply("Foulby", (), "it names no document")),
        ("Foulby [7]", Reply("Foulby", (), "there is no document 7")),
        ("Foulby [1][7]", Reply("Foulby", (1,), "there is no document 7")),
        ("[1]", Reply("", (), "it is empty")),
        ("", Reply("", (), "it is empty")),
    ],
)
def test_what_a_reply_says(said: str, reply: Reply) -> None:
    assert parse(said, 2) == reply


@given(st.text(max_size=80), st.integers(0, 4))
def test_any_reply_is_read_and_names_only_documents_that_were_shown(said: str, documents: int) -> None:
    reply = parse(said, documents)
    assert all(1 <= number <= documents for number in reply.cited)
    assert not re.search(r"\[\s*\d+\s*\]", reply.answer)


def test_the_sentence_that_says_it_is_cited() -> None:
    text = "It rained. The H4 was built by John Harrison. He was old."
    hit = Hit(Unit("a" * 24, "passage", text, "r", start=100, end=100 + len(text)), 1.0)
    (citation,) = cited(QUESTION, Reply("John Harrison", (1,)), [hit])
    assert citation.text == "The H4 was built by John Harrison." and citation.start == 111
    assert cited(QUESTION, Reply("the Queen of it", (1,)), [hit]) == ()
    assert cited(QUESTION, Reply("the H4 of the Queen", (1,)), [hit]) == (), "only the question's words"
    (citation,) = cited("Was the H4 built in 1700?", Reply("yes", (1,)), [hit])
    assert "H4" in citation.text


def test_a_name_from_another_document_is_cited_from_there() -> None:
    texts = (
        "John Harrison was born in Foulby.",
        "The Queen of Larvik rules.",
        "Foulby is small, says Larvik.",
    )
    hits = [
        Hit(Unit(f"{n:024}", "passage", text, f"r{n}", end=len(text)), 1.0) for n, text in enumerate(texts)
    ]
    found = cited("Where was he born?", Reply("in Foulby, says Larvik", (1,)), hits)
    assert [(one.marker, one.source) for one in found] == [(1, "r0"), (2, "r1")]
    assert [one.source for one in cited("Where?", Reply("in Foulby, which is small", (1,)), hits)] == ["r0"]


def test_a_reply_that_cannot_be_used_is_sent_back_once() -> None:
    calls: list[Call] = []
    ledger = Ledger(on_call=calls.append)
    with ledger.active():
        (candidate,) = expert("John Harrison", "John Harrison [1]").propose(QUESTION, evidence())
        assert candidate.text == "John Harrison [1]"
        assert expert("John Harrison", "John Harrison [9]", "never").propose(QUESTION, evidence()) == []
    assert [call.purpose for call in calls] == ["sample", "repair"] * 2
    assert "it names no document" in calls[1].messages[-1][1]
    assert ledger.spent.calls == 4 and ledger.spent.output_tokens == 2 + 3 + 2 + 3


def test_without_money_for_a_repair_there_is_none() -> None:
    with Ledger(Budget(calls=1)).active() as ledger:
        assert expert("John Harrison", "John Harrison [1]").propose(QUESTION, evidence()) == []
    assert ledger.spent.calls == 1


def test_samples_cost_what_they_cost() -> None:
    price = Price(prompt=1.0, output=2.0, parameters=1e9)
    with Ledger(Budget(calls=1, usd=1.0)).active() as ledger:
        found = expert("John Harrison [1]", "Harrison [1]", price=price).propose(QUESTION, evidence(), n=3)
    assert [c.text for c in found] == ["John Harrison [1]", "Harrison [1]", "John Harrison [1]"]
    spent = ledger.spent
    assert spent.calls == 1 and spent.output_tokens == 8 and spent.prompt_tokens > 20
    assert spent.money == pytest.approx((spent.prompt_tokens + 2 * 8) / 1e6)
    assert spent.flops == 2e9 * (spent.prompt_tokens + 8)


def test_a_model_that_draws_one_sample_is_asked_n_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Caller, "many", False)
    with Ledger(Budget(calls=4)).active() as ledger:
        assert len(expert().propose(QUESTION, evidence(), n=3)) == 3
        assert len(expert().propose(QUESTION, evidence(), n=3)) == 1  # what is left
        with pytest.raises(BudgetExceededError, match="4 calls are taken"):
            expert().propose(QUESTION, evidence(), n=3)
    assert ledger.spent.calls <= 4


async def test_a_deadline_stops_the_waiting() -> None:
    for sync in (True, False):
        with Ledger(Budget(seconds=0.1)).active() as ledger:
            slow = expert(seconds=1.0)
            with pytest.raises(BudgetExceededError, match="seconds passed"):
                if sync:
                    slow.propose(QUESTION, evidence())
                else:
                    await slow.apropose(QUESTION, evidence())
        assert ledger.spent.calls == 1


def test_over_a_thousand_random_allocations_no_limit_is_exceeded() -> None:
    random = Random(5)
    many, over = expert("Harrison", "John Harrison [1]", "Harrison [4]", max_tokens=6), 0
    for _ in range(1_000):
        limits = Budget(calls=random.randint(0, 6), tokens=random.randint(0, 900))
        with Ledger(limits).active() as ledger:
            try:
                for _ in range(random.randint(1, 4)):
                    many.propose(QUESTION, evidence(), n=random.randint(1, 8))
            except BudgetExceededError:
                over += 1
        spent = ledger.spent
        assert spent.calls <= (limits.calls or 0)
        assert spent.prompt_tokens + spent.output_tokens <= (limits.tokens or 0) and not ledger.overshoot
    assert 100 < over < 1_000


def test_a_model_that_fails_says_so_without_its_secrets() -> None:
    def fails(messages: Sequence[BaseMessage], number: int) -> str:
        raise ConnectionError("key sk-very-secret was refused")

    calls: list[Call] = []
    broken = ChatExpert(Caller(FakeChatModel(replies=fails), "fake"))
    with Ledger(on_call=calls.append).active(), pytest.raises(ModelError) as caught:
        broken.propose(QUESTION, evidence())
    assert "ConnectionError" in str(caught.value) and "secret" not in f"{caught.value}{calls}"


def test_real_models_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORBID, "1")
    assert expert().propose(QUESTION, evidence())
    monkeypatch.setattr(FakeChatModel, "harmless", False)
    with pytest.raises(UsageError, match="may not be called"):
        expert().propose(QUESTION, evidence())


# --- prompts ----------------------------------------------------------------------------------------


def test_a_users_prompt_replaces_the_packages_one(tmp_path: Path) -> None:
    (tmp_path / "answer-system.j2").write_text("Say {{ nonce }} to {{ task.name }}.")
    prompts = Prompts(tmp_path)
    assert {p.name for p in prompts.list() if p.overridden} == {"answer-system"}
    assert {p.name for p in prompts.list()} >= {"answer-system", "answer-user", "repair-user"}
    caller = Caller(FakeChatModel(), "fake")
    messages = ChatExpert(caller, prompts=prompts, task=Task("trivia", "answer")).messages(
        QUESTION, evidence()
    )
    assert re.fullmatch(r"Say [0-9a-f]{16} to trivia\.", str(messages[0].text))
    (tmp_path / "answer-system.j2").write_text("{{ nothing }}")
    with pytest.raises(UsageError, match="nothing"):
        ChatExpert(caller, prompts=prompts).messages(QUESTION, evidence())
    (tmp_path / "answer-system.j2").write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(UsageError):
        ChatExpert(caller, prompts=prompts).messages(QUESTION, evidence())


def test_a_nonce_is_never_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["00", "11"])
    monkeypatch.setattr("agentmtl.experts.prompting.secrets.token_hex", lambda n: next(drawn))
    assert nonce_for(["a text with 00 in it"]) == "11"
