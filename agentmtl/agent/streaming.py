"""An answer as it comes about: steps as they end, pieces of an output as they are written, then the answer.

A step is a mapping with "step"; a piece of an output is {"step": "token", "purpose", "text"}. Who stops
reading ends the run: at its next step or piece in a thread, at once on an event loop.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeAlias

from agentmtl.agent.state import Step
from agentmtl.schema import Answer

Event: TypeAlias = Step | Answer


class Abandoned(Exception):
    """Raised in a run whose reader has gone; never seen outside this module."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Hears a run: `step` of each that ends, `token` of each piece of an output."""

    step: Callable[[Step], None]

    def token(self, purpose: str, text: str) -> None:
        if text:
            self.step({"step": "token", "purpose": purpose, "text": text})


@dataclass(slots=True)
class _Ended:
    answer: Answer | None = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Line:
    """Between the run's thread and its reader."""

    events: queue.SimpleQueue[Step | _Ended] = field(default_factory=queue.SimpleQueue)
    gone: threading.Event = field(default_factory=threading.Event)

    def tell(self, step: Step) -> None:
        if self.gone.is_set():
            raise Abandoned
        self.events.put(step)


def streamed(ask: Callable[[Listener], Answer]) -> Iterator[Event]:
    """The events of a run in a thread of its own. Raises what the run raises."""
    line = _Line()

    def run() -> None:
        try:
            line.events.put(_Ended(ask(Listener(line.tell))))
        except BaseException as error:  # noqa: BLE001 - raised again where the events are read
            line.events.put(_Ended(error=error))

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    try:
        while not isinstance(event := line.events.get(), _Ended):
            yield event
        if event.error is not None:
            raise event.error
        if event.answer is not None:
            yield event.answer
    finally:
        line.gone.set()


async def astreamed(ask: Callable[[Listener], Awaitable[Answer]]) -> AsyncIterator[Event]:
    """`streamed` on the event loop; who stops reading cancels the run."""
    events: asyncio.Queue[Step | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(step: Step) -> None:
        loop.call_soon_threadsafe(events.put_nowait, step)

    async def run() -> Answer:
        try:
            return await ask(Listener(tell))
        finally:
            loop.call_soon(events.put_nowait, None)

    running = asyncio.create_task(run())
    try:
        while (event := await events.get()) is not None:
            yield event
        yield await running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            if not running.done():
                await running
