"""Calls of chat models: reserved in the ledger before they are made, measured, and recorded.

Every call of a model that agentmtl makes goes through `Caller`: for answers, repairs, aggregation, routing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial, reduce
from math import ceil
from operator import add
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from agentmtl.errors import AgentmtlError, BudgetExceededError, ModelError, UsageError
from agentmtl.schema import Usage
from agentmtl.spending import Call, Ledger, Reservation, current_ledger
from agentmtl.work import Wait

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk, BaseMessage
    from langchain_core.outputs import ChatGeneration, LLMResult

Tell: TypeAlias = Callable[[str, str], None]  # (purpose, piece of an output)
FORBID = "AGENTMTL_NO_MODEL_CALLS"  # set to 1: models that are not declared harmless are not called
_BYTES_A_TOKEN, _TOKENS_A_MESSAGE = 3, 8  # more than real tokenisers need for prose


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: US dollars for a million tokens of prompt and of output, and the parameters that a
    token is multiplied with (FLOPs are 2 · parameters · tokens)."""

    prompt: float = 0.0
    output: float = 0.0
    parameters: float = 0.0

    def usd(self, prompt_tokens: int, output_tokens: int) -> float:
        return (self.prompt * prompt_tokens + self.output * output_tokens) / 1e6

    def usage(self, calls: int, prompt_tokens: int, output_tokens: int, seconds: float) -> Usage:
        return Usage(
            calls, prompt_tokens, output_tokens, 2 * self.parameters * (prompt_tokens + output_tokens),
            seconds, self.usd(prompt_tokens, output_tokens),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One output. `logprob`: the mean over its tokens; None where the model does not say. `first`: the
    log-probabilities of its first token and, with the option `top_logprobs`, of that token's alternatives."""

    text: str
    logprob: float | None = None
    first: Mapping[str, float] = field(default_factory=dict)


class Caller:
    """Calls one chat model. Safe to use from several threads."""

    def __init__(
        self, model: BaseChatModel, name: str, *, price: Price | None = None, max_tokens: int = 256
    ) -> None:
        """`max_tokens`: of one output, at most."""
        self.model, self.name = model, name
        self.price, self.max_tokens = price or Price(), max_tokens

    @property
    def many(self) -> bool:
        """Whether the model draws several samples in one request (it has the field `n`)."""
        return "n" in type(self.model).model_fields

    @property
    def constrains(self) -> bool:
        """Whether the model takes vLLM's option `structured_outputs` (it says so by `constrains`)."""
        return bool(getattr(self.model, "constrains", False))

    def call(self, messages: Sequence[BaseMessage], purpose: str, n: int = 1, **options: Any) -> list[Sample]:
        """`n` outputs, in one request where the model can, else in n that run at the same time; fewer where
        the budget allows some of these and not all.

        Raises BudgetExceededError before a request that may cost too much, and where its answer comes after
        the deadline; ModelError where the model fails.
        """
        ledger = current_ledger()
        if self.many or n == 1:
            return self._once(ledger, messages, purpose, n, options)
        with ThreadPoolExecutor(min(n, 8)) as pool:
            jobs = [
                pool.submit(copy_context().run, self._once, ledger, messages, purpose, 1, options)
                for _ in range(n)
            ]
        return _those_made([job.exception() or job.result() for job in jobs])

    async def acall(
        self, messages: Sequence[BaseMessage], purpose: str, n: int = 1, **options: Any
    ) -> list[Sample]:
        """`call` without blocking the event loop; cancelled at the deadline."""
        ledger = current_ledger()
        if self.many or n == 1:
            return await self._aonce(ledger, messages, purpose, n, options)
        jobs = [self._aonce(ledger, messages, purpose, 1, options) for _ in range(n)]
        return _those_made(await asyncio.gather(*jobs, return_exceptions=True))

    def _once(
        self, ledger: Ledger, messages: Sequence[BaseMessage], purpose: str, n: int, options: dict[str, Any]
    ) -> list[Sample]:
        prompt = self.count(messages) if ledger.limits_prompts else 0
        n = self._affordable(ledger, prompt, n)
        with self._spending(ledger, messages, purpose, n, prompt) as spending:
            given = self._given(n, options)
            if ledger.on_token is not None and n == 1:
                request = partial(self._streamed, ledger.on_token, messages, purpose, given)
            else:
                request = partial(self.model.generate, [list(messages)], **given)
            return spending.done(within(ledger, request))

    async def _aonce(
        self, ledger: Ledger, messages: Sequence[BaseMessage], purpose: str, n: int, options: dict[str, Any]
    ) -> list[Sample]:
        # Counting may be a request of its own.
        prompt = await asyncio.to_thread(self.count, messages) if ledger.limits_prompts else 0
        n = self._affordable(ledger, prompt, n)
        with self._spending(ledger, messages, purpose, n, prompt) as spending:
            given = self._given(n, options)
            if ledger.on_token is not None and n == 1:
                request = self._astreamed(ledger.on_token, messages, purpose, given)
            else:
                request = self.model.agenerate([list(messages)], **given)
            try:
                result = await asyncio.wait_for(request, ledger.seconds_left)
            except TimeoutError as error:
                raise late(ledger) from error
            return spending.done(result)

    def _streamed(
        self, tell: Tell, messages: Sequence[BaseMessage], purpose: str, given: dict[str, Any]
    ) -> LLMResult:
        """One output, told piece by piece as it is written."""
        pieces = []
        for piece in self.model.stream(list(messages), **given):
            pieces.append(piece)
            tell(purpose, str(piece.text))
        return _joined(pieces)

    async def _astreamed(
        self, tell: Tell, messages: Sequence[BaseMessage], purpose: str, given: dict[str, Any]
    ) -> LLMResult:
        """`_streamed` without blocking the event loop."""
        pieces = []
        async for piece in self.model.astream(list(messages), **given):
            pieces.append(piece)
            tell(purpose, str(piece.text))
        return _joined(pieces)

    def _affordable(self, ledger: Ledger, prompt: int, n: int) -> int:
        """How many of `n` samples of one request the budget allows; at least 1, which may yet be refused."""
        for count in range(n, 1, -1):
            most = count * self.max_tokens
            if ledger.affords(tokens=prompt + most, usd=self.price.usd(prompt, most)):
                return count
        return 1

    def _given(self, n: int, options: dict[str, Any]) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, **({"n": n} if self.many else {}), **options}

    @contextmanager
    def _spending(
        self, ledger: Ledger, messages: Sequence[BaseMessage], purpose: str, n: int, prompt: int
    ) -> Iterator[_Spending]:
        if not getattr(self.model, "harmless", False):
            refuse_where_forbidden(self.name)
        most = n * self.max_tokens
        with ledger.reserve(tokens=prompt + most, usd=self.price.usd(prompt, most)) as reservation:
            spending = _Spending(self, ledger, messages, purpose, reservation, perf_counter())
            try:
                yield spending
            except AgentmtlError as error:  # it says itself what happened and what to do
                spending.note(error=str(error))
                raise
            except Exception as error:  # whatever a provider raises
                spending.note(error=type(error).__name__)
                raise ModelError(
                    f"The model {self.name} failed: {type(error).__name__}.",
                    "See whether it runs and its key is right: agentmtl experts list --check",
                ) from error

    def wait(self, messages: Sequence[BaseMessage], purpose: str, n: int = 1, **options: Any) -> Wait:
        """`call` or `acall`, for a step that is written once for both."""
        return Wait(
            lambda: self.call(messages, purpose, n, **options),
            lambda: self.acall(messages, purpose, n, **options),
        )

    def fits(self, messages: Sequence[BaseMessage]) -> bool:
        """Whether a prompt and one output have room in the model's window, where that is known (its
        `context_window`, in tokens)."""
        window = getattr(self.model, "context_window", None)
        return window is None or self.count(messages) + self.max_tokens <= int(window)

    def affords(self, messages: Sequence[BaseMessage], n: int = 1) -> bool:
        """Whether the budget allows `n` samples now."""
        ledger, most = current_ledger(), n * self.max_tokens
        prompt = self.count(messages) if ledger.limits_prompts else 0
        return ledger.affords(tokens=prompt + most, usd=self.price.usd(prompt, most))

    def count(self, messages: Sequence[BaseMessage]) -> int:
        """Tokens of a prompt: as the model counts them where it can (`count_prompt_tokens`), else an estimate
        that is above what tokenisers need for prose."""
        own = getattr(self.model, "count_prompt_tokens", None)
        return int(own(messages)) if own is not None else estimate_tokens(messages)


