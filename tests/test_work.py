"""A step written once gives the same in a thread and on an event loop, errors and interrupts included."""

from __future__ import annotations

import asyncio

import pytest

from agentmtl.work import Wait, Work, in_thread, later, now


async def _twice(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def _fail() -> int:
    raise ValueError("broken")


async def _afail() -> int:
    raise ValueError("broken")


def doubled(value: int) -> Work[int]:
    first = yield Wait(lambda: 2 * value, lambda: _twice(value))
    second = yield in_thread(lambda: 2 * first)
    return int(second)


def mended() -> Work[str]:
    try:
        yield Wait(_fail, _afail)
    except ValueError as error:
        return f"mended: {error}"
    return "not raised"


async def test_both_ways_give_the_same() -> None:
    assert now(doubled(3)) == await later(doubled(3)) == 12


async def test_an_error_is_raised_where_the_step_waits() -> None:
    assert now(mended()) == await later(mended()) == "mended: broken"

    def broken() -> Work[int]:
        return (yield Wait(_fail, _afail))

    with pytest.raises(ValueError, match="broken"):
        now(broken())
    with pytest.raises(ValueError, match="broken"):
        await later(broken())


async def test_a_cancelled_task_is_heard_in_the_step() -> None:
    heard = []

    def waiting() -> Work[None]:
        try:
            yield Wait(_fail, lambda: asyncio.sleep(60))
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    task = asyncio.create_task(later(waiting()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["cancelled"]
