"""What a vLLM server answers, as LangChain's messages: samples, usage, logprobs, reasoning, tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from agentmtl.errors import ModelError
from agentmtl.experts.scoring import TokenScores


def result_of(found: Mapping[str, Any]) -> ChatResult:
    """Every sample of a reply. Raises ModelError where it holds none."""
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
        raise ModelError("The server's reply holds no output.", "See the server's log.")
    usage = usage_of(found.get("usage"))
    return ChatResult(
        generations=[
            _generation(choice, found, usage if n == 0 else None) for n, choice in enumerate(choices)
        ],
        llm_output={"token_usage": found.get("usage") or {}, "model_name": found.get("model")},
    )


def _generation(
    choice: Mapping[str, Any], found: Mapping[str, Any], usage: UsageMetadata | None
) -> ChatGeneration:
    said = choice.get("message") or {}
    calls, invalid = _tool_calls(said)
    message = AIMessage(
        content=said.get("content") or "",
        additional_kwargs=_reasoning(said),
        response_metadata={
            "finish_reason": choice.get("finish_reason"),
            "logprobs": choice.get("logprobs"),
            "model_name": found.get("model"),
            "model_provider": "vllm",
            **({"prompt_logprobs": told} if (told := found.get("prompt_logprobs")) else {}),
        },
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage,
        id=found.get("id"),
    )
    return ChatGeneration(message=message, generation_info={"finish_reason": choice.get("finish_reason")})


def chunk_of(event: Mapping[str, Any]) -> ChatGenerationChunk:
    """A piece of a stream; the last one holds the usage and no choice."""
    choices = event.get("choices") or []
    choice: Mapping[str, Any] = choices[0] if choices else {}
    said = choice.get("delta") or {}
    ended = choice.get("finish_reason")
    told: dict[str, Any] = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
    if ended:
        told |= {"finish_reason": ended, "model_name": event.get("model"), "model_provider": "vllm"}
    message = AIMessageChunk(
        content=said.get("content") or "",
        additional_kwargs=_reasoning(said),
        response_metadata=told,
        tool_call_chunks=[_tool_chunk(call) for call in said.get("tool_calls") or []],
        usage_metadata=usage_of(event.get("usage")) if not choices else None,
        id=event.get("id"),
    )
    return ChatGenerationChunk(message=message, generation_info={"finish_reason": ended} if ended else None)


def token_scores_of(found: Mapping[str, Any], count: int) -> list[TokenScores]:
    """What a reply to `count` prompts says of their own tokens. Raises ModelError where it says nothing."""
    choices = sorted(found.get("choices") or [], key=lambda choice: int(choice.get("index", 0)))
    if len(choices) != count:
        raise ModelError(f"The server read {len(choices)} of {count} texts.", "See the server's log.")
    return [_token_scores(choice) for choice in choices]


def _token_scores(choice: Mapping[str, Any]) -> TokenScores:
    ids, told = choice.get("prompt_token_ids"), choice.get("prompt_logprobs")
    if not ids or not told or len(ids) != len(told):
        raise ModelError("The server gives no log-probabilities of prompts.", "Score with a vLLM server.")
    return TokenScores(
        tuple(int(token) for token in ids),
        tuple(
            float(entry[str(token)]["logprob"]) if entry else None
            for token, entry in zip(ids, told, strict=True)
        ),
    )


def usage_of(told: Mapping[str, Any] | None) -> UsageMetadata | None:
    """None where the server did not say."""
    if not told:
        return None
    prompt, output = int(told.get("prompt_tokens") or 0), int(told.get("completion_tokens") or 0)
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens")
    found = UsageMetadata(input_tokens=prompt, output_tokens=output, total_tokens=prompt + output)
    if cached:
        found["input_token_details"] = {"cache_read": int(cached)}
    return found


def _reasoning(said: Mapping[str, Any]) -> dict[str, Any]:
    text = said.get("reasoning_content") or said.get("reasoning")
    return {"reasoning_content": text} if text else {}


def _tool_calls(said: Mapping[str, Any]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    calls, invalid = list[ToolCall](), list[InvalidToolCall]()
    for call in said.get("tool_calls") or []:
        function = call.get("function") or {}
        name, text, id_ = function.get("name"), function.get("arguments") or "{}", call.get("id")
        try:
            given = json.loads(text)
        except ValueError as error:
            invalid.append(
                InvalidToolCall(name=name, args=text, id=id_, error=str(error), type="invalid_tool_call")
            )
        else:
            calls.append(ToolCall(name=str(name), args=given, id=id_, type="tool_call"))
    return calls, invalid


def _tool_chunk(call: Mapping[str, Any]) -> ToolCallChunk:
    function = call.get("function") or {}
    return tool_call_chunk(
        name=function.get("name"), args=function.get("arguments"), id=call.get("id"), index=call.get("index")
    )
