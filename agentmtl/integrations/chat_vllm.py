"""`ChatVLLM`: a LangChain chat model over the OpenAI interface of a vLLM server.

    model = ChatVLLM(model="my-adapter", base_url="http://127.0.0.1:8000/v1")
    model.invoke("Where is Foulby?").content
    result = model.generate([[HumanMessage("Name a river.")]], n=8)     # one request, eight samples

A LoRA adapter is a model id of the server. What `ChatOpenAI` leaves out is here: all `n` samples with their
log-probabilities, usage while streaming, reasoning content, `structured_outputs`, adapters loaded while the
server runs, scores of texts, and counting a prompt's tokens as the server will. The removed `guided_*`
fields, which a server silently ignores, are refused.
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
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from agentmtl.errors import ModelError, UsageError
from agentmtl.experts.calling import estimate_tokens, refuse_where_forbidden
from agentmtl.experts.scoring import Pair, Score, TokenScores, score_of, texts_to_score
from agentmtl.integrations.structured import Method, Schema, constrained
from agentmtl.integrations.vllm_http import VllmHttp
from agentmtl.integrations.vllm_replies import chunk_of, result_of, token_scores_of

KEY, URL = "VLLM_API_KEY", "VLLM_BASE_URL"
DEFAULT_URL = "http://127.0.0.1:8000/v1"


class ChatVLLM(BaseChatModel):
    """See the top of this module. Safe to use from several threads.

    `n` samples a request; `logprobs`: give each token's log-probability in `response_metadata`. `extra`:
    other fields of vLLM's requests (top_k, min_p, chat_template_kwargs, vllm_xargs …). `timeout`: seconds of
    one try; `max_retries`: after the first. `scored_at_once`: texts in a request for scores; 1 for a server
    on CPUs with adapters, whose engine dies of several (vLLM 0.32). VLLM_API_KEY is the key, VLLM_BASE_URL
    the address, by default.
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
    scored_at_once: int = Field(default=64, ge=1)
    _counts: bool = PrivateAttr(default=True)  # whether the server counts tokens; false once and for good

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> Self:
        check_options(self.extra)
        self.http  # noqa: B018 - refuses a bad address now
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
        return [str(entry["id"]) for entry in self._listed()]

    @cached_property
    def context_window(self) -> int | None:
        """Tokens of a prompt and its output together; None where the server does not say."""
        try:
            entries = {entry["id"]: entry for entry in self._listed(timeout=_SOON)}
        except ModelError:
            return None
        entry = entries.get(self.model_name, {})
        base = entries.get(entry.get("parent"), {})  # an adapter has the window of its model
        found = entry.get("max_model_len") or base.get("max_model_len")
        return int(found) if found else None

    def _listed(self, timeout: float | None = None) -> list[dict[str, Any]]:
        found = self.http.once("GET", f"{self.http.url}/models", timeout=timeout)
        return list(found.get("data", [])) if isinstance(found, dict) else []

    def count_prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Tokens of a prompt in the server's own chat template; a generous estimate where the server cannot
        count, as servers of other makes. Raises ModelError."""
        found = self.http.post_if_there(*self._counting(messages)) if self._counts else None
        return self._counted(found, messages)

    async def acount_prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """`count_prompt_tokens` without blocking the event loop."""
        found = await self.http.apost_if_there(*self._counting(messages)) if self._counts else None
        return self._counted(found, messages)

    def _counting(self, messages: Sequence[BaseMessage]) -> tuple[str, dict[str, Any]]:
        body = {
            "model": self.model_name, "messages": convert_to_openai_messages(list(messages)),
            "add_generation_prompt": True,
        }  # fmt: skip
        return f"{self.http.root}/tokenize", body

    def _counted(self, found: Mapping[str, Any] | None, messages: Sequence[BaseMessage]) -> int:
        count = found.get("count") if found is not None else None
        if isinstance(count, int):
            return count
        self._counts = False
        return estimate_tokens(messages)

    def load_adapter(self, name: str, path: str, *, replace: bool = False) -> None:
        """Serve the LoRA adapter in the folder `path`, which the server reads, as the model `name`; with
        `replace` also where there is one of that name.

        Raises ModelError where the server refuses: it is started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
        """
        self._of_adapter("load", {"lora_name": name, "lora_path": path, "load_inplace": replace})

    def unload_adapter(self, name: str) -> None:
        """No longer serve an adapter. Raises ModelError where the server refuses."""
        self._of_adapter("unload", {"lora_name": name})

    def _of_adapter(self, what: str, body: dict[str, Any]) -> None:
        try:
            self.http.once("POST", f"{self.http.url}/{what}_lora_adapter", body, timeout=self.timeout)
        except ModelError as error:
            hint = f"{error.hint} It takes adapters only with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            raise ModelError(error.message, hint) from error

    def score(self, prompt: str, continuations: Sequence[str]) -> list[Score]:
        """Log-probabilities of continuations of a prompt (`agentmtl.experts.scoring.Scorer`)."""
        return self.score_pairs([(prompt, continuation) for continuation in continuations])

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Score]:
        """The same for (prompt, continuation) pairs, `scored_at_once` texts a request. Each generates a
        token, since a server cannot generate none."""
        refuse_where_forbidden(self.model_name)
        texts = texts_to_score(pairs)
        read: dict[str, TokenScores] = {}
        for start in range(0, len(texts), self.scored_at_once):
            some = texts[start : start + self.scored_at_once]
            body = {
                "model": self.model_name, "prompt": some, "max_tokens": 1, "temperature": 0,
                "prompt_logprobs": 0, "return_token_ids": True,
            }  # fmt: skip
            found = self.http.post(f"{self.http.url}/completions", body, self.timeout)
            read |= dict(zip(some, token_scores_of(found, len(some)), strict=True))
        return [score_of(read[prompt], read[prompt + continuation]) for prompt, continuation in pairs]

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

    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """The model with an output that the server constrains to a schema, parsed and checked against it.

        "json_schema" (default) and "json_mode" constrain the text; "function_calling" needs a server with a
        parser of tool calls.
        """
        if kwargs:
            raise UsageError(f"Unknown arguments: {', '.join(sorted(kwargs))}.", "Leave them out.")
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw)
        return constrained(self, schema, method, include_raw)

    @property
    def _path(self) -> str:
        return f"{self.http.url}/chat/completions"

    def _body(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        check_options(options)
        body = {
            "model": self.model_name, "messages": convert_to_openai_messages(list(messages)), "n": self.n,
            "temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens,
            "seed": self.seed, "stop": stop or self.stop, "logprobs": self.logprobs or None,
            **self.extra, **known_options(options),
        }  # fmt: skip
        return {name: value for name, value in body.items() if value is not None}

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        return sum_of_usages(llm_outputs)


_SOON = 5.0  # seconds that a server may take to say what it serves
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_OF_LANGCHAIN = frozenset({"ls_structured_output_format", "stream_usage", "strict", "parallel_tool_calls"})


def sum_of_usages(llm_outputs: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """The usage of several requests together."""
    told = [one["token_usage"] for one in llm_outputs if one and one.get("token_usage")]
    names = {name for one in told for name, value in one.items() if isinstance(value, int)}
    return {"token_usage": {name: sum(one.get(name) or 0 for one in told) for name in sorted(names)}}


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call without those that are LangChain's own."""
    return {name: value for name, value in options.items() if name not in _OF_LANGCHAIN}


def check_options(options: Mapping[str, Any]) -> None:
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