@dataclass(slots=True)
class _Spending:
    caller: Caller
    ledger: Ledger
    messages: Sequence[BaseMessage]
    purpose: str
    reservation: Reservation
    started: float

    def done(self, result: LLMResult) -> list[Sample]:
        """Note what came back and what it cost."""
        generations: list[ChatGeneration] = list(result.generations[0])  # type: ignore[arg-type]
        prompt, output = tokens_of(result, generations)
        samples = [Sample(g.text, _logprob(g), _first(g)) for g in generations]
        usage = self.caller.price.usage(1, prompt, output, perf_counter() - self.started)
        self.reservation.spend(usage)
        self.note(usage=usage, samples=samples)
        return samples

    def note(self, usage: Usage | None = None, samples: Sequence[Sample] = (), error: str = "") -> None:
        self.ledger.record(
            Call(
                self.purpose, self.caller.name,
                tuple((message.type, str(message.text)) for message in self.messages),
                tuple(sample.text for sample in samples),
                usage or Usage(calls=1, seconds=perf_counter() - self.started), error,
            )
        )  # fmt: skip


def _those_made(results: Sequence[list[Sample] | BaseException]) -> list[Sample]:
    """The outputs of requests that ran at the same time; all have ended, for what one spent must be known.

    Raises what one raised; a budget's refusal only where it refused all.
    """
    errors = [result for result in results if isinstance(result, BaseException)]
    made = [sample for result in results if isinstance(result, list) for sample in result]
    for error in errors:
        if not made or not isinstance(error, BudgetExceededError):
            raise error
    return made


