"""How good a candidate looks: capability scorers, put together for each route by pairs of better and worse.

Source of the idea: DMoERM (Quan, arXiv 2403.01197): a route picks the capabilities that count, a combiner
weighs them. Here the capabilities are cheap and need no model, and the combiner is a pairwise logistic one,
P(a ≻ b) = σ(w · (φ(a) − φ(b))), with a route's weights shrunk to those of all routes where it has few pairs.
Several combiners, each fitted on a resample of the pairs, disagree where little is known: the reward is their
mean less κ times their spread, so that more samples do not find the one that is merely odd (best-of-n against
over-optimisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.experts.answer_type import type_match
from agentmtl.experts.answers import normalise_answer, without_marks
from agentmtl.experts.support_words import FUNCTION
from agentmtl.index.tokens import words
from agentmtl.schema import Candidate

PARTS = ("grounded", "asked", "agreement", "confidence", "type", "length")
KAPPA = 1.0  # of the spread, that is taken off
_IDEAL = 5.0  # words of a short answer: longer ones lose
_SHRINK = 1.0  # penalty on the squared distance of a route's weights to those of all routes

Floats = NDArray[np.float64]


def parts_of(question: str, candidate: Candidate, drawn: Sequence[Candidate] = ()) -> Floats:
    """(len(PARTS),) of 0 to 1, but `type` of −1 to 1:

    grounded     share of the answer's words of content that stand in the sentences it cites
    asked        share of the question's words of content that stand there
    agreement    share of the candidates `drawn` that give the same answer
    confidence   the candidate's own
    type         whether it is of the kind asked for (`experts.answer_type`)
    length       1 up to five words, less for longer ones
    """
    answer = without_marks(candidate.text)
    held = frozenset(word for citation in candidate.citations for word in words(citation.sentence))
    said, asked = frozenset(words(answer)) - FUNCTION, frozenset(words(question)) - FUNCTION
    same = [normalise_answer(without_marks(one.text)) == normalise_answer(answer) for one in drawn]
    count = max(1, len(answer.split()))
    return np.array(
        [
            _share(said, held), _share(asked, held), float(np.mean(same)) if same else 0.0,
            candidate.confidence, type_match(question, answer), min(1.0, _IDEAL / count),
        ]
    )  # fmt: skip


def _share(some: frozenset[str], held: frozenset[str]) -> float:
    return len(some & held) / len(some) if some else 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Of two candidates for one question, `better` (n parts,) and `worse`, and the route that gave them."""

    better: Floats
    worse: Floats
    route: str = ""


@dataclass(frozen=True, slots=True)
class Reward:
    """`weights`: route → (heads, parts); "" those of all routes. `kappa`: how pessimistic."""

    weights: Mapping[str, Floats]
    kappa: float = KAPPA

    def __call__(self, question: str, candidate: Candidate, drawn: Sequence[Candidate] = ()) -> float:
        """σ of the heads' mean score less κ · their deviation."""
        heads = self.weights.get(candidate.expert, self.weights[""])
        scores = heads @ parts_of(question, candidate, drawn)
        odds = float(scores.mean() - self.kappa * scores.std())
        return float(1.0 / (1.0 + np.exp(-odds)))


UNFITTED = Reward({"": np.array([[2.0, 1.0, 3.0, 1.0, 0.5, 0.5]])}, kappa=0.0)


def fit_reward(pairs: Sequence[Pair], heads: int = 8, strength: float = 1.0, seed: int = 0) -> Reward:
    """Weights by pairwise logistic regression over `heads` resamples of the pairs; for a route with pairs
    of its own, shrunk to the shared ones. Raises UsageError without pairs."""
    if not pairs:
        raise UsageError("There are no pairs to learn from.", "Give answers known to be right or wrong.")
    rng = np.random.default_rng(seed)
    shared = [_fitted(_resampled(pairs, rng), strength, np.zeros(len(PARTS)), 0.0) for _ in range(heads)]
    weights = {"": np.array(shared)}
    for route in sorted({pair.route for pair in pairs} - {""}):
        mine = [pair for pair in pairs if pair.route == route]
        weights[route] = np.array(
            [_fitted(_resampled(mine, rng), strength, base, _SHRINK) for base in shared]
        )
    return Reward(weights)


def _resampled(pairs: Sequence[Pair], rng: np.random.Generator) -> Floats:
    """(n, parts) differences of a bootstrap sample."""
    chosen = rng.integers(0, len(pairs), len(pairs))
    return np.array([pairs[i].better - pairs[i].worse for i in chosen])


def _fitted(differences: Floats, strength: float, prior: Floats, shrink: float, steps: int = 50) -> Floats:
    """The weights that maximise the pairs' likelihood less a penalty for their distance to the prior
    (Newton)."""
    penalty = (1.0 / strength + shrink) * np.eye(len(prior))
    weights = prior.copy()
    for _ in range(steps):
        right = 1.0 / (1.0 + np.exp(-np.clip(differences @ weights, -30, 30)))
        gradient = differences.T @ (1.0 - right) - penalty @ (weights - prior)
        hessian = (differences * (right * (1.0 - right))[:, None]).T @ differences + penalty
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if float(np.abs(step).max()) < 1e-8:
            break
    return np.asarray(weights)
