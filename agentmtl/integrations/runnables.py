"""LangChain's Runnables and tools called under a budget: set aside before, measured inside, recorded after.

A model that runs within a Runnable is met by its callbacks: each of its calls is set aside in the ledger
before it is made, and counted with the tokens that it reports. How long its output may be is not ours to
say, so that what it writes beyond `max_tokens` is reported as overshoot.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs

from agentmtl.errors import AgentmtlError, ModelError, UsageError
from agentmtl.experts.calling import FORBID, Price, estimate_tokens, late, tokens_of, within
from agentmtl.schema import Usage
from agentmtl.spending import Call, Ledger, Reservation, current_ledger

_TICK = 0.01  # seconds, that a clock may be early
Shown = Sequence[tuple[str, str]]  # (role, text): what is sent, for the log


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call costs: `usd` each, and the tokens of models inside by `price`. `max_tokens`: what is set
    aside for the output of a model inside."""

    price: Price = field(default_factory=Price)
    usd: float = 0.0
    max_tokens: int = 256


class RunnableCaller:
    """Calls one Runnable, sync and async whichever of both it has. Safe in threads, as the Runnable is."""

    def __init__(self, runnable: Runnable[Any, Any], name: str, cost: Cost | None = None) -> None:
        self.runnable, self.name, self.cost = runnable, name, cost or Cost()
        self._only_async = False

    def call(self, given: Any, purpose: str, shown: Shown, read: Callable[[Any], str]) -> str:
        """`read` of the result, which the log keeps.

        Raises BudgetExceededError before a call that may cost too much or where it comes after the deadline,
        ModelError where it fails, and what `read` raises.
        """
        ledger = current_ledger()
        with self._spending(ledger, purpose, shown) as spending:
            result = within(ledger, lambda: self._run(given, spending.config()))
            return spending.done(read(result))

    async def acall(self, given: Any, purpose: str, shown: Shown, read: Callable[[Any], str]) -> str:
        """`call` without blocking the event loop; cancelled at the deadline."""
        ledger = current_ledger()
        with self._spending(ledger, purpose, shown) as spending:
            try:
                request = self.runnable.ainvoke(given, spending.config())
                result = await asyncio.wait_for(request, ledger.seconds_left)
            except TimeoutError as error:
                left = ledger.seconds_left
                if left is None or left > _TICK:
                    raise  # the Runnable's own
                raise late(ledger) from error
            return spending.done(read(result))

    def _run(self, given: Any, config: RunnableConfig) -> Any:
        if not self._only_async:
            try:
                return self.runnable.invoke(given, config)
            except (NotImplementedError, TypeError) as error:
                if not _says_async_only(error):
                    raise
                self._only_async = True  # so that its first steps run twice once, not every time
        with ThreadPoolExecutor(1) as pool:  # a loop of its own: this thread may be running one
            return pool.submit(copy_context().run, asyncio.run, self._arun(given, config)).result()

    async def _arun(self, given: Any, config: RunnableConfig) -> Any:
        return await self.runnable.ainvoke(given, config)

    @contextmanager
    def _spending(self, ledger: Ledger, purpose: str, shown: Shown) -> Iterator[_Spending]:
        with ledger.reserve(usd=self.cost.usd) as reservation:
            spending = _Spending(self, ledger, purpose, shown, reservation)
            try:
                yield spending
            except AgentmtlError as error:
                spending.note(error=str(error))
                raise
            except Exception as error:  # whatever is inside
                spending.note(error=type(error).__name__)
                raise ModelError(
                    f"{self.name} failed: {type(error).__name__}.", "See: agentmtl experts list --check"
                ) from error
            finally:
                spending.inside.close()


def _says_async_only(error: Exception) -> bool:
    """As LangChain and LangGraph say that there is only a coroutine."""
    return isinstance(error, NotImplementedError) or "synchronous" in str(error)


