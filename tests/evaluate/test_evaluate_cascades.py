"""A cascade beside the router alone, over made-up answers whose difficulty the vectors tell."""

from __future__ import annotations

import numpy as np
import pytest

from agentmtl.evaluate.cascades import (
    WAYS,
    Scored,
    areas,
    held_out,
    score,
    score_by_folds,
    sent,
    simulate_guarantee,
    threshold_for,
    wanted_quality,
)
from agentmtl.evaluate.routing import Prompts, fit
from agentmtl.routing.fitted import RouterSettings

SETTINGS = RouterSettings(neighbours=20, strength=1.0)


def prompts(count: int, seed: int) -> Prompts:
    """The weak expert fails on one half of the space; the strong one seldom fails."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weak = ((vectors[:, 0] > 0) ^ (rng.random(count) < 0.1)).astype(float)
    strong = (rng.random(count) < 0.9).astype(float)
    return Prompts(("x" * 20,) * count, ("s",) * count, weak, strong, vectors, np.zeros((count, 4)))


@pytest.fixture(scope="module")
def scored() -> Scored:
    return score_by_folds(prompts(600, 0), SETTINGS, 5, 0)


def test_the_thresholds_recover_what_was_wanted(scored: Scored) -> None:
    found = areas(scored)
    assert set(found) == set(WAYS) and all(found[name]["apgr"] > 0.6 for name in WAYS)
    for name in WAYS:
        threshold = threshold_for(scored, name, 0.8)
        here = sent(scored, name, threshold)
        assert here.quality.mean >= wanted_quality(scored.prompts, 0.8) - 1e-9
        assert here.recovered.mean >= 0.8 - 1e-9 and 0.2 < here.strong.mean < 0.8
        recovered, strong = held_out(scored, name, 0.8, 5, 0)
        assert recovered == pytest.approx(0.8, abs=0.15) and strong == pytest.approx(
            here.strong.mean, abs=0.1
        )


def test_unseen_prompts_are_sent_by_the_same_threshold(scored: Scored) -> None:
    judged = score(fit(scored.prompts, SETTINGS), prompts(600, 1))
    found = sent(judged, "cascade", threshold_for(scored, "cascade", 0.5))
    assert found.recovered.mean == pytest.approx(0.5, abs=0.2)
    assert sent(judged, "cascade", 0.0).strong.mean == 0.0 and sent(judged, "cascade", 2.0).strong.mean == 1.0


def test_the_guarantee_holds_over_draws(scored: Scored) -> None:
    found = simulate_guarantee(scored, 0.1, 0.1, rows=300, draws=200)
    assert found.broken <= 0.15 and 0.3 < found.kept < 1.0 and found.loss < 0.1
