"""LangChain's own integration tests over ChatVLLM and a real server."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from tokenizers import Tokenizer

from agentmtl.integrations.chat_vllm import ChatVLLM

from .server import MODEL, Server

pytestmark = pytest.mark.server

NO_TOOLS = "the tiny model was never shown a tool"
NO_KEYS = "the tiny model does not choose the keys that a prompt asks for"


class TestChatVLLM(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _given(self, server: Server) -> None:
        self._url = f"{server.url}/v1"

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        quote = Tokenizer.from_file(str(MODEL / "tokenizer.json")).token_to_id('"')
        return {
            "model": "tiny", "base_url": self._url, "temperature": 0, "max_tokens": 64, "timeout": 120,
            "extra": {"logit_bias": {str(quote): 12}},  # it ends no string of its own accord
        }  # fmt: skip

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "tickets"

    @property
    def supports_json_mode(self) -> bool:
        return True

    # --- what the tiny model cannot --------------------------------------------------------------------

    @pytest.mark.xfail(reason=NO_TOOLS)
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason=NO_TOOLS)
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason=NO_TOOLS)
    def test_bind_runnables_as_tools(self, model: BaseChatModel) -> None:
        super().test_bind_runnables_as_tools(model)

    @pytest.mark.xfail(reason=NO_TOOLS)
    def test_tool_choice(self, model: BaseChatModel) -> None:
        super().test_tool_choice(model)

    @pytest.mark.xfail(reason=NO_TOOLS)
    def test_tool_calling_with_no_arguments(self, model: BaseChatModel) -> None:
        super().test_tool_calling_with_no_arguments(model)

    @pytest.mark.xfail(reason=NO_TOOLS)
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason=NO_TOOLS)
    def test_unicode_tool_call_integration(self, model: BaseChatModel) -> None:
        super().test_unicode_tool_call_integration(model)

    @pytest.mark.xfail(reason=NO_KEYS)
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)
