"""`ChatVLLM`: a LangChain chat model over the OpenAI interface of a vLLM server.

    model = ChatVLLM(model="my-adapter", base_url="http://127.0.0.1:8000/v1")
    model.invoke("Where is Foulby?").content
    result = model.generate([[HumanMessage("Name a river.")]], n=8)     # one request, eight samples

A LoRA adapter is a model id of the server. What `ChatOpenAI` leaves out is here: all `n` samples with their
log-probabilities, usage while streaming, reasoning content, `structured_outputs`, and counting a prompt's
tokens as the server will. The removed `guided_*` fields, which a server silently ignores, are refused.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Iterator as SyncIterator
from functools import cached_property
from typing import Any, ClassVar, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, SecretStr, model_validator

from agentmtl.errors import UsageError
from agentmtl.integrations.vllm_http import VllmHttp
from agentmtl.integrations.vllm_replies import chunk_of, result_of

KEY, URL = "VLLM_API_KEY", "VLLM_BASE_URL"
DEFAULT_URL = "http://127.0.0.1:8000/v1"


class ChatVLLM(BaseChatModel):
    """See the top of this module. Safe to use from several threads.

    `n` samples a request; `logprobs`: give each token's log-probability in `response_metadata`. `extra`:
    other fields of vLLM's requests (top_k, min_p, chat_template_kwargs, vllm_xargs …). `timeout`: seconds of
    one try; `max_retries`: after the first. VLLM_API_KEY is the key, VLLM_BASE_URL the address, by default.
    """

    model_config = ConfigDict(populate_by_name=True)

    constrains: ClassVar[bool] = True  # it takes `structured_outputs`

    model_name: str = Field(alias="model")
    base_url: str = Field(default_factory=lambda: os.environ.get(URL, DEFAULT_URL))
    api_key: SecretStr = Field(default_factory=lambda: SecretStr(os.environ.get(KEY, "")))
    n: int = Field(default=1, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    logprobs: bool = False
    timeout: float = 60.0
    max_retries: int = 2
    extra: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _refuse_removed_fields(self) -> Self:
        _check(self.extra)
        return self

    @property
    def _llm_type(self) -> str:
        return "vllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "base_url": self.base_url, "temperature": self.temperature}

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": KEY}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    @cached_property
    def http(self) -> VllmHttp:
        """The wire to the server."""
        return VllmHttp(
            self.base_url, self.api_key.get_secret_value(), timeout=self.timeout, retries=self.max_retries
        )

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        found = super()._get_ls_params(stop=stop, **kwargs)
        found["ls_provider"] = "vllm"
        found["ls_model_name"] = kwargs.get("model", self.model_name)
        return found

    def models(self) -> list[str]:
        """The ids that the server answers to: its model and every adapter. Raises ModelError."""
        return [str(entry["id"]) for entry in self.http.get(f"{self.http.url}/models").get("data", [])]

    def count_prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Tokens of a prompt in the server's own chat template. Raises ModelError."""
        body = {
            "model": self.model_name, "messages": convert_to_openai_messages(list(messages)),
            "add_generation_prompt": True,
        }  # fmt: skip
        return int(self.http.post(f"{self.http.root}/tokenize", body)["count"])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return result_of(self.http.post(self._path, self._body(messages, stop, kwargs), timeout))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return result_of(await self.http.apost(self._path, self._body(messages, stop, kwargs), timeout))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> SyncIterator[ChatGenerationChunk]:
        body = self._body(messages, stop, {**kwargs, "n": 1}) | _STREAMED
        for event in self.http.events(self._path, body, timeout):
            chunk = chunk_of(event)
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        body = self._body(messages, stop, {**kwargs, "n": 1}) | _STREAMED
        async for event in self.http.aevents(self._path, body, timeout):
            chunk = chunk_of(event)
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools that it may call. `tool_choice`: "auto", "none", "any", or a tool's name."""
        given: dict[str, Any] = {"tools": [convert_to_openai_tool(tool) for tool in tools]}
        if tool_choice:
            given["tool_choice"] = _choice(tool_choice)
        return self.bind(**given, **kwargs)

    @property
    def _path(self) -> str:
        return f"{self.http.url}/chat/completions"

    def _body(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        _check(options)
        body = {
            "model": self.model_name, "messages": convert_to_openai_messages(list(messages)), "n": self.n,
            "temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens,
            "seed": self.seed, "stop": stop or self.stop, "logprobs": self.logprobs or None,
            **self.extra, **_known(options),
        }  # fmt: skip
        return {name: value for name, value in body.items() if value is not None}

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        told = [one["token_usage"] for one in llm_outputs if one and one.get("token_usage")]
        names = {name for one in told for name, value in one.items() if isinstance(value, int)}
        return {"token_usage": {name: sum(one.get(name) or 0 for one in told) for name in sorted(names)}}


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_OF_LANGCHAIN = frozenset({"ls_structured_output_format", "stream_usage", "strict", "parallel_tool_calls"})


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call without those that are LangChain's own."""
    return {name: value for name, value in options.items() if name not in _OF_LANGCHAIN}


def _check(options: Mapping[str, Any]) -> None:
    """Raises UsageError for fields that vLLM has removed and would ignore without a word."""
    removed = sorted(name for name in options if name.startswith("guided_"))
    if removed:
        raise UsageError(
            f"vLLM ignores {', '.join(removed)}: the output would not be constrained.",
            'Give structured_outputs={"json": …}, {"choice": …} or {"regex": …}.',
        )


def _choice(tool_choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if tool_choice in (True, "any"):
        return "required"
    if isinstance(tool_choice, str) and tool_choice not in ("auto", "none", "required"):
        return {"type": "function", "function": {"name": tool_choice}}
    return tool_choice
