"""The confidence of answers: fitted on what was asked, with a threshold by precision."""

from __future__ import annotations

import numpy as np
import pytest

from agentmtl.errors import UsageError
from agentmtl.learn.asking import Asked, fit_asked, threshold_of


def test_a_confident_answer_is_right_more_often() -> None:
    rng = np.random.default_rng(0)
    worth = rng.normal(size=600)
    right = rng.random(600) < 1 / (1 + np.exp(-2 * worth))
    asked = Asked(np.stack([worth, np.zeros(600), rng.normal(size=600)], axis=1), right)
    (by_worth, _, by_place, _), threshold = fit_asked([asked])
    assert 1.5 < by_worth < 2.6 and abs(by_place) < 0.4 and 0.5 < threshold < 0.9


def test_sets_weigh_the_same_whatever_their_size() -> None:
    small = Asked(np.zeros((20, 3)), np.arange(20) % 4 == 0)
    large = Asked(np.zeros((2_000, 3)), np.arange(2_000) % 4 > 0)
    *_, bias = fit_asked([small, large])[0]
    assert abs(bias) < 0.05


def test_the_threshold_by_hand() -> None:
    sure, ones = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.ones(5)
    assert threshold_of(sure, np.array([1, 1, 1, 1, 0], bool), ones) == 0.5
    assert threshold_of(sure, np.array([1, 1, 1, 0, 0], bool), ones) == 0.7
    assert threshold_of(sure, np.zeros(5, bool), ones) == 0.9  # a fifth is less than COVERAGE, two are more


def test_answers_of_one_kind_teach_nothing() -> None:
    with pytest.raises(UsageError):
        fit_asked([Asked(np.zeros((5, 3)), np.ones(5, bool))])
