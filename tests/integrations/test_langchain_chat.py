"""LangChain's standard integration tests of a chat model, over a server on loopback that is willing: it calls
the tool that it is offered, with arguments that fit its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from agentmtl.integrations.chat_vllm import ChatVLLM
from tests.integrations.server import Body, Scripted, serving


def called(body: Body) -> list[Body]:
    """The tool of `tool_choice`, or the first; none once it has answered, and none where none is offered."""
    tools = [one["function"] for one in body.get("tools", [])]
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none" or body["messages"][-1]["role"] == "tool":
        return []
    wanted = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["name"]
    chosen = next(one for one in tools if one["name"] == wanted)
    asked = str(body["messages"][-1].get("content"))
    given = {name: _value(one, asked) for name, one in chosen["parameters"].get("properties", {}).items()}
    return [{"name": wanted, "arguments": json.dumps(given, ensure_ascii=False)}]


def _value(schema: dict[str, Any], asked: str) -> Any:
    kind = schema.get("type") or next((one.get("type") for one in schema.get("anyOf", [])), "string")
    return int(re.findall(r"\d+", f"{asked} 0")[0]) if kind == "integer" else asked


def written(body: Body) -> list[str]:
    """An object where one is asked for, else a sentence."""
    return [
        '{"setup": "A cat.", "punchline": "It sat."}' if body.get("response_format") else "It is sunny there."
    ]


@pytest.fixture(autouse=True, scope="module")
def server() -> Iterator[None]:
    with serving(Scripted(say=written, calls=called)) as running:
        TestChatVLLM.url = running.url
        yield


class TestChatVLLM(ChatModelIntegrationTests):
    url = ""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_url": self.url}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str | None:
        return "adapter"