def _joined(pieces: Sequence[AIMessageChunk]) -> LLMResult:
    """A stream's pieces as the one output that they are."""
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGeneration, LLMResult

    whole = reduce(add, pieces[1:], pieces[0]) if pieces else AIMessageChunk(content="")
    return LLMResult(generations=[[ChatGeneration(message=whole)]])


def within(ledger: Ledger, request: Any) -> Any:
    """The request's result, unless the deadline comes first: it then runs out in its thread, unheard."""
    left = ledger.seconds_left
    if left is None:
        return request()
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(copy_context().run, request).result(timeout=left)
    except TimeoutError as error:
        raise late(ledger) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def late(ledger: Ledger) -> BudgetExceededError:
    return BudgetExceededError(
        f"The budget's {ledger.budget.seconds:g} seconds passed while a model was answering.",
        "Raise --budget seconds=…, or use a faster model.",
    )


def refuse_where_forbidden(name: str) -> None:
    """Raises UsageError where calls of real models are forbidden."""
    if os.environ.get(FORBID, "") not in ("", "0"):
        raise UsageError(f"The model {name} may not be called.", f"Unset {FORBID}.")


def estimate_tokens(messages: Sequence[BaseMessage]) -> int:
    """From the bytes of the text, generously."""
    texts = [str(message.text) for message in messages]
    return sum(ceil(len(text.encode()) / _BYTES_A_TOKEN) + _TOKENS_A_MESSAGE for text in texts)


def tokens_of(result: LLMResult, generations: Sequence[ChatGeneration]) -> tuple[int, int]:
    """(of the prompt, of all outputs), as the model reported them."""
    told = (result.llm_output or {}).get("token_usage") or {}
    if told.get("prompt_tokens") is not None:
        return int(told["prompt_tokens"]), int(told.get("completion_tokens") or 0)
    usages = [getattr(g.message, "usage_metadata", None) or {} for g in generations]
    prompt = max((int(u.get("input_tokens", 0)) for u in usages), default=0)
    return prompt, sum(int(u.get("output_tokens", 0)) for u in usages)


def _logprob(generation: ChatGeneration) -> float | None:
    """The mean over an output's tokens."""
    values = [token["logprob"] for token in _told(generation) if token.get("logprob") is not None]
    return sum(values) / len(values) if values else None


def _first(generation: ChatGeneration) -> dict[str, float]:
    """Of the first token and its alternatives."""
    tokens = [one for token in _told(generation)[:1] for one in (token, *(token.get("top_logprobs") or ()))]
    return {str(one["token"]): float(one["logprob"]) for one in tokens if one.get("logprob") is not None}


def _told(generation: ChatGeneration) -> list[dict[str, Any]]:
    """Every token of an output, in the form of OpenAI's interface."""
    return (generation.message.response_metadata.get("logprobs") or {}).get("content") or []
