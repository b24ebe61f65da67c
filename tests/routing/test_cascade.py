"""A cascade's steps and thresholds, and thresholds with a guarantee."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from agentmtl.errors import UsageError
from agentmtl.routing.cascade import Cascade, CascadeRows, fit_thresholds, outcome
from agentmtl.routing.conformal import p_value, risk_threshold
from agentmtl.schema import Answer, Candidate, Usage


def candidate(confidence: float, text: str = "x") -> Candidate:
    return Candidate(text, (), confidence, "small")


def test_an_unreliable_answer_goes_on_to_the_next() -> None:
    cascade = Cascade(("small", "middle", "big"), (0.7, 0.4))
    assert (
        cascade.next("small", candidate(0.69)) == "middle" and cascade.next("small", candidate(0.7)) is None
    )
    assert cascade.next("middle", candidate(0.3)) == "big" and cascade.next("middle", candidate(0.5)) is None
    assert cascade.next("big", candidate(0.0)) is None and cascade.next("stranger", None) is None
    assert cascade.next("small", None) == "middle"
    sure = Answer("q", "", (), 0.9, True, "small", Usage())
    assert cascade.next("small", sure) == "middle"  # it abstained


def test_another_score_of_reliability() -> None:
    @dataclass(frozen=True)
    class Said:
        text: str
        confidence: float = 1.0

    def long_enough(question: str, answer: Said) -> float:
        return float(len(answer.text) > len(question))

    cascade = Cascade(("small", "big"), (0.5,), long_enough)  # type: ignore[arg-type]
    assert cascade.next("small", Said("ab"), "abc") == "big"
    assert cascade.next("small", Said("abcd"), "abc") is None


def test_what_is_no_cascade() -> None:
    for order, thresholds in ((("a",), ()), (("a", "a"), (0.5,)), (("a", "b"), ()), (("a", "b"), (0.1, 0.2))):
        with pytest.raises(UsageError):
            Cascade(order, thresholds)
    with pytest.raises(UsageError, match="different forms"):
        CascadeRows(np.ones((3, 2)), np.ones((3, 2)), np.ones((2, 2)))


def rows(count: int = 60, experts: int = 2, seed: int = 0) -> CascadeRows:
    """Each expert is better and dearer than the one before; scores tell a little."""
    rng = np.random.default_rng(seed)
    chance = np.linspace(0.5, 0.9, experts)
    right = (rng.random((count, experts)) < chance).astype(float)
    scores = np.clip(0.3 * right + 0.7 * rng.random((count, experts)), 0, 1)
    return CascadeRows(scores, right, np.tile(10.0 ** np.arange(experts), (count, 1)))


def lived(given: CascadeRows, thresholds: tuple[float, ...]) -> tuple[float, float]:
    """(quality, cost), a query at a time."""
    quality = cost = 0.0
    for scores, right, costs in zip(given.scores, given.right, given.costs, strict=True):
        for step in range(len(scores)):
            cost += costs[step]
            if step == len(scores) - 1 or scores[step] >= thresholds[step]:
                quality += right[step]
                break
    return quality / len(given.scores), cost / len(given.scores)


@pytest.mark.parametrize("experts", [2, 3, 4])
def test_the_outcome_is_that_of_every_query_in_turn(experts: int) -> None:
    given = rows(40, experts)
    for thresholds in product((0.0, 0.4, 0.6, 2.0), repeat=experts - 1):
        found = outcome(given, thresholds)
        assert (found.quality, found.cost) == pytest.approx(lived(given, thresholds))
        assert found.asked[0] == 1.0 and list(found.asked) == sorted(found.asked, reverse=True)


def test_the_cheapest_thresholds_that_keep_the_quality() -> None:
    given = rows()
    every = [float(score) for score in np.unique(given.scores[:, 0])] + [2.0]
    for target in (0.5, 0.6, 0.7, 0.8):
        found = outcome(given, fit_thresholds(given, target))
        reached = [o for o in (outcome(given, (t,)) for t in every) if o.quality >= target - 1e-12]
        assert found.quality >= target and found.cost == pytest.approx(min(o.cost for o in reached))
    with pytest.raises(UsageError, match="the best is"):
        fit_thresholds(given, 1.01)
    with pytest.raises(UsageError, match="2 to 4"):
        fit_thresholds(rows(10, 5), 0.5)


@pytest.mark.parametrize("experts", [3, 4])
def test_longer_cascades_reach_their_target_for_less_than_the_last_expert_costs(experts: int) -> None:
    given = rows(400, experts)
    always = given.right[:, -1].mean()
    found = outcome(given, fit_thresholds(given, float(always) - 0.02))
    assert found.quality >= always - 0.02 and found.cost < outcome(given, (2.0,) * (experts - 1)).cost


# --- guarantees -------------------------------------------------------------------------------------------


def test_p_values() -> None:
    assert p_value(0.0, 10, 0.1, binary=True) == pytest.approx(0.9**10)
    assert p_value(0.1, 10, 0.1, binary=True) == pytest.approx(0.9**10 + 10 * 0.1 * 0.9**9)
    assert p_value(0.5, 100, 0.1) == 1.0 and p_value(0.0, 1_000, 0.1) < 1e-9
    assert p_value(0.05, 200, 0.1, binary=True) <= p_value(0.05, 200, 0.1)  # the exact tail is sharper


@pytest.mark.parametrize("binary", [True, False])
def test_the_risk_is_above_epsilon_in_at_most_delta_of_the_draws(binary: bool) -> None:
    """Losses are likelier at low scores; the true risk of a threshold is known, 1,000 draws of 400 rows."""
    rng, epsilon, delta, broken, kept = np.random.default_rng(0), 0.1, 0.1, 0, 0
    for _ in range(1_000):
        scores = rng.random(400)
        losses = (rng.random(400) < 1 - scores).astype(float)
        if not binary:
            losses *= 0.999
        threshold = risk_threshold(scores, losses, epsilon, delta, steps=50)
        if threshold is not None:
            kept += 1
            broken += (1 - threshold) ** 2 / 2 > epsilon  # the mean loss of what is kept, over all
    assert kept > 950 and 0 < broken <= 1.3 * delta * 1_000 if binary else broken <= delta * 1_000


def test_what_is_not_safe_is_not_kept() -> None:
    assert risk_threshold(np.ones(100), np.ones(100), 0.1, 0.1) is None
    assert risk_threshold(np.linspace(0, 1, 1_000), np.zeros(1_000), 0.1, 0.1) == 0.0
    assert risk_threshold(np.array([0.5]), np.array([0.0]), 0.1, 0.01) is None  # one row proves nothing
    for scores, losses in ((np.array([2.0]), np.array([0.0])), (np.array([0.5]), np.array([-1.0]))):
        with pytest.raises(UsageError):
            risk_threshold(scores, losses, 0.1, 0.1)
    for epsilon, delta in ((0.0, 0.1), (0.1, 1.0)):
        with pytest.raises(UsageError, match="Give"):
            risk_threshold(np.ones(3), np.zeros(3), epsilon, delta)
    with pytest.raises(UsageError, match="pairs"):
        risk_threshold(np.ones(3), np.zeros(2), 0.1, 0.1)