class _Spending:
    """One call of a Runnable."""

    def __init__(
        self, caller: RunnableCaller, ledger: Ledger, purpose: str, shown: Shown, held: Reservation
    ) -> None:
        self.caller, self.ledger, self.purpose, self.shown, self.held = caller, ledger, purpose, shown, held
        self.inside = ModelsInside(ledger, caller.name, caller.cost)
        self.started = perf_counter()

    def config(self) -> RunnableConfig:
        """That of the context, with a look at the models inside, unless a Runnable around this one looks."""
        config = ensure_config()
        around = config.get("callbacks") or []
        handlers = around if isinstance(around, list) else around.handlers
        if any(isinstance(handler, ModelsInside) for handler in handlers):
            return config
        return merge_configs(config, {"callbacks": [self.inside]})

    def done(self, text: str) -> str:
        self.note(outputs=(text,))
        return text

    def note(self, outputs: tuple[str, ...] = (), error: str = "") -> None:
        usage = Usage(calls=1, seconds=perf_counter() - self.started, money=self.caller.cost.usd)
        self.held.spend(usage)
        told = tuple(self.shown)
        self.ledger.record(Call(self.purpose, self.caller.name, told, outputs, usage, error))


@dataclass(slots=True)
class _Held:
    stack: ExitStack
    reservation: Reservation
    calls: int
    messages: Sequence[BaseMessage]
    started: float


class ModelsInside(BaseCallbackHandler):
    """Sets aside and counts what models inside a Runnable cost; the first of their calls is the Runnable's
    own."""

    raise_error = True  # a refusal must stop the call
    run_inline = True

    def __init__(self, ledger: Ledger, name: str, cost: Cost) -> None:
        self._ledger, self._name, self._cost = ledger, name, cost
        self._held: dict[UUID, _Held] = {}
        self._seen = 0
        self._lock = Lock()

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Raises BudgetExceededError where it may cost too much."""
        self._start(run_id, [message for batch in messages for message in batch])

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """As `on_chat_model_start`, for models of plain text."""
        self._start(run_id, [HumanMessage(prompt) for prompt in prompts])

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        generations: list[Any] = response.generations[0] if response.generations else []
        prompt, output = tokens_of(response, [one for one in generations if hasattr(one, "message")])
        self._end(run_id, prompt, output, tuple(one.text for one in generations))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, 0, 0, error=type(error).__name__)

    def close(self) -> None:
        """What was cut off in the middle counts as a call."""
        for run_id in list(self._held):
            self._end(run_id, 0, 0, error="cut off")

    def _start(self, run_id: UUID, messages: Sequence[BaseMessage]) -> None:
        with self._lock:
            calls, self._seen = (1 if self._seen else 0), self._seen + 1
        prompt = estimate_tokens(messages)
        most = self._cost.max_tokens
        stack = ExitStack()
        reservation = stack.enter_context(
            self._ledger.reserve(calls=calls, tokens=prompt + most, usd=self._cost.price.usd(prompt, most))
        )
        self._held[run_id] = _Held(stack, reservation, calls, messages, perf_counter())

    def _end(
        self, run_id: UUID, prompt: int, output: int, outputs: tuple[str, ...] = (), error: str = ""
    ) -> None:
        held = self._held.pop(run_id, None)
        if held is None:
            return
        usage = self._cost.price.usage(held.calls, prompt, output, perf_counter() - held.started)
        held.reservation.spend(usage)
        held.stack.close()
        told = tuple((message.type, str(message.text)) for message in held.messages)
        self._ledger.record(Call("inside", self._name, told, outputs, usage, error))


def refuse_if_forbidden(name: str, harmless: bool) -> None:
    """Raises UsageError where calls of models are forbidden and this one is not said to be harmless."""
    if os.environ.get(FORBID, "") not in ("", "0") and not harmless:
        raise UsageError(f"{name} may not be called.", f"Unset {FORBID}.")
