"""ChatVLLM against a real server: what it asks for comes back as it says."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel

from agentmtl.errors import ModelError
from agentmtl.integrations.chat_vllm import ChatVLLM

from .server import WINDOW, Server

pytestmark = pytest.mark.server

ASKED: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("Who built the lighthouse of Tarn?")]


def sampled(server: Server, **options: Any) -> ChatVLLM:
    return ChatVLLM(
        model="tiny", base_url=f"{server.url}/v1", temperature=2.0, max_tokens=12, timeout=120, **options
    )


def test_the_server_counts_the_prompt_as_it_then_bills_it(chat: ChatVLLM) -> None:
    found = chat.invoke(ASKED)
    assert found.usage_metadata is not None
    assert chat.count_prompt_tokens(ASKED) == found.usage_metadata["input_tokens"] > 0
    assert 1 <= found.usage_metadata["output_tokens"] <= 24
    assert found.response_metadata["finish_reason"] in ("stop", "length")
    assert chat.context_window == WINDOW and {"tiny", "tickets"} <= set(chat.models())


def test_many_samples_of_one_request_with_log_probabilities_and_usage(server: Server) -> None:
    found = sampled(server, logprobs=True, seed=5).generate([ASKED], n=6)
    samples = found.generations[0]
    told = found.llm_output["token_usage"]  # type: ignore[index]
    counted = [len(_logprobs(sample.message)) for sample in samples]  # type: ignore[union-attr]
    assert len(samples) == 6 and sum(counted) == told["completion_tokens"]
    assert all(value <= 0 for s in samples for value in _logprobs(s.message))  # type: ignore[union-attr]
    again = sampled(server, logprobs=True, seed=5).generate([ASKED], n=6)
    assert len({sample.text for sample in samples}) > 1
    assert [s.text for s in again.generations[0]] == [s.text for s in samples]


def _logprobs(message: Any) -> list[float]:
    return [token["logprob"] for token in message.response_metadata["logprobs"]["content"]]


def test_several_greedy_samples_are_refused_in_the_servers_own_words(chat: ChatVLLM) -> None:
    with pytest.raises(ModelError, match="400: n must be 1 when using greedy sampling") as caught:
        chat.generate([ASKED], n=2)
    assert "refuses" in caught.value.hint


async def test_a_stream_says_what_a_reply_says_and_ends_with_the_usage(chat: ChatVLLM) -> None:
    whole = chat.invoke(ASKED, logprobs=True)
    pieces = list(chat.stream(ASKED, logprobs=True))
    later = [piece async for piece in chat.astream(ASKED, logprobs=True)]
    for found in (pieces, later):
        joined = found[0]
        for piece in found[1:]:
            joined += piece
        assert joined.text == whole.text and joined.usage_metadata == whole.usage_metadata
        assert [p.usage_metadata for p in found if p.usage_metadata] == [whole.usage_metadata]
        assert _logprobs(joined) == pytest.approx(_logprobs(whole), abs=0.05)
        assert joined.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]


CHOICES = ["the embedded reader", "the adapter for tickets"]


@pytest.mark.parametrize("model", ["tiny", "tickets"])
def test_a_choice_is_one_of_the_choices_also_with_an_adapter_and_many_samples(
    server: Server, model: str
) -> None:
    found = sampled(server, logprobs=True).generate(
        [ASKED], n=3, model=model, structured_outputs={"choice": CHOICES}, max_tokens=64
    )
    assert {sample.text for sample in found.generations[0]} <= set(CHOICES)
    for sample in found.generations[0]:
        assert sample.message.response_metadata["model_name"] == model  # type: ignore[union-attr]
        assert _logprobs(sample.message)  # type: ignore[union-attr]


class Ticket(BaseModel):
    """A support ticket."""

    status: Literal["open", "waiting", "closed"]
    urgent: bool


def test_an_output_of_a_schema_in_three_ways(chat: ChatVLLM) -> None:
    constraint = {"json": Ticket.model_json_schema()}
    text = chat.invoke(ASKED, structured_outputs=constraint, max_tokens=200).text
    assert Ticket.model_validate_json(text)
    roomy = chat.model_copy(update={"max_tokens": 200})
    found = roomy.with_structured_output(Ticket).invoke(ASKED)
    assert isinstance(found, Ticket)
    plain = roomy.with_structured_output(Ticket.model_json_schema()).invoke(ASKED)
    assert isinstance(plain, dict) and set(plain) == {"status", "urgent"}


def test_an_output_that_was_cut_off_is_no_object(chat: ChatVLLM) -> None:
    short = chat.model_copy(update={"max_tokens": 3})
    with pytest.raises(ModelError, match="no JSON"):
        short.with_structured_output(Ticket).invoke(ASKED)
    kept: Any = short.with_structured_output(Ticket, include_raw=True).invoke(ASKED)
    assert kept["parsed"] is None and isinstance(kept["parsing_error"], ModelError) and kept["raw"].text


def test_a_prompt_that_does_not_fit_is_refused_with_the_reason(chat: ChatVLLM) -> None:
    with pytest.raises(ModelError, match="maximum context length is 1024"):
        chat.invoke("word " * 3000)
    with pytest.raises(ModelError, match="does not exist") as caught:
        chat.invoke(ASKED, model="nobody")
    assert f"{chat.base_url}/models" in caught.value.hint
    with pytest.raises(ModelError, match="does not exist"):
        chat.model_copy(update={"model_name": "nobody"}).count_prompt_tokens(ASKED)


async def test_thirty_two_at_once_are_all_answered(server: Server) -> None:
    chat = sampled(server)
    found = await asyncio.gather(*(chat.ainvoke(f"Question number {n}?") for n in range(32)))
    assert all(one.usage_metadata["output_tokens"] >= 1 for one in found)  # type: ignore[index]


def test_its_own_tokens_have_log_probabilities_before_and_in_a_prompt(chat: ChatVLLM) -> None:
    found = chat.generate([ASKED], prompt_logprobs=0)
    told = found.generations[0][0].message.response_metadata["prompt_logprobs"]  # type: ignore[union-attr]
    assert told[0] is None and len(told) == chat.count_prompt_tokens(ASKED)
    assert all(value["logprob"] <= 0 for entry in told[1:] for value in entry.values())
