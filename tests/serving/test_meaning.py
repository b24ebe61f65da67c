"""What the tiny model says over a real server means something, in the world that it was made for."""

from __future__ import annotations

import pytest
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from agentmtl.integrations.chat_vllm import ChatVLLM
from tests.serving.tiny_model.measuring import held_out

from .conftest import greedy
from .server import Server

pytestmark = pytest.mark.server
COUNT = 40


def messages(kind: str) -> tuple[list[list[BaseMessage]], list[str]]:
    """Prompts about names that it was never trained on, with the replies that are right."""
    examples = held_out(kind, COUNT, 3)
    roles = {"system": SystemMessage, "user": HumanMessage}
    prompts = [
        [roles[m["role"]](m["content"]) for m in one.messages if m["role"] in roles] for one in examples
    ]
    return prompts, [one.target for one in examples]


def share_right(chat: ChatVLLM, kind: str, model: str) -> float:
    prompts, wanted = messages(kind)
    said = chat.batch(prompts, {"max_concurrency": 8}, model=model)
    return sum(reply.text.strip() == right for reply, right in zip(said, wanted, strict=True)) / COUNT


@pytest.mark.parametrize(("kind", "least"), [("rewrite", 0.6), ("json", 0.6), ("answer", 0.35)])
def test_the_base_answers_rewrites_and_writes_json(server: Server, kind: str, least: float) -> None:
    """A reply that is not copied from the prompt has next to no chance of being right."""
    assert share_right(greedy(server), kind, "tiny") >= least


def test_an_adapter_is_better_at_what_it_was_made_for(server: Server) -> None:
    chat = greedy(server)
    base, adapted = (share_right(chat, "tickets", model) for model in ("tiny", "tickets"))
    assert adapted >= base + 0.1
