"""Exact votes against every subset, and against urns filled by chance."""

from __future__ import annotations

from itertools import combinations
from math import exp

import numpy as np
import pytest

from agentmtl.compute.votes import BLANK, RIGHT, Prior, Tally, drawn, log_likelihood, predicted

TALLIES = [
    [RIGHT], [1], [BLANK], [RIGHT, RIGHT, 1, 1], [RIGHT, RIGHT, 1, 2, 3, BLANK], [RIGHT, 1, 2, 3, 4, 5],
    [RIGHT, RIGHT, RIGHT, 1, 1, 2, 2, 3, BLANK, BLANK], [1, 1, 2, BLANK],
]  # fmt: skip


@pytest.mark.parametrize("answers", TALLIES)
def test_drawn_is_the_mean_over_all_subsets(answers: list[int]) -> None:
    curve = drawn(Tally.of(answers), len(answers))
    for n in range(1, len(answers) + 1):
        subsets = [Tally.of(subset).won for subset in combinations(answers, n)]
        assert curve[n - 1] == pytest.approx(np.mean(subsets), abs=1e-12)


def test_a_tie_is_shared() -> None:
    assert Tally.of([RIGHT, 1, 2, BLANK]).won == pytest.approx(1 / 3)
    assert (Tally.of([BLANK]).won, Tally.of([1, 1, RIGHT]).won, Tally().won) == (0, 0, 0)


def by_chance(answers: list[int], prior: Prior, most: int, rounds: int) -> np.ndarray:
    rng, won = np.random.default_rng(5), np.zeros(most)
    tally = Tally.of(answers)
    for _ in range(rounds):
        weights = [tally.right + prior.weight * prior.right, *(c - prior.spread for c in tally.wrong)]
        blank, new = tally.blank, prior.weight * (1 - prior.right) + prior.spread * len(tally.wrong)
        votes: list[int] = []
        for n in range(most):
            shares = np.array([*weights, blank, new])
            took = int(rng.choice(len(shares), p=shares / shares.sum()))
            if took < len(weights):
                weights[took] += 1
                votes.append(took)
            elif took == len(weights):
                blank += 1
                votes.append(BLANK)
            else:
                weights.append(1 - prior.spread)
                new += prior.spread
                votes.append(len(weights) - 1)
            won[n] += Tally.of(votes).won
    return won / rounds


@pytest.mark.parametrize(
    ("answers", "prior"),
    [
        ([], Prior(0.4, 1.0, 0.5)),
        ([RIGHT, RIGHT, 1, 2], Prior(0.5, 1.0, 0.6)),
        ([RIGHT, 1, 1, BLANK], Prior(0.7, 2.0, 0.0)),
    ],
)
def test_predicted_is_the_mean_over_urns(answers: list[int], prior: Prior) -> None:
    curve = predicted(Tally.of(answers), prior, 12)
    assert np.abs(curve - by_chance(answers, prior, 12, 4000)).max() < 0.03
    assert curve[0] == pytest.approx(
        (answers.count(RIGHT) + prior.weight * prior.right) / (len(answers) + prior.weight)
    )


def test_what_comes_next_sums_to_one_and_agrees_with_the_likelihood() -> None:
    prior = Prior(0.3, 1.5, 0.4)
    tally = Tally(2, (3, 1, 1), 0)
    following = prior.next(tally)
    assert sum(p for _, p in following) == pytest.approx(1)
    expected = sum(p * predicted(after, prior, 9) for after, p in following)
    assert np.allclose(expected, predicted(tally, prior, 9))  # what is expected of the next is believed now
    numbers = [np.array(number) for number in (prior.right, prior.weight, prior.spread)]
    for after, probability in following[:1] + following[2:]:  # the second is one of several alike
        step = log_likelihood(after, *numbers) - log_likelihood(tally, *numbers)
        assert exp(step) == pytest.approx(probability / (2 if after.wrong == (3, 2, 1) else 1))
