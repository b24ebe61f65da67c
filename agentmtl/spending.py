"""Spending under a budget: what is reserved before a call, what it cost, and what ran over.

    ledger = Ledger(Budget(calls=20, tokens=4000, seconds=3))
    with ledger.reserve(tokens=prompt + n * max_tokens, usd=0.002) as reservation:
        reply = call(timeout=ledger.seconds_left)
        reservation.spend(Usage(calls=1, prompt_tokens=…, output_tokens=…))

Calls, tokens (of the prompt and the most that may come out) and money are set aside before a call, so that
calls which run at the same time cannot exceed the budget together; what was not used goes back. Seconds are a
deadline. A piece of code spends from the ledger of its context (`Ledger.active`, `current_ledger`).
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from agentmtl.errors import BudgetExceededError, UsageError
from agentmtl.schema import Budget, Usage

HINT = "Raise --budget, or draw fewer samples."
_FORM = "Write for example --budget calls=20,tokens=4000,usd=.02,seconds=3"
_SLACK = 1e-12  # of money, that rounding may add


def parse_budget(text: str) -> Budget:
    """ "calls=20,tokens=4000,usd=.02,seconds=3", any of them. Raises UsageError for anything else."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(calls|tokens|usd|seconds)\s*=\s*([0-9.eE+-]+)\s*", part)
        if match is None or match[1] in limits:
            raise UsageError(f"{part.strip()!r} is no limit of a budget, or a second one.", _FORM)
        limits[match[1]] = _number(match[1], match[2])
    return Budget(
        calls=int(limits["calls"]) if "calls" in limits else None,
        tokens=int(limits["tokens"]) if "tokens" in limits else None,
        usd=limits.get("usd"),
        seconds=limits.get("seconds"),
    )


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{text!r} is no number of {name}.", _FORM) from None
    whole = name in ("calls", "tokens")
    if not isfinite(value) or value < 0 or (whole and value != int(value)):
        raise UsageError(f"A budget cannot have {name}={text}.", _FORM)
    return value


@dataclass(slots=True)
class Reservation:
    """What is set aside for one call; `spend` says what it cost."""

    calls: int
    tokens: int
    usd: float
    usage: Usage | None = None

    def spend(self, usage: Usage) -> None:
        """What the call cost, as it was measured."""
        self.usage = usage


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model: `messages` as (role, text), what came back, what it cost. `purpose`: what for."""

    purpose: str
    model: str
    messages: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    usage: Usage
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        messages = [{"role": role, "text": text} for role, text in self.messages]
        return {
            "purpose": self.purpose, "model": self.model, "messages": messages,
            "outputs": list(self.outputs), "usage": self.usage.to_json(), "error": self.error,
        }  # fmt: skip


class Ledger:
    """What one answer may spend and has spent. Safe to use from several threads.

    `on_call` is told of every call as it ends; `on_token`, where it is given, of a single output as it is
    written: (purpose, piece). `spent`: what a run that goes on had spent before.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_call: Callable[[Call], None] = lambda call: None,
        on_token: Callable[[str, str], None] | None = None,
        spent: Usage | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self._clock = clock
        self._on_call, self.on_token = on_call, on_token
        self._outputs: Counter[str] = Counter()
        self._started = clock() - (spent.seconds if spent else 0.0)
        self._lock = threading.Lock()
        self._spent = spent or Usage()
        self._held = Reservation(0, 0, 0.0)

    def record(self, call: Call) -> None:
        """Note a call that has ended."""
        with self._lock:
            self._outputs[call.purpose] += len(call.outputs)
        self._on_call(call)

    def outputs(self, purpose: str) -> int:
        """How many outputs of models there were for a purpose."""
        with self._lock:
            return self._outputs[purpose]

    @property
    def limits_prompts(self) -> bool:
        """Whether it matters how long a prompt is."""
        return self.budget.tokens is not None or self.budget.usd is not None

    @property
    def spent(self) -> Usage:
        """So far; `seconds` since the ledger was opened."""
        with self._lock:
            spent = self._spent
        return replace(spent, seconds=self._clock() - self._started)

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline, at least 0; None without one."""
        if self.budget.seconds is None:
            return None
        return max(0.0, self.budget.seconds - (self._clock() - self._started))

    @property
    def overshoot(self) -> dict[str, float]:
        """By how much each limit was exceeded: where a model wrote more than it was allowed, or came late."""
        spent, over = self.spent, {}
        used = {
            "calls": spent.calls,
            "tokens": spent.prompt_tokens + spent.output_tokens,
            "usd": spent.money,
            "seconds": spent.seconds,
        }
        for name, limit in self.budget.to_json().items():
            if used[name] > limit + _SLACK:
                over[name] = used[name] - limit
        return over

    @contextmanager
    def reserve(self, *, calls: int = 1, tokens: int = 0, usd: float = 0.0) -> Iterator[Reservation]:
        """Set aside what a call may cost at most.

        Raises BudgetExceededError, before anything is spent, where that is more than is left or the deadline
        has passed. A call that fails counts as a call; what else it cost is what was told of it.
        """
        self._set_aside(calls, tokens, usd)
        held = Reservation(calls, tokens, usd)
        try:
            yield held
        finally:
            self._settle(held)

    def affords(self, *, calls: int = 1, tokens: int = 0, usd: float = 0.0) -> bool:
        """Whether `reserve` would not refuse now."""
        with self._lock:
            return self._lacking(calls, tokens, usd) is None

    def _set_aside(self, calls: int, tokens: int, usd: float) -> None:
        with self._lock:
            lacking = self._lacking(calls, tokens, usd)
            if lacking is not None:
                raise BudgetExceededError(f"The budget does not allow the next call: {lacking}.", HINT)
            self._held.calls += calls
            self._held.tokens += tokens
            self._held.usd += usd

    def _lacking(self, calls: int, tokens: int, usd: float) -> str | None:
        """What there is not enough of; None where all suffices."""
        budget, spent, held = self.budget, self._spent, self._held
        used = spent.prompt_tokens + spent.output_tokens + held.tokens
        if budget.calls is not None and spent.calls + held.calls + calls > budget.calls:
            return f"{spent.calls + held.calls} of {budget.calls} calls are taken"
        if budget.tokens is not None and used + tokens > budget.tokens:
            return f"{used} of {budget.tokens} tokens are taken, and it may need {tokens}"
        if budget.usd is not None and spent.money + held.usd + usd > budget.usd + _SLACK:
            return f"{spent.money + held.usd:.6g} of {budget.usd:g} usd are taken, and it may cost {usd:.6g}"
        left = self.seconds_left
        if left is not None and left <= 0:
            return f"the {budget.seconds:g} seconds have passed"
        return None

    def _settle(self, held: Reservation) -> None:
        usage = held.usage or Usage(calls=held.calls)
        with self._lock:
            self._held.calls -= held.calls
            self._held.tokens -= held.tokens
            self._held.usd -= held.usd
            self._spent += usage

    @contextmanager
    def active(self) -> Iterator[Ledger]:
        """Within, `current_ledger()` is this one: in this thread, its tasks, threads given its context."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)


_CURRENT: ContextVar[Ledger | None] = ContextVar("agentmtl-ledger", default=None)


def current_ledger() -> Ledger:
    """The ledger of the context; a fresh one without limits where there is none."""
    return _CURRENT.get() or Ledger()
