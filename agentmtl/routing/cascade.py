"""A cascade: ask the cheap expert first, and the next one only where its answer does not look reliable.

    cascade = Cascade(("small", "big"), (0.7,))
    after = cascade.next("small", answer)        # "big", or None: the answer is kept

Source: FrugalGPT (Chen, Zaharia & Zou, arXiv 2305.05176): an ordered list of models, a score g(question,
answer) of how reliable an answer is, and a threshold a step. Here g is the calibrated confidence that an
answer carries after it was verified, or a function that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.routing.route import Floats

_GRID = {1: 2_000, 2: 60, 3: 16}  # values that are tried of each threshold, by how many there are


class Confident(Protocol):
    """What an expert proposed: a candidate or an answer."""

    @property
    def confidence(self) -> float: ...


Reliability = Callable[[str, Confident], float]  # (question, answer) → 0 to 1


def confidence_of(question: str, answer: Confident) -> float:
    """The answer's own confidence; 0 where it abstained."""
    return 0.0 if getattr(answer, "abstained", False) else answer.confidence


@dataclass(frozen=True, slots=True)
class Cascade:
    """`order`: experts, cheap first. `thresholds`: of each but the last, the reliability from which its
    answer is kept."""

    order: tuple[str, ...]
    thresholds: tuple[float, ...]
    reliability: Reliability = confidence_of

    def __post_init__(self) -> None:
        if len(set(self.order)) != len(self.order) or len(self.order) < 2:
            raise UsageError("A cascade has two or more different experts.", "Name them, cheap first.")
        if len(self.thresholds) != len(self.order) - 1:
            raise UsageError(
                f"A cascade of {len(self.order)} experts has {len(self.order) - 1} thresholds, "
                f"not {len(self.thresholds)}.",
                "Give one for each expert but the last, or fit them: fit_thresholds(rows, target)",
            )

    def next(self, expert: str, answer: Confident | None, question: str = "") -> str | None:
        """Who is to be asked after `expert`; None: its answer is kept, or nobody is left.

        `answer`: the best that it proposed, None where it proposed nothing. An expert outside the cascade is
        not followed.
        """
        if expert not in self.order[:-1]:
            return None
        step = self.order.index(expert)
        sure = answer is not None and self.reliability(question, answer) >= self.thresholds[step]
        return None if sure else self.order[step + 1]


@dataclass(frozen=True, slots=True)
class CascadeRows:
    """What was observed of every expert of a cascade in order, on the same queries: how reliable its answer
    looked, `scores` (n, experts), whether it was `right`, (n, experts) of 0 to 1, and its `costs` (n,
    experts), in any unit. The last column of `scores` is not used."""

    scores: Floats
    right: Floats
    costs: Floats

    def __post_init__(self) -> None:
        shapes = {self.scores.shape, self.right.shape, self.costs.shape}
        if len(shapes) != 1 or self.scores.ndim != 2 or self.scores.shape[1] < 2 or not len(self.scores):
            raise UsageError("The rows of a cascade have different forms.", "Give (n, experts) of each.")

    def of(self, places: Sequence[int]) -> CascadeRows:
        """Some of the queries."""
        return CascadeRows(self.scores[places], self.right[places], self.costs[places])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cascade comes to on rows: mean `quality`, mean `cost` of all experts that were asked, and the
    share of queries that each expert was asked, (experts,)."""

    quality: float
    cost: float
    asked: tuple[float, ...]


def outcome(rows: CascadeRows, thresholds: Sequence[float]) -> Outcome:
    """The rows as a cascade with these thresholds would have lived them."""
    kept, asked = _walk(rows, thresholds)
    quality = float((rows.right * kept).sum(axis=1).mean())
    return Outcome(
        quality, float((rows.costs * asked).sum(axis=1).mean()), tuple(asked.mean(axis=0).tolist())
    )


def _walk(rows: CascadeRows, thresholds: Sequence[float]) -> tuple[Floats, Floats]:
    """(n, experts) 1 where the expert's answer is kept, and where it was asked."""
    unsure = rows.scores[:, :-1] < np.asarray(thresholds, np.float64)
    asked = np.column_stack([np.ones(len(unsure)), np.cumprod(unsure, axis=1)])
    kept = asked - np.column_stack([asked[:, 1:], np.zeros(len(asked))])
    return kept, asked


def fit_thresholds(rows: CascadeRows, target: float) -> tuple[float, ...]:
    """The thresholds of the least mean cost whose mean quality on the rows is at least `target`.

    Exact for two experts where there are up to 2,000 different scores, by quantiles beyond and for three and
    four experts. Raises UsageError for more experts, or where no thresholds reach the target.
    """
    steps = rows.scores.shape[1] - 1
    if steps not in _GRID:
        raise UsageError(f"Thresholds are fitted for 2 to 4 experts, not {steps + 1}.", "Leave some out.")
    tried = [(o, t) for t in product(*_values(rows, steps)) for o in (outcome(rows, t),)]
    reached = [(o.cost, -o.quality, t) for o, t in tried if o.quality >= target - 1e-12]
    if not reached:
        best = max(o.quality for o, _ in tried)
        raise UsageError(
            f"No thresholds reach a quality of {target:.3f}; the best is {best:.3f}.", "Ask for less."
        )
    return min(reached)[2]


def _values(rows: CascadeRows, steps: int) -> list[list[float]]:
    """Of each threshold: keep everything, values of the score, keep nothing."""
    found = []
    for step in range(steps):
        scores = np.unique(rows.scores[:, step])
        if len(scores) > _GRID[steps]:
            scores = np.quantile(scores, np.linspace(0, 1, _GRID[steps]), method="lower")
        found.append([*np.unique(scores).tolist(), float(np.nextafter(scores[-1], np.inf))])
    return found
