"""The reward: parts by hand, weights recovered from pairs, shrinkage, pessimism, calibration, its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agentmtl.agent.reward import (
    PARTS,
    PRIOR,
    UNFITTED,
    Pair,
    Reward,
    calibrated,
    fit_reward,
    parts_of,
    shipped_reward,
)
from agentmtl.errors import UsageError
from agentmtl.schema import Candidate, Citation

QUESTION = "Where was John Harrison born?"
SENTENCE = "John Harrison was born in Foulby."
WIDTH = len(PARTS)


def candidate(text: str, sentence: str = SENTENCE, confidence: float = 0.5) -> Candidate:
    return Candidate(text, (Citation(1, "u", "s", 0, len(sentence), sentence),), confidence, "fake")


def named(row: np.ndarray) -> dict[str, float]:
    return dict(zip(PARTS, row.tolist(), strict=True))


def test_parts_by_hand() -> None:
    right = candidate("Foulby [1]")
    drawn = [right, candidate("foulby. [1]"), candidate("in 1693 [1]"), candidate("**Answer: Oslo** [1]")]
    parts = parts_of(QUESTION, drawn, judged={"foulby": 0.75})
    assert named(parts[0]) == {
        "grounded": 1.0, "supported": 0.0, "asked": 1.0, "agreement": 0.5, "confidence": 0.5, "type": 1.0,
        "length": 1.0, "format": 1.0, "judge": 0.5,
    }  # fmt: skip
    wrong = named(parts[2])
    assert wrong["grounded"] == 0.0 and wrong["type"] == -1.0 and wrong["judge"] == 0.0
    assert named(parts[3])["format"] == 0.0
    assert int(np.argmax(UNFITTED(QUESTION, drawn))) == 0 and UNFITTED(QUESTION, []) == []


def test_support_is_what_the_answer_brings_nearer_to_the_sentence() -> None:
    axes = {
        QUESTION: [0.8, 0.6], f"{QUESTION} Foulby": [0.6, 0.8], f"{QUESTION} Oslo": [1.0, 0.0],
        SENTENCE: [0.0, 1.0],
    }  # fmt: skip

    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.array([axes[text] for text in texts])

    parts = parts_of(QUESTION, [candidate("Foulby [1]"), candidate("Oslo [1]")], encode)
    assert parts[:, PARTS.index("supported")].tolist() == pytest.approx([0.2, -0.6])


def pairs(count: int, weights: np.ndarray, route: str, seed: int) -> list[Pair]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        a, b = rng.random((2, WIDTH))
        if rng.random() > 1 / (1 + np.exp(-(a - b) @ weights)):
            a, b = b, a
        found.append(Pair(a, b, route))
    return found


def along(**weights: float) -> np.ndarray:
    return np.array([weights.get(name, 0.0) for name in PARTS])


def test_weights_are_found_again_and_few_pairs_follow_the_many() -> None:
    truth, other = along(grounded=6.0, asked=3.0), along(agreement=6.0, type=3.0)
    made = [*pairs(1500, truth, "a", 1), *pairs(300, other, "b", 2), *pairs(3, other, "c", 3)]
    fitted = fit_reward(made, strength=100.0)
    mean = {route: heads.mean(axis=0) for route, heads in fitted.weights.items()}
    assert PARTS[mean["a"].argmax()] == "grounded" and PARTS[mean["b"].argmax()] == "agreement"
    assert np.abs(mean["c"] - mean[""]).max() < np.abs(mean["b"] - mean[""]).max()
    assert fitted.weights["a"].shape == (8, WIDTH)
    with pytest.raises(UsageError, match="no pairs"):
        fit_reward([])


def test_what_pairs_do_not_tell_stays_as_it_was_thought() -> None:
    """No pair has a judge: its weight is the prior's."""
    made = [Pair(pair.better * along_all_but_judge(), pair.worse * along_all_but_judge()) for pair in
            pairs(200, along(grounded=6.0), "", 4)]  # fmt: skip
    judge = PARTS.index("judge")
    assert fit_reward(made).weights[""][:, judge].tolist() == pytest.approx([PRIOR[judge]] * 8)


def along_all_but_judge() -> np.ndarray:
    return np.array([float(name != "judge") for name in PARTS])


def test_what_the_heads_disagree_on_is_worth_less() -> None:
    agreed, torn = np.zeros((4, WIDTH)), np.zeros((2, WIDTH))
    agreed[:, 0], torn[0, 0] = 2.0, 4.0
    drawn = [candidate("Foulby [1]")]
    assert Reward({"": agreed})(QUESTION, drawn) > Reward({"": torn})(QUESTION, drawn)
    trusting = [Reward({"": heads}, 0.0)(QUESTION, drawn)[0] for heads in (agreed, torn)]
    assert trusting[0] == pytest.approx(trusting[1])


def test_calibrated_it_is_the_probability_of_being_right() -> None:
    rng = np.random.default_rng(5)
    parts = rng.random((4000, WIDTH))
    odds = 3.0 * (parts @ along(grounded=1.0)) - 2.0
    right = rng.random(4000) < 1 / (1 + np.exp(-odds))
    fitted = calibrated(Reward({"": along(grounded=1.0)[None]}), parts, list(right), [""] * 4000)
    assert fitted.scale == pytest.approx(3.0, abs=0.3) and fitted.shift == pytest.approx(-2.0, abs=0.2)
    with pytest.raises(UsageError, match="all wrong"):
        calibrated(UNFITTED, parts[:5], [True] * 5, [""] * 5)


def test_a_file_gives_the_same_reward_and_another_is_refused(tmp_path: Path) -> None:
    made = fit_reward(pairs(50, along(grounded=6.0), "a", 6))
    path = tmp_path / "reward.json"
    made.save(path, {"seed": 6})
    drawn = [candidate("Foulby [1]"), candidate("Paris [1]")]
    assert Reward.load(path)(QUESTION, drawn) == pytest.approx(made(QUESTION, drawn), abs=1e-3)
    for broken in ("{}", "[]", path.read_text().replace("grounded", "ungrounded")):
        path.write_text(broken)
        with pytest.raises(UsageError, match="no reward"):
            Reward.load(path)
    assert set(shipped_reward().weights) == {"", "reader"}
