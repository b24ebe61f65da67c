"""More compute for hard questions, less for easy ones: an allocation for every level of difficulty.

How hard a question is, is guessed from its vector before anything is spent, by a ridge regression on what the
configurations scored that a search measured; levels are quantiles of the guesses. A knapsack over the levels
then gives each the configuration that serves the whole best within a budget *on average* a query (Snell et
al., "Scaling LLM Test-Time Compute Optimally", arXiv 2408.03314, section 3, with guessed in place of sampled
difficulty, which costs samples).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.frontier import parse_allocation, read_table
from agentmtl.compute.knapsack import solve
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.errors import UsageError
from agentmtl.schema import Allocation

Whole = NDArray[np.int64]
Real = NDArray[np.floating[Any]]  # of any precision

LEAST = 20  # questions from which difficulty is guessed
SEEN = 4  # questions of a level on which a configuration has to be measured to be given to it
_RIDGES = np.geomspace(1e-2, 1e3, 16)
_ROUNDS = 30  # of the alternating fit, which settles in a few


@dataclass(frozen=True, slots=True, eq=False)
class Difficulty:
    """Guesses from question vectors (d,) what they will score; `cuts` ascending, so that level 0 is the
    hardest. `explained`: the share of the variance that guesses for left-out questions explained."""

    weights: Floats
    bias: float
    cuts: tuple[float, ...]
    explained: float = 0.0

    def expected(self, vectors: Real) -> Floats:
        """What questions (n, d) score beyond the mean, (n,)."""
        guessed: Floats = np.asarray(vectors, np.float64) @ self.weights + self.bias
        return guessed

    def level(self, vector: Real) -> int:
        return int(np.searchsorted(self.cuts, self.expected(vector), "right"))


@dataclass(frozen=True, slots=True, eq=False)
class ByDifficulty:
    """An allocation a level, the hardest first; `cost` and `quality` are expected means over queries.
    `encoder`: the weights of the encoder whose vectors the guesses read."""

    difficulty: Difficulty
    allocations: tuple[Allocation, ...]
    cost: float
    quality: float
    encoder: str = ""

    def level(self, vector: Real) -> int:
        """The place of the allocation for a question, given its vector (d,)."""
        return self.difficulty.level(vector)

    def to_json(self) -> dict[str, Any]:
        told = self.difficulty
        return {
            "encoder": self.encoder, "cost": self.cost, "quality": self.quality,
            "explained": told.explained, "bias": told.bias,
            "cuts": list(told.cuts), "weights": [float(f"{w:.6g}") for w in told.weights],
            "levels": [one.to_json() for one in self.allocations],
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> ByDifficulty:
        """Raises KeyError, TypeError and ValueError where it is none."""
        numbers = {name: float(told[name]) for name in ("bias", "explained", "cost", "quality")}
        weights = np.array([float(w) for w in told["weights"]])
        cuts = tuple(float(cut) for cut in told["cuts"])
        allocations = tuple(parse_allocation(one) for one in told["levels"])
        finite = np.isfinite([*numbers.values(), *weights, *cuts]).all()
        if not finite or list(cuts) != sorted(cuts) or len(allocations) != len(cuts) + 1:
            raise ValueError("levels and cuts do not belong together")
        difficulty = Difficulty(weights, numbers["bias"], cuts, numbers["explained"])
        return cls(difficulty, allocations, numbers["cost"], numbers["quality"], str(told["encoder"]))


def read_by_difficulty(path: Path) -> ByDifficulty | None:
    """Of an allocation file; None where it has none. Raises UsageError for another file, or damaged ones."""
    told = read_table(path).get("difficulty")
    if told is None:
        return None
    try:
        return ByDifficulty.from_json(told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} has no allocations by difficulty that hold together: {error}.",
            "Make it again: agentmtl tune --average.",
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Scores (configurations, questions; NaN: not measured) as quality + ease + what is left of them."""

    qualities: Floats
    ease: Floats
    rest: Floats

    @classmethod
    def of(cls, scores: Floats) -> Effects:
        """Least squares in turn, the ease of a question shrunk by one look's worth."""
        seen = ~np.isnan(scores)
        known = np.where(seen, scores, 0.0)
        ease, qualities = np.zeros(scores.shape[1]), np.zeros(scores.shape[0])
        for _ in range(_ROUNDS):
            left = known - seen * ease
            qualities = left.sum(1) / np.maximum(seen.sum(1), 1)
            ease = (known - seen * qualities[:, None]).sum(0) / (seen.sum(0) + 1)
            ease -= ease.mean()
        return cls(qualities, ease, scores - qualities[:, None] - ease)


