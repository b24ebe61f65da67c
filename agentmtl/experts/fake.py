"""A chat model that is none: it says what it was told to. For tests of pipelines, plug-ins and budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import sleep
from typing import Any, ClassVar

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

Reply = Callable[[Sequence[BaseMessage], int], str]  # (messages, number of the sample) → what is said


class FakeChatModel(BaseChatModel):
    """Says `replies` in turn, from the start again at their end, or what a function makes of the messages.

    Its tokens are words, so that what it reports as used can be counted by hand; an output stops at
    `max_tokens` of them. `seconds`: how long a call takes.
    """

    harmless: ClassVar[bool] = True  # it is called where calls of models are forbidden

    replies: list[str] | Reply = Field(default_factory=lambda: ["no answer"])
    n: int = 1
    seconds: float = 0.0
    calls: int = 0
    drawn: int = 0

    @property
    def _llm_type(self) -> str:
        return "fake"

    def count_prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Words of all messages."""
        return sum(len(str(message.text).split()) for message in messages)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        n: int | None = None,
        max_tokens: int | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.calls += 1
        sleep(self.seconds)
        outputs = [self._say(messages, max_tokens) for _ in range(n or self.n)]
        used = {
            "prompt_tokens": self.count_prompt_tokens(messages),
            "completion_tokens": sum(len(output.split()) for output in outputs),
        }
        generations = [
            ChatGeneration(message=AIMessage(output, usage_metadata=_usage(used["prompt_tokens"], output)))
            for output in outputs
        ]
        return ChatResult(generations=generations, llm_output={"token_usage": used})

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Itself: it calls no tool."""
        return self

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        told = [one["token_usage"] for one in llm_outputs if one]
        return {"token_usage": {name: sum(one[name] for one in told) for name in told[0]} if told else {}}

    def _say(self, messages: Sequence[BaseMessage], max_tokens: int | None) -> str:
        number, self.drawn = self.drawn, self.drawn + 1
        said = (
            self.replies(messages, number)
            if callable(self.replies)
            else self.replies[number % len(self.replies)]
        )
        words = said.split()
        return said if max_tokens is None or len(words) <= max_tokens else " ".join(words[:max_tokens])


def _usage(prompt: int, output: str) -> UsageMetadata:
    said = len(output.split())
    return UsageMetadata(input_tokens=prompt, output_tokens=said, total_tokens=prompt + said)
