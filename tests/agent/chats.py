"""A chat model that answers each kind of prompt with what it was told, by the prompt's purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.messages import BaseMessage

from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.fake import FakeChatModel

_PURPOSES = {
    "Rewrite the last question": "rewrite",
    "Say what to look up next": "hop",
    "Say whether the documents say": "judge",
    "Say which expert should": "route",
}


def purpose_of(messages: Sequence[BaseMessage]) -> str:
    """What a prompt is for, by its first words and by those of its last message."""
    system, user = str(messages[0].text), str(messages[-1].text)
    if user.startswith("That cannot be used"):
        return "repair"
    if "These answers were proposed" in user:
        return "fuse"
    if "That is a draft" in user:
        return "refine"
    return next((name for start, name in _PURPOSES.items() if system.startswith(start)), "sample")


def chat(replies: Mapping[str, Sequence[str]], name: str = "fake", max_tokens: int = 32) -> ChatExpert:
    """An expert whose model says, for each purpose, the replies in turn, the last one for ever."""
    said: dict[str, int] = {}

    def reply(messages: Sequence[BaseMessage], number: int) -> str:
        purpose = purpose_of(messages)
        if purpose not in replies:
            raise AssertionError(f"a call for {purpose}: {messages[-1].text}")
        at = said.get(purpose, 0)
        said[purpose] = at + 1
        return replies[purpose][min(at, len(replies[purpose]) - 1)]

    return ChatExpert(Caller(FakeChatModel(replies=reply), name, max_tokens=max_tokens))
