"""More compute for hard questions: what is guessed, who gets what, the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmtl.compute.difficulty import (
    ByDifficulty,
    Effects,
    by_difficulty,
    fit_difficulty,
    level_qualities,
    read_by_difficulty,
)
from agentmtl.compute.frontier import read_allocation, write_allocation
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.errors import UsageError
from agentmtl.schema import Stage

WEAK, STRONG = (0,), (1,)
STAGE = Stage("answer", ("weak", "strong"), (1,), "majority")
SPACE = Space(Pipeline("p", (STAGE,), unit="calls", combine="end"), (np.array([[1.0], [5.0]]),))
QUESTIONS = 300


def world(seed: int = 0, helps: bool = True) -> tuple[dict[tuple[Choice, int], float], Floats]:
    """Half of the questions are hard, as a direction of their vectors says; the strong model is better on
    those alone (or, with `helps` false, on none)."""
    rng = np.random.default_rng(seed)
    hard = np.arange(QUESTIONS) % 2 == 1
    vectors = rng.normal(size=(QUESTIONS, 8)) * 0.3
    vectors[:, 0] += np.where(hard, 1.0, -1.0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    runs: dict[tuple[Choice, int], float] = {}
    for question in range(QUESTIONS):
        weak = 0.2 if hard[question] else 0.9
        strong = 0.8 if hard[question] and helps else weak
        runs[WEAK, question] = float(rng.random() < weak)
        runs[STRONG, question] = float(rng.random() < strong)
    return runs, vectors


def models(found: ByDifficulty) -> list[str]:
    return [one.of("answer").model for one in found.allocations]


@pytest.mark.parametrize("seed", range(5))
def test_the_hard_get_what_helps_them(seed: int) -> None:
    runs, vectors = world(seed)
    found = by_difficulty(SPACE, runs, vectors, 3.2, 2)
    assert models(found) == ["strong", "weak"] and found.cost <= 3.2 * (1 + 1e-9)
    assert found.difficulty.explained > 0.1
    levels = np.array([found.level(vector) for vector in vectors])
    assert (levels == np.where(np.arange(QUESTIONS) % 2 == 1, 0, 1)).mean() > 0.95
    assert found.quality == pytest.approx(0.85, abs=0.08)  # not what the luckiest draw says


def test_no_budget_is_passed_on_average() -> None:
    runs, vectors = world()
    for budget in (1.0, 1.4, 2.0, 3.0, 5.0):
        found = by_difficulty(SPACE, runs, vectors, budget, 4)
        costs = [SPACE.cost(SPACE.choice(one)) for one in found.allocations]
        levels = [found.level(vector) for vector in vectors]
        assert found.cost <= budget * (1 + 1e-9)
        assert np.mean([costs[level] for level in levels]) == pytest.approx(found.cost, rel=0.1)


def test_left_out_guesses_are_those_of_a_fit_without_the_question() -> None:
    _, vectors = world()
    vectors, ease = vectors[:30], np.random.default_rng(1).normal(size=30)
    fit, guesses = fit_difficulty(vectors, ease, 3)
    assert fit.cuts == tuple(sorted(fit.cuts))
    # the ridge is among those tried: find it by the whole fit, then leave one out by hand
    centred, wanted = vectors - vectors.mean(0), ease - ease.mean()
    tried = np.geomspace(1e-2, 1e3, 16)
    whole = [np.linalg.solve(centred.T @ centred + r * np.eye(8), centred.T @ wanted) for r in tried]
    ridge = tried[int(np.argmin([np.abs(w - fit.weights).max() for w in whole]))]
    kept = np.arange(30) != 7
    centre, mean = vectors[kept].mean(0), ease[kept].mean()
    inputs = vectors[kept] - centre
    alone = np.linalg.solve(inputs.T @ inputs + ridge * np.eye(8), inputs.T @ (ease[kept] - mean))
    assert guesses[7] == pytest.approx(mean + (vectors[7] - centre) @ alone, abs=1e-9)


def test_noise_explains_nothing_and_tells_no_configurations_apart() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.random((6, 90)) < 0.5).astype(float)
    found = Effects.of(scores)
    values, counts = level_qualities(found, np.arange(90) % 3, 3)
    assert counts.tolist() == [[30] * 6] * 3
    raw = np.array([scores[:, np.arange(90) % 3 == level].mean(1) for level in range(3)])
    assert np.ptp(values, axis=1).max() < 0.1 < np.ptp(raw, axis=1).max()


def test_effects_fit_what_was_not_measured() -> None:
    rng = np.random.default_rng(0)
    quality, ease = np.array([0.3, 0.5, 0.7]), np.where(np.arange(200) % 2, 0.2, -0.2)
    scores = quality[:, None] + ease
    scores[0, :100] = np.nan
    scores[1, rng.permutation(200)[:60]] = np.nan
    found = Effects.of(scores)
    assert found.qualities - found.qualities[2] == pytest.approx(quality - quality[2], abs=0.02)


def test_the_file_holds_it(tmp_path: Path) -> None:
    runs, vectors = world()
    found = by_difficulty(SPACE, runs, vectors, 3.0, 3, "encoder:1")
    path = tmp_path / "allocation.toml"
    write_allocation(path, found.allocations[0], None, found.to_json())
    again = read_by_difficulty(path)
    assert again is not None and again.allocations == found.allocations and again.encoder == "encoder:1"
    assert [again.level(v) for v in vectors] == [found.level(v) for v in vectors]
    assert read_allocation(path)[0] == found.allocations[0]
    write_allocation(path, found.allocations[0])
    assert read_by_difficulty(path) is None


@pytest.mark.parametrize(
    "wrong", [{"cuts": [1.0, 0.0]}, {"cuts": []}, {"weights": ["x"]}, {"bias": float("nan")}, {"levels": {}}]
)
def test_a_damaged_file_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    runs, vectors = world()
    found = by_difficulty(SPACE, runs, vectors, 3.0, 3)
    path = tmp_path / "allocation.toml"
    write_allocation(path, found.allocations[0], None, {**found.to_json(), **wrong})
    with pytest.raises(UsageError, match="hold together"):
        read_by_difficulty(path)


def test_what_cannot_be_learned_is_refused() -> None:
    runs, vectors = world()
    with pytest.raises(UsageError, match="2 or more"):
        by_difficulty(SPACE, runs, vectors, 3.0, 1)
    few = {key: score for key, score in runs.items() if key[1] < 10}
    with pytest.raises(UsageError, match="20"):
        by_difficulty(SPACE, few, vectors, 3.0)
    with pytest.raises(UsageError, match="cheapest costs 1"):
        by_difficulty(SPACE, runs, vectors, 0.5)