def by_difficulty(
    space: Space,
    runs: Mapping[tuple[Choice, int], float],
    vectors: Real,
    budget: float,
    levels: int = 3,
    encoder: str = "",
) -> ByDifficulty:
    """The allocations from what was measured: `runs` maps (configuration, question) to a score of 0 to 1,
    `vectors` (n, d) are those of all questions. `budget`: on average a query, in the pipeline's unit.

    Raises UsageError for fewer than 20 measured questions, less than two levels, a budget below what every
    level costs at least, or where no configuration was measured on four questions of every level.
    """
    if levels < 2:
        raise UsageError(f"{levels} levels tell nothing apart.", "Give 2 or more.")
    choices, scores = _table(runs, len(vectors))
    found = Effects.of(scores)
    measured = np.flatnonzero(~np.isnan(scores).all(0))
    if measured.size < LEAST:
        raise UsageError(
            f"Difficulty cannot be learned from {measured.size} questions.", f"Give at least {LEAST}."
        )
    difficulty, guesses = fit_difficulty(
        np.asarray(vectors[measured], np.float64), found.ease[measured], levels
    )
    placed = np.full(len(vectors), -1)
    placed[measured] = np.searchsorted(difficulty.cuts, guesses, "right")
    values, counts = level_qualities(found, placed, levels)
    chosen = _chosen(space, choices, difficulty, values, counts, placed, budget)
    return replace(chosen, encoder=encoder)


def fit_difficulty(vectors: Floats, ease: Floats, levels: int) -> tuple[Difficulty, Floats]:
    """The regression, and its guesses (n,) of each question from the others, at whose quantiles the levels
    are cut. The ridge is the one of the least error on left-out questions (in closed form)."""
    centre, mean = vectors.mean(0), float(ease.mean())
    inputs, wanted = vectors - centre, ease - mean
    left, sizes, right = np.linalg.svd(inputs, full_matrices=False)
    inner = left.T @ wanted

    def wrong(ridge: float) -> Floats:
        """How far each guess from the others is off."""
        shrunk = sizes**2 / (sizes**2 + ridge)
        lever = (left**2) @ shrunk + 1 / len(ease)
        off: Floats = (wanted - left @ (shrunk * inner)) / np.maximum(1 - lever, 1e-6)
        return off

    ridge = min(_RIDGES.tolist(), key=lambda one: float((wrong(one) ** 2).sum()))
    off = wrong(ridge)
    weights = right.T @ (sizes / (sizes**2 + ridge) * inner)
    guesses = wanted - off + mean
    explained = 1 - float(off @ off) / (float(wanted @ wanted) or 1.0)
    cuts = tuple(np.quantile(guesses, np.arange(1, levels) / levels).tolist())
    return Difficulty(weights, mean - float(centre @ weights), cuts, explained), guesses


def level_qualities(found: Effects, placed: Whole, levels: int) -> tuple[Floats, Whole]:
    """What every configuration is worth at every level, (levels, configurations), and on how many questions
    it was measured there. What a configuration scores beyond quality and ease is shrunk by how much of such
    differences is noise, its quality likewise, so that the luckiest of many is not taken for the best."""
    seen = ~np.isnan(found.rest)
    noise = float(np.nanmean(found.rest**2))
    quality = _shrunk(found.qualities, noise / np.maximum(seen.sum(1), 1))
    groups = [np.flatnonzero(placed == level) for level in range(levels)]
    counts = np.array([seen[:, group].sum(1) for group in groups])
    total = np.array([np.nansum(found.rest[:, group], 1) for group in groups])
    beyond = total / np.maximum(counts, 1)
    variances = np.where(counts > 0, noise / np.maximum(counts, 1), np.inf)
    real = float(np.mean((beyond**2 - variances)[counts > 0])) if (counts > 0).any() else 0.0
    kept = beyond * max(real, 0.0) / (max(real, 0.0) + variances)
    ease = np.array([found.ease[group].mean() if group.size else 0.0 for group in groups])
    return quality + ease[:, None] + kept, counts


def _shrunk(values: Floats, variances: Floats) -> Floats:
    """Towards their mean, by the share of their spread that is noise."""
    mean = float(values.mean())
    real = max(float(np.var(values) - variances.mean()), 1e-12)
    shrunk: Floats = mean + (values - mean) * real / (real + variances)
    return shrunk


def _table(runs: Mapping[tuple[Choice, int], float], questions: int) -> tuple[list[Choice], Floats]:
    choices = sorted({choice for choice, _ in runs})
    places = {choice: n for n, choice in enumerate(choices)}
    scores = np.full((len(choices), questions), np.nan)
    for (choice, question), score in runs.items():
        scores[places[choice], question] = score
    return choices, scores


def _chosen(
    space: Space,
    choices: Sequence[Choice],
    difficulty: Difficulty,
    values: Floats,
    counts: Whole,
    placed: Whole,
    budget: float,
) -> ByDifficulty:
    costs = np.array([space.cost(choice) for choice in choices])
    share = np.array([(placed == level).sum() for level in range(len(values))]) / (placed >= 0).sum()
    options = [np.flatnonzero(count >= min(SEEN, count.max())) for count in counts]
    solutions = solve(
        [weight * costs[option] for weight, option in zip(share, options, strict=True)],
        # at least 0 each, and a sum in the end: `solve` divides by the number of stages
        [len(share) * w * v[o] for w, v, o in zip(share, values, options, strict=True)],
        "mean",
    )
    best = solutions.at(budget)
    if best < 0:
        raise UsageError(
            f"{budget:g} {space.pipeline.unit} a query on average allow nothing that was measured at every "
            f"level: the cheapest costs {solutions.costs[0]:g}.",
            "Give more, or leave levels out.",
        )
    picked = [choices[option[n]] for option, n in zip(options, solutions.choices[best], strict=True)]
    return ByDifficulty(
        difficulty, tuple(space.allocation(choice) for choice in picked),
        float(solutions.costs[best]), float(solutions.values[best]),
    )  # fmt: skip
