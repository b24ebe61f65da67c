"""ChatVLLM against a server on loopback: what it sends, what it gives back, how it takes failures."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from pydantic import BaseModel

from agentmtl.errors import ModelError, UsageError
from agentmtl.experts.calling import Caller, Price, estimate_tokens
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.conformance import QUESTION, evidence
from agentmtl.experts.scoring import Score, TokenScores, score_of
from agentmtl.integrations.chat_vllm import ChatVLLM
from agentmtl.integrations.vllm_http import Breaker
from agentmtl.schema import Budget
from agentmtl.spending import Ledger

from .server import Scripted, serving

ASKED = [SystemMessage("Be brief."), HumanMessage("Where is Oslo?")]


def model(script: Scripted, **options: Any) -> ChatVLLM:
    return ChatVLLM(model="tiny", base_url=script.url, **options)


def test_many_samples_in_one_request_with_usage_and_log_probabilities() -> None:
    with serving(Scripted(say=lambda body: ["Oslo [1]", "Bergen", "Oslo"][: body["n"]])) as server:
        found = model(server, logprobs=True, temperature=0.7, seed=3, max_tokens=9).generate([ASKED], n=3)
    (body,) = server.bodies
    assert body["n"] == 3 and body["seed"] == 3 and body["temperature"] == 0.7 and body["max_tokens"] == 9
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert [g.text for g in found.generations[0]] == ["Oslo [1]", "Bergen", "Oslo"]
    usage = found.llm_output["token_usage"]  # type: ignore[index]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 4)
    message = found.generations[0][0].message  # type: ignore[union-attr]
    assert [t["logprob"] for t in message.response_metadata["logprobs"]["content"]] == [-0.1, -0.1]
    assert message.usage_metadata == {"input_tokens": 5, "output_tokens": 4, "total_tokens": 9}


async def test_without_blocking_the_loop() -> None:
    with serving(Scripted(seconds=0.2)) as server:
        chat = model(server)
        found = await asyncio.gather(*(chat.ainvoke(ASKED) for _ in range(8)))
    assert [one.text for one in found] == ["Oslo [1]"] * 8 and len(server.bodies) == 8


async def test_streams_end_with_the_usage() -> None:
    with serving(Scripted(say=lambda body: ["Oslo is in Norway"])) as server:
        pieces = list(model(server).stream(ASKED))
        later = [piece async for piece in model(server).astream(ASKED)]
    for found in (pieces, later):
        assert "".join(piece.text for piece in found) == "Oslo is in Norway" and len(found) >= 5
        told = [piece.usage_metadata for piece in found if piece.usage_metadata]
        assert [one["output_tokens"] for one in told] == [4]
    assert all(body["stream_options"] == {"include_usage": True} and body["n"] == 1 for body in server.bodies)


def test_constraints_and_other_fields_go_through_and_removed_ones_are_refused() -> None:
    with serving() as server:
        chat = model(server, extra={"top_k": 5})
        chat.invoke(ASKED, structured_outputs={"choice": ["a", "b"]})
        with pytest.raises(UsageError, match="guided_choice"):
            chat.invoke(ASKED, guided_choice=["a", "b"])
        with pytest.raises((UsageError, ValueError), match="guided_json"):
            model(server, extra={"guided_json": {}})
    assert server.bodies[0]["structured_outputs"] == {"choice": ["a", "b"]} and server.bodies[0]["top_k"] == 5


def test_reasoning_and_tool_calls_are_kept() -> None:
    with serving(Scripted(reasoning="because", tool={"name": "add", "arguments": '{"a": 1}'})) as server:
        found = model(server).bind_tools([_tool()], tool_choice="any").invoke(ASKED)
    assert found.additional_kwargs["reasoning_content"] == "because"
    assert found.tool_calls[0]["name"] == "add" and found.tool_calls[0]["args"] == {"a": 1}
    assert (
        server.bodies[0]["tool_choice"] == "required" and server.bodies[0]["tools"][0]["type"] == "function"
    )
    for wrong in ("{", "3", "[1]"):
        with serving(Scripted(tool={"name": "add", "arguments": wrong})) as server:
            assert model(server).invoke(ASKED).invalid_tool_calls[0]["args"] == wrong


def _tool() -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
    }


@pytest.mark.parametrize("statuses", [[500], [0], [503, 0]])
async def test_failures_that_another_try_can_mend_are_tried_again(statuses: list[int]) -> None:
    for sync in (True, False):
        with serving(Scripted(statuses=list(statuses))) as server:
            chat = model(server, max_retries=2)
            found = chat.invoke(ASKED) if sync else await chat.ainvoke(ASKED)
            assert found.text == "Oslo [1]" and len(server.bodies) == len(statuses) + 1


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
def test_refusals_are_not_tried_again_and_name_no_secret(status: int) -> None:
    with serving(Scripted(statuses=[status])) as server:
        chat = model(server, api_key="sk-very-secret")
        with pytest.raises(ModelError, match=f"{status}: made to fail") as caught:
            chat.invoke(ASKED)
        assert len(server.bodies) == 1
        assert server.requests[0][2]["Authorization"] == "Bearer sk-very-secret"
    for shown in (str(caught.value), repr(chat), str(chat), chat.model_dump_json(), repr(chat.http)):
        assert "very-secret" not in shown
    assert "very-secret" not in str(chat._identifying_params)


def test_a_slow_server_a_dead_one_and_one_that_babbles() -> None:
    with serving(Scripted(seconds=1.0)) as server, pytest.raises(ModelError, match="did not answer in time"):
        model(server, timeout=0.1).invoke(ASKED)
    assert len(server.bodies) == 1
    with pytest.raises(ModelError, match="cannot be reached"):
        model(server, max_retries=1).invoke(ASKED)
    for raw in ("", "[]", "{", '{"choices": []}', "null"):
        with serving(Scripted(raw=raw)) as server, pytest.raises(ModelError):
            model(server).invoke(ASKED)


def test_the_circuit_opens_after_failures_and_lets_one_try() -> None:
    now = 0.0
    breaker = Breaker(failures=3, seconds=10.0, clock=lambda: now)
    for _ in range(3):
        breaker.admit("here")
        breaker.note(False)
    with pytest.raises(ModelError, match="3 times in a row"):
        breaker.admit("here")
    now = 11.0
    breaker.admit("here")
    with pytest.raises(ModelError):
        breaker.admit("here")
    breaker.note(True)
    breaker.admit("here")


def test_an_open_circuit_asks_nothing_of_the_server() -> None:
    with serving(Scripted(statuses=[500] * 20)) as server:
        chat = model(server, max_retries=4)
        with pytest.raises(ModelError, match="answered 500"):
            chat.invoke(ASKED)
        with pytest.raises(ModelError, match="in a row"):
            chat.invoke(ASKED)
        assert len(server.bodies) == 5


def test_the_server_counts_tokens_and_names_its_models() -> None:
    with serving() as server:
        chat = model(server)
        assert chat.count_prompt_tokens(ASKED) == 5 and chat.models() == ["tiny", "adapter"]
    assert [path for path, _, _ in server.requests] == ["/tokenize", "/v1/models"]


def test_as_an_expert_it_is_budgeted_by_the_servers_own_count() -> None:
    with serving(Scripted(say=lambda body: ["John Harrison [1]"] * body["n"])) as server:
        asked = ChatExpert(Caller(model(server), "tiny", price=Price(parameters=3e6), max_tokens=8))
        with Ledger(Budget(calls=1, tokens=400)).active() as ledger:
            found = asked.propose(QUESTION, evidence(), n=4)
    assert len(found) == 4 and ledger.spent.calls == 1 and ledger.spent.output_tokens == 12
    assert server.bodies[0]["n"] == 4 and server.bodies[0]["max_tokens"] == 8


def test_it_holds_no_secret_when_it_is_copied() -> None:
    with serving() as server:
        chat = model(server, api_key="sk-very-secret").bind(temperature=0.0)
        assert isinstance(chat.invoke(ASKED), AIMessage)
        assert "very-secret" not in repr(chat)


# --- what a real server showed ------------------------------------------------------------------------------


async def test_a_server_that_does_not_count_is_asked_once_and_then_estimated() -> None:
    with serving(Scripted(tokenizes=False)) as server:
        chat = model(server)
        assert (
            chat.count_prompt_tokens(ASKED)
            == await chat.acount_prompt_tokens(ASKED)
            == estimate_tokens(ASKED)
        )
        assert [path for path, _, _ in server.requests] == ["/tokenize"]
        assert chat.invoke(ASKED).text == "Oslo [1]"
    with serving(Scripted(raw='{"tokens": [1, 2]}')) as server:  # how another make answers
        assert model(server).count_prompt_tokens(ASKED) == estimate_tokens(ASKED)


@pytest.mark.parametrize("sync", [True, False])
async def test_a_server_that_drips_is_given_up_after_the_timeout(sync: bool) -> None:
    with serving(Scripted(drip=0.02)) as server:  # each byte comes in time
        chat = model(server, timeout=0.4)
        with pytest.raises(ModelError, match="did not answer in time"):
            await asyncio.to_thread(chat.invoke, ASKED) if sync else await chat.ainvoke(ASKED)
        assert len(server.bodies) == 1


@pytest.mark.parametrize("statuses", [[500, 0], [0, 503]])
async def test_a_stream_is_tried_again_until_it_begins(statuses: list[int]) -> None:
    with serving(Scripted(statuses=list(statuses))) as server:
        assert "".join(piece.text for piece in model(server).stream(ASKED)) == "Oslo [1]"
        server.statuses[:] = statuses
        assert "".join([piece.text async for piece in model(server).astream(ASKED)]) == "Oslo [1]"
        server.statuses[:] = [400, *statuses]
        with pytest.raises(ModelError, match="400: made to fail"):
            list(model(server).stream(ASKED))
        assert server.statuses == statuses  # a refusal is not tried again


def test_a_stream_keeps_the_log_probabilities() -> None:
    with serving(Scripted(say=lambda body: ["Oslo is in Norway"])) as server:
        pieces = list(model(server, logprobs=True).stream(ASKED))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert [t["logprob"] for t in whole.response_metadata["logprobs"]["content"]] == [-0.1] * 4


@pytest.mark.parametrize(
    "url", ["http://me:sk-very-secret@127.0.0.1/v1", "127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http:///v1"]
)
def test_an_address_that_cannot_work_is_refused_at_once_and_tells_no_secret(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        ChatVLLM(model="tiny", base_url=url)
    assert "very-secret" not in str(caught.value)


class Place(BaseModel):
    """Where something is."""

    town: str
    sea: bool = False


def test_schemas_are_sent_and_what_comes_back_is_checked() -> None:
    with serving(Scripted(say=lambda body: ['{"town": "Oslo"}'])) as server:
        assert model(server).with_structured_output(Place).invoke(ASKED) == Place(town="Oslo")
        plain = model(server).with_structured_output(Place.model_json_schema()).invoke(ASKED)
        assert plain == {"town": "Oslo"}
        model(server).with_structured_output(Place, method="json_mode").invoke(ASKED)
    sent = [body["response_format"] for body in server.bodies]
    assert sent[0]["json_schema"]["schema"]["required"] == ["town"] and sent[2] == {"type": "json_object"}
    for said, says in [
        ('{"town": "Os', "no JSON"),
        ("[1]", "not of the schema"),
        ('{"sea": true}', "town Field required"),
        ('{"town": "Oslo", "sea": "deep"}', "sea"),
    ]:
        with serving(Scripted(say=lambda body, said=said: [said])) as server:
            with pytest.raises(ModelError, match=says):
                model(server).with_structured_output(Place).invoke(ASKED)
            raw: Any = model(server).with_structured_output(Place, include_raw=True).invoke(ASKED)
            assert raw["parsed"] is None and raw["raw"].text == said
    with (
        serving(Scripted(say=lambda body: ['{"sea": true}'])) as server,
        pytest.raises(ModelError, match="lacks town"),
    ):
        model(server).with_structured_output(Place.model_json_schema()).invoke(ASKED)


def test_the_window_is_that_of_the_model_also_for_its_adapters() -> None:
    with serving() as server:
        assert model(server).context_window == 512
        assert ChatVLLM(model="adapter", base_url=server.url).context_window == 512
        assert ChatVLLM(model="other", base_url=server.url).context_window is None
    assert model(server).context_window is None  # gone


def test_an_error_of_the_model_keeps_its_words_through_the_caller() -> None:
    with serving(Scripted(statuses=[400])) as server, pytest.raises(ModelError, match="400: made to fail"):
        Caller(model(server), "tiny").call(ASKED, "sample")


def test_a_reply_without_log_probabilities_of_prompts_is_no_score() -> None:
    choices = ([{}], [{"index": 1}, {"index": 0}])
    for found, says in zip(choices, ("read 1 of 2 texts", "no log-probabilities of prompts"), strict=True):
        raw = json.dumps({"choices": found})
        with serving(Scripted(raw=raw)) as server, pytest.raises(ModelError, match=says):
            model(server).score("Oslo lies in", [" Norway"])
    with pytest.raises(UsageError):
        model(server).score("", ["x"])


def test_a_score_counts_the_tokens_that_the_prompt_alone_does_not_have() -> None:
    alone = TokenScores((1, 2, 3), (None, -1.0, -2.0))
    longer = TokenScores((1, 2, 3, 4, 5), (None, -1.0, -2.0, -0.5, -0.25))
    merged = TokenScores((1, 2, 9, 5), (None, -1.0, -3.0, -0.25))  # 3 and the first letters became 9
    assert score_of(alone, longer) == Score(-0.75, 2) and score_of(alone, longer).mean == -0.375
    assert score_of(alone, merged) == Score(-3.25, 2)
    with pytest.raises(ModelError, match="no log-probability"):
        score_of(alone, alone)


def test_scores_are_calls_of_a_model_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMTL_NO_MODEL_CALLS", "1")
    with serving() as server:
        with pytest.raises(UsageError, match="may not be called"):
            model(server).score("Oslo lies in", [" Norway"])
        assert server.requests == []
