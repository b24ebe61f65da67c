"""The reward: parts by hand, weights recovered from pairs, shrinkage and pessimism."""

from __future__ import annotations

import numpy as np
import pytest

from agentmtl.agent.reward import PARTS, UNFITTED, Pair, fit_reward, parts_of
from agentmtl.errors import UsageError
from agentmtl.schema import Candidate, Citation

QUESTION = "Where was John Harrison born?"


SENTENCE = "John Harrison was born in Foulby."


def candidate(text: str, sentence: str = SENTENCE, confidence: float = 0.5) -> Candidate:
    return Candidate(text, (Citation(1, "u", "s", 0, len(sentence), sentence),), confidence, "fake")


def test_parts_by_hand() -> None:
    right = candidate("Foulby [1]")
    drawn = [right, candidate("foulby. [1]"), candidate("Paris [1]"), candidate("Oslo [1]")]
    parts = dict(zip(PARTS, parts_of(QUESTION, right, drawn).tolist(), strict=True))
    assert parts == {
        "grounded": 1.0, "asked": 1.0, "agreement": 0.5, "confidence": 0.5, "type": 1.0, "length": 1.0,
    }  # fmt: skip
    wrong = dict(zip(PARTS, parts_of(QUESTION, candidate("in 1693 [1]"), drawn).tolist(), strict=True))
    assert wrong["grounded"] == 0.0 and wrong["type"] == -1.0
    assert UNFITTED(QUESTION, right, drawn) > UNFITTED(QUESTION, candidate("Paris [1]"), drawn)


def pairs(count: int, weights: np.ndarray, route: str, seed: int) -> list[Pair]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        a, b = rng.random((2, len(PARTS)))
        if rng.random() > 1 / (1 + np.exp(-(a - b) @ weights)):
            a, b = b, a
        found.append(Pair(a, b, route))
    return found


def test_weights_are_found_again_and_few_pairs_follow_the_many() -> None:
    truth, other = np.array([6.0, 0, 3, 0, 0, 0]), np.array([0, 0, 0, 6.0, 0, 3])
    made = [*pairs(1500, truth, "a", 1), *pairs(300, other, "b", 2), *pairs(3, other, "c", 3)]
    fitted = fit_reward(made, strength=100.0)
    mean = {route: heads.mean(axis=0) for route, heads in fitted.weights.items()}
    assert mean["a"].argmax() == 0 and mean["b"].argmax() == 3
    assert np.abs(mean["c"] - mean[""]).max() < np.abs(mean["b"] - mean[""]).max()
    assert fitted.weights["a"].shape == (8, len(PARTS))
    with pytest.raises(UsageError, match="no pairs"):
        fit_reward([])


def test_what_the_heads_disagree_on_is_worth_less() -> None:
    from agentmtl.agent.reward import Reward

    agreed, torn = np.zeros((4, 6)), np.zeros((2, 6))
    agreed[:, 0], torn[0, 0] = 2.0, 4.0
    right = candidate("Foulby [1]")
    assert Reward({"": agreed})(QUESTION, right) > Reward({"": torn})(QUESTION, right)
    trusting = [Reward({"": heads}, 0.0)(QUESTION, right) for heads in (agreed, torn)]
    assert trusting[0] == pytest.approx(trusting[1])
