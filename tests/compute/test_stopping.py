"""Stopping rules: what they promise, against draws by chance."""

from __future__ import annotations

import numpy as np
import pytest

from agentmtl.compute.stopping import (
    Adaptive,
    Fixed,
    Limit,
    Overtaken,
    Rule,
    Unanimous,
    Votes,
    should_stop,
    stopped,
)
from agentmtl.compute.votes import BLANK
from agentmtl.errors import UsageError


def drawn(rule: Rule, answers: list[int]) -> int:
    return int(stopped(rule, Votes.of(np.array([answers])))[0])


def test_fixed_draws_what_it_says() -> None:
    assert drawn(Fixed(5), [0] * 8) == 5
    assert drawn(Fixed(5), [0] * 3) == 4  # it would go on


def test_adaptive_needs_three_or_four_that_agree() -> None:
    assert drawn(Adaptive(16, 0.9), [0] * 16) == 3
    assert drawn(Adaptive(16, 0.95), [0] * 16) == 4
    assert drawn(Adaptive(16, 0.95), [0, 1] * 8) == 16


def test_unanimous_windows() -> None:
    assert drawn(Unanimous(16, 4), [0, 0, 1, 0, 2, 2, 2, 2, *[0] * 8]) == 8
    assert drawn(Unanimous(8, 4), [BLANK] * 8) == 8


def test_a_lead_that_cannot_be_made_up_ends_the_vote() -> None:
    assert drawn(Overtaken(8, 0.0), [0] * 8) == 5
    assert drawn(Overtaken(8, 0.0), [0, 1, 0, 1, 0, 0, 0, 1]) == 7
    assert drawn(Overtaken(64, 0.1), [0] * 64) <= 4


def test_should_stop_as_answers_come() -> None:
    rule = Overtaken(8, 0.0)
    assert [should_stop(rule, [0] * n) for n in range(1, 9)] == [False] * 4 + [True] * 4
    with pytest.raises(UsageError):
        should_stop(rule, [])


@pytest.mark.parametrize("doubt", [0.02, 0.1, 0.2])
def test_the_answer_changes_no_more_often_than_promised(doubt: float) -> None:
    """Under the prior: the share of the first of two answers is uniform."""
    rng, most = np.random.default_rng(3), 32
    answers = (rng.random((20_000, most)) < rng.random((20_000, 1))).astype(np.int64)
    votes = Votes.of(answers)
    rule = Overtaken(most, doubt)
    at = stopped(rule, votes) - 1
    rows = np.arange(len(answers))
    early, final = votes.right[rows, at], votes.right[:, -1]
    changed = np.abs(early - final).mean()  # a tie counts half
    assert changed <= doubt + 0.005
    assert (at + 1).mean() < most * 0.7


def test_a_limit_takes_the_vote_and_the_rest_of_the_tokens() -> None:
    answers, tokens = Limit(100).apply(np.array([[0, 1]]), np.array([[50, 150]]))
    assert answers.tolist() == [[0, BLANK]] and tokens.tolist() == [[50, 100]]
    same = Limit().apply(np.array([[0, 1]]), np.array([[50, 150]]))
    assert same[0].tolist() == [[0, 1]] and same[1].tolist() == [[50, 150]]


def test_votes_count_leads_and_share_ties() -> None:
    votes = Votes.of(np.array([[0, 1, 1, BLANK, 0]]))
    assert votes.first.tolist() == [[1, 1, 2, 2, 2]] and votes.second.tolist() == [[0, 1, 1, 1, 2]]
    assert votes.right.tolist() == [[1, 0.5, 0, 0, 0.5]]
