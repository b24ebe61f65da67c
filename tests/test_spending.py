"""Budgets: nothing is spent beyond them, whatever is drawn and however many spend at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import BudgetExceededError, UsageError
from agentmtl.schema import Budget, Usage
from agentmtl.spending import Ledger, current_ledger, parse_budget


def test_a_budget_is_read_from_text() -> None:
    assert parse_budget("calls=20, tokens=4000,usd=.02,seconds=3") == Budget(20, 4000, 0.02, 3.0)
    assert parse_budget("tokens=1e3") == Budget(tokens=1000)
    for bad in (
        "",
        "calls",
        "calls=-1",
        "calls=1.5",
        "calls=1,calls=2",
        "tokens=nan",
        "usd=inf",
        "x=1",
        "usd=--1",
    ):
        with pytest.raises(UsageError, match="--budget"):
            parse_budget(bad)


calls = st.tuples(st.integers(0, 200), st.integers(0, 200), st.floats(0, 0.01), st.booleans())


@given(st.lists(calls, max_size=30), st.integers(0, 12), st.integers(0, 1500), st.floats(0, 0.05))
def test_nothing_is_spent_beyond_the_limits(
    asked: list[tuple[int, int, float, bool]], most_calls: int, most_tokens: int, most_usd: float
) -> None:
    """Calls that use no more than they reserved, some of which fail."""
    ledger = Ledger(Budget(most_calls, most_tokens, most_usd))
    made = 0
    for reserved, used, usd, fails in asked:
        used = min(used, reserved)
        try:
            with ledger.reserve(tokens=reserved, usd=usd) as reservation:
                made += 1
                if fails:
                    raise ConnectionError
                reservation.spend(
                    Usage(calls=1, prompt_tokens=used // 2, output_tokens=used - used // 2, money=usd)
                )
        except (BudgetExceededError, ConnectionError):
            continue
    spent = ledger.spent
    assert spent.calls == made <= most_calls
    assert spent.prompt_tokens + spent.output_tokens <= most_tokens
    assert spent.money <= most_usd + 1e-9 and not ledger.overshoot


def test_what_was_not_used_can_be_spent_again() -> None:
    ledger = Ledger(Budget(tokens=100))
    for _ in range(3):
        with ledger.reserve(tokens=80) as reservation:
            assert not ledger.affords(tokens=40)
            reservation.spend(Usage(calls=1, prompt_tokens=5, output_tokens=5))
    assert ledger.affords(tokens=70) and not ledger.affords(tokens=71)


def test_threads_cannot_exceed_it_together() -> None:
    ledger, gate = Ledger(Budget(calls=7, tokens=700)), threading.Barrier(16)

    def spend(seed: int) -> bool:
        gate.wait()
        try:
            with ledger.reserve(tokens=100) as reservation:
                reservation.spend(Usage(calls=1, prompt_tokens=Random(seed).randint(0, 100)))
                return True
        except BudgetExceededError:
            return False

    with ThreadPoolExecutor(16) as pool:
        given = sum(pool.map(spend, range(16)))
    assert ledger.spent.calls == given <= 7 and not ledger.overshoot


def test_seconds_are_a_deadline_and_what_comes_late_is_reported() -> None:
    now = 0.0
    ledger = Ledger(Budget(seconds=3.0, tokens=10), clock=lambda: now)
    assert ledger.seconds_left == 3.0
    with ledger.reserve(tokens=10) as reservation:
        now = 4.0
        reservation.spend(Usage(calls=1, output_tokens=12))
    assert ledger.seconds_left == 0.0
    assert ledger.overshoot == {"seconds": 1.0, "tokens": 2}
    with (
        pytest.raises(BudgetExceededError, match=r"(tokens are taken|seconds have passed)"),
        ledger.reserve(tokens=0),
    ):
        raise AssertionError("not reached")


def test_the_ledger_of_the_context() -> None:
    ledger = Ledger(Budget(calls=1))
    assert current_ledger().budget == Budget()
    with ledger.active():
        assert current_ledger() is ledger
    assert current_ledger() is not ledger
