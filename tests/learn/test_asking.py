"""The confidence of answers: fitted on what was asked, with a threshold by precision."""

from __future__ import annotations

import numpy as np
import pytest

from agentmtl.errors import UsageError
from agentmtl.experts.reading import Calibration
from agentmtl.learn.asking import Asked, fit_asked, fit_side, threshold_of


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


def test_yes_and_no_are_as_sure_as_they_were_right() -> None:
    apart = np.linspace(0, 4, 200)
    told = [(float(a), bool(a > 2)) for a in apart]
    sure = Calibration((0.0,) * 4, (0.0,) * 4, side=fit_side(told))
    assert sure.of_side(0.0) < 0.3 and sure.of_side(4.0) > 0.7
    guessed = fit_side([(float(a), n % 2 == 0) for n, a in enumerate(apart)])
    assert 0.4 < Calibration((0.0,) * 4, (0.0,) * 4, side=guessed).of_side(4.0) < 0.6
    assert fit_side([(1.0, True), (2.0, True)]) == (0.0, 0.0)
    assert Calibration((0.0,) * 4, (0.0,) * 4).of_side(2.0) == pytest.approx(1 / (1 + np.exp(-2.0)))
