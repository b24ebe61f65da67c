"""Steps that wait for models, written once for threads and for event loops.

    def step() -> Work[str]:
        found = yield Wait(now=lambda: call(), later=lambda: acall())
        return found.upper()

    now(step())            # in this thread
    await later(step())    # without blocking the event loop

A step is a generator: it yields what it waits for and is sent what came; what went wrong is raised in it, at
the place where it waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wait:
    """Something to wait for: how to get it in this thread, and how without blocking an event loop."""

    now: Callable[[], Any]
    later: Callable[[], Awaitable[Any]]


Work: TypeAlias = Generator[Wait, Any, T]


def in_thread(function: Callable[[], Any]) -> Wait:
    """To wait for a function that computes: in this thread, or in a worker thread of the event loop."""
    return Wait(function, lambda: asyncio.to_thread(function))


def now(work: Work[T]) -> T:
    """The result of the work, done in this thread. Raises what the work raises."""
    try:
        wait = next(work)
        while True:
            try:
                found = wait.now()
            except BaseException as error:  # noqa: BLE001 - raised again in the work, an interrupt too
                wait = work.throw(error)
            else:
                wait = work.send(found)
    except StopIteration as done:
        result: T = done.value
        return result


async def later(work: Work[T]) -> T:
    """`now` without blocking the event loop; a cancelled task cancels what the work waits for."""
    try:
        wait = next(work)
        while True:
            try:
                found = await wait.later()
            except BaseException as error:  # noqa: BLE001 - raised again in the work, a cancelling too
                wait = work.throw(error)
            else:
                wait = work.send(found)
    except StopIteration as done:
        result: T = done.value
        return result
