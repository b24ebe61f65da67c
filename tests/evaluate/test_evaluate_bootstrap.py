"""The bootstrap: reproducible, about right, paired."""

from __future__ import annotations

import numpy as np
import pytest

from agentmtl.errors import UsageError
from agentmtl.evaluate import bootstrap
from agentmtl.evaluate.bootstrap import Interval, Statistic, interval, mean_of, paired_difference


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    values = np.random.default_rng(1).random(50)
    assert interval(values, 7) == interval(values, 7)
    assert interval(values, 7) != interval(values, 8)
    assert interval(values, 7).mean == pytest.approx(values.mean())


def test_constant_values_have_no_width() -> None:
    assert interval([0.5] * 10, 0) == Interval(0.5, 0.5, 0.5)


def test_the_interval_is_about_the_normal_one() -> None:
    values = np.random.default_rng(2).normal(3, 2, 400)
    got = interval(values, 0)
    half = 1.96 * values.std() / 20
    assert got.low == pytest.approx(values.mean() - half, abs=0.05)
    assert got.high == pytest.approx(values.mean() + half, abs=0.05)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    intervals = [interval(rng.random(80), seed, resamples=400) for seed in range(200)]
    covered = sum(i.low <= 0.5 <= i.high for i in intervals)
    assert 0.88 <= covered / 200 <= 0.99


def test_a_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 5, 200)
    better = hard + 0.5 + rng.normal(0, 0.1, 200)
    difference = paired_difference(better, hard, 0)
    assert difference.excludes_zero and 0.45 < difference.low < difference.high < 0.55
    assert interval(better, 0).low < interval(hard, 0).high  # apart, they overlap
    assert not paired_difference(hard, hard, 0).excludes_zero


def test_large_samples_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(100.0)
    whole = interval(values, 5, resamples=99)
    monkeypatch.setattr(bootstrap, "_BLOCK", 700)
    assert interval(values, 5, resamples=99) == whole


def test_a_statistic_resamples_its_columns_together() -> None:
    def ratio(top: np.ndarray, bottom: np.ndarray) -> float:
        return float(top.sum() / bottom.sum()) if bottom.sum() else float("nan")

    bottom = np.array([0.0, 0, 0, 4, 8])
    got = Statistic((bottom / 4, bottom), ratio).interval(0)
    assert got == Interval(0.25, 0.25, 0.25)  # in every draw that has a value


def test_questions_without_a_value_are_left_out_of_a_mean() -> None:
    assert mean_of([1.0, float("nan"), 0.0]).value == 0.5


@pytest.mark.parametrize("values", [[], [float("nan")], [[1.0]]], ids=["none", "nan", "two dimensions"])
def test_values_that_cannot_be_resampled_are_refused(values: list[float]) -> None:
    with pytest.raises(UsageError):
        interval(values, 0)


def test_unequal_lengths_cannot_be_paired() -> None:
    with pytest.raises(UsageError, match="paired"):
        paired_difference([1.0], [1.0, 2.0], 0)
    with pytest.raises(UsageError):
        interval([1.0], 0, resamples=0)
