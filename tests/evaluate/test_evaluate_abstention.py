"""Refusing what has no answer: thresholds are fitted elsewhere than they judge."""

from __future__ import annotations

import numpy as np
import pytest

from agentmtl.evaluate.abstention import abstention_metrics, best_threshold


def test_what_can_be_told_apart_is() -> None:
    answerable = np.arange(50) % 5 != 0
    found = abstention_metrics(np.where(answerable, 0.9, 0.1), answerable, 0)
    assert found == {"auroc": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_noise_is_not_mistaken_for_skill() -> None:
    """With a threshold fitted where it judges, F1 on noise would exceed that of refusing everything."""
    rng = np.random.default_rng(3)
    answerable = rng.random(400) < 0.8
    found = abstention_metrics(rng.random(400), answerable, 0)
    everything = 2 * 0.2 / 1.2
    assert 0.4 < found["auroc"] < 0.6 and found["f1"] <= everything + 0.06


def test_the_threshold_by_hand() -> None:
    scores, null = np.array([0.1, 0.2, 0.3, 0.9]), np.array([True, True, False, False])
    assert 0.2 < best_threshold(scores, null) <= 0.3
    assert best_threshold(scores, np.zeros(4, bool)) == -np.inf


@pytest.mark.parametrize("n", [2, 3])
def test_few_queries_are_no_error(n: int) -> None:
    found = abstention_metrics(np.linspace(0, 1, n), [False] + [True] * (n - 1), 0)
    assert 0 <= found["f1"] <= 1
