"""The corpus's constraint on a real server: what is generated under it occurs in the corpus."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from agentmtl import Index
from agentmtl.errors import ModelError
from agentmtl.index.identifiers import ngrams_of
from agentmtl.integrations.chat_vllm import ChatVLLM

from .server import MODEL, ROOT, Server, environment

pytestmark = pytest.mark.server

ASKED = "Where was Mira Holm born?"


def keys(server: Server, question: str = ASKED, **arguments: Any) -> list[tuple[int, ...]]:
    """Five sampled keys as the model's tokens, without the end token."""
    chat = ChatVLLM(model="tiny", base_url=f"{server.url}/v1", timeout=120)
    body = {
        "model": "tiny", "messages": [{"role": "user", "content": question}], "n": 5, "temperature": 1.0,
        "max_tokens": 32, "seed": 3, "return_token_ids": True,
        "vllm_xargs": {"identifiers": True, **arguments},
    }  # fmt: skip
    choices = chat.http.post(f"{chat.http.url}/chat/completions", body)["choices"]
    assert all(choice["finish_reason"] == "stop" for choice in choices)
    return [tuple(choice["token_ids"][:-1]) for choice in choices]


@pytest.mark.parametrize("longest", [1, 4, 10])
def test_every_key_occurs_in_the_corpus_and_is_no_longer_than_asked(
    spare: Server, notes: Index, longest: int
) -> None:
    ngrams = ngrams_of(notes.snapshot)
    found = keys(spare, longest=longest)
    assert all(1 <= len(key) <= longest and ngrams.count(key) >= 1 for key in found)
    assert max(len(key) for key in found) > 1 or longest == 1


def test_keys_of_titles_begin_as_a_title_does(spare: Server, notes: Index) -> None:
    ngrams = ngrams_of(notes.snapshot)
    title = ngrams.tokenizer.title
    found = keys(spare, titles=True, longest=20)
    assert all(ngrams.count((title, *key)) >= 1 for key in found)
    assert all(ngrams.count((title, *key, ngrams.tokenizer.title_end)) >= 1 for key in found)  # whole ones


async def test_each_request_has_its_own_constraint_in_one_batch(spare: Server, notes: Index) -> None:
    ngrams = ngrams_of(notes.snapshot)
    longest = [1 + n % 8 for n in range(16)]
    jobs = [asyncio.to_thread(keys, spare, f"Question {n}?", longest=most) for n, most in enumerate(longest)]
    chat = ChatVLLM(model="tiny", base_url=f"{spare.url}/v1", max_tokens=12, temperature=0)
    *constrained, free = await asyncio.gather(*jobs, chat.ainvoke(ASKED))
    for most, found in zip(longest, constrained, strict=True):
        assert all(len(key) <= most and ngrams.count(key) >= 1 for key in found)
    assert free.text == chat.invoke(ASKED).text  # who does not ask for it is not constrained


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"vllm_xargs": {"identifiers": True, "longest": 0}}, "longest must be 1 to 64"),
    ({"vllm_xargs": {"identifiers": True, "longest": 10**6}}, "longest must be 1 to 64"),
    ({"vllm_xargs": {"identifiers": True, "longest": "9"}}, "longest must be 1 to 64"),
    ({"vllm_xargs": {"identifiers": True, "longest": 2**70}}, "64"),
    ({"vllm_xargs": {"identifiers": "../../etc"}}, "must be true or false"),
    ({"vllm_xargs": {"identifiers": [1]}}, "must be true or false"),
    ({"vllm_xargs": {"identifiers": {"a": 1}}}, "identifiers"),
    ({"vllm_xargs": {"longest": 3}}, "go with"),
    ({"vllm_xargs": {"identifiers": True}, "structured_outputs": {"choice": ["x"]}}, "structured_outputs"),
    ({"vllm_xargs": {"identifiers": True}, "response_format": {"type": "json_object"}}, "structured_outputs"),
    ({"vllm_xargs": {"identifiers": True}, "min_tokens": 8}, "min_tokens"),
    ({"vllm_xargs": {"identifiers": True}, "allowed_token_ids": [7]}, "allowed_token_ids"),
    ({"vllm_xargs": {"identifiers": True}, "bad_words": ["Mira"]}, "bad_words"),
    ({"vllm_xargs": {"identifiers": True}, "logit_bias": {"5": 50}}, "logit_bias"),
]


@pytest.mark.parametrize(("given", "says"), HOSTILE, ids=[str(given) for given, _ in HOSTILE])
def test_bad_arguments_are_refused_before_they_reach_the_engine(
    spare_chat: ChatVLLM, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ModelError, match="400") as caught:
        spare_chat.invoke([HumanMessage(ASKED)], **given)
    assert says in caught.value.message


def test_odd_requests_end_and_the_engine_lives(spare: Server, spare_chat: ChatVLLM) -> None:
    constraint = {"identifiers": True}
    for odd in (
        {"ignore_eos": True},
        {"repetition_penalty": 2.0, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"top_k": 1, "top_p": 0.01, "min_p": 0.9, "temperature": 0.01},
        {"stop": [" "], "temperature": 2.0},
        {"logprobs": True, "top_logprobs": 20},
    ):
        found = spare_chat.invoke([HumanMessage(ASKED)], vllm_xargs=constraint, **odd)
        assert found.response_metadata["finish_reason"] in ("stop", "length")
    assert keys(spare)


def test_the_v2_runners_interface_with_its_real_classes(vllm: Path, notes: Index) -> None:
    """The CPU build runs the other; here its own loader makes the processor and hands it real contexts."""
    script = ROOT / "tests" / "serving" / "inside" / "new_runner.py"
    done = subprocess.run(
        [str(vllm), str(script), str(MODEL)], cwd=ROOT, capture_output=True, text=True, timeout=240,
        env=environment(AGENTMTL_IDENTIFIERS_INDEX=str(notes.folder)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    ngrams = ngrams_of(notes.snapshot)
    assert told["made"] == "SlotIdentifiers" and told["asks"] == [True, False, True]
    for key, allowed in told["steps"]:
        kept = [token for token in allowed if token != told["stop"]]
        assert (kept or key) and all(ngrams.count([*key, token]) >= 1 for token in kept)
    assert told["free"] == told["vocabulary"] and told["reused"] == told["vocabulary"]
    assert told["refused"] == ["longest must be 1 to 64, not 0"]
