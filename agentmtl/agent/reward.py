"""How good a candidate looks: capability scorers, put together for each route by pairs of better and worse.

Source of the idea: DMoERM (Quan, arXiv 2403.01197): a route picks the capabilities that count, a combiner
weighs them. Here the capabilities are cheap and need no model, and the combiner is a pairwise logistic one,
P(a ≻ b) = σ(w · (φ(a) − φ(b))), with a route's weights shrunk to those of all routes where it has few pairs.
Several combiners, each fitted on a resample of the pairs, disagree where little is known: the reward is their
mean less κ times their spread, so that more samples do not find the one that is merely odd (best-of-n against
over-optimisation).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.experts.answer_type import type_match
from agentmtl.experts.answers import normalise_answer, without_marks
from agentmtl.experts.support_words import FUNCTION
from agentmtl.index.tokens import words
from agentmtl.schema import Candidate

PARTS = (
    "grounded", "supported", "asked", "agreement", "confidence", "type", "length", "format", "judge",
)  # fmt: skip
KAPPA = 1.0  # of the spread, that is taken off
FORMAT = 1  # of the file
_IDEAL = 5.0  # words of a short answer: longer ones lose
_SHRINK = 1.0  # penalty on the squared distance of a route's weights to those of all routes
_MARKUP = re.compile(r"[{}<>`|*#]|\bdocuments?\b|\banswer\s*:", re.I)

Floats = NDArray[np.float64]
Encode: TypeAlias = Callable[[Sequence[str]], NDArray[Any]]  # texts → unit vectors (n, d)


def parts_of(
    question: str,
    candidates: Sequence[Candidate],
    encode: Encode | None = None,
    judged: Mapping[str, float] | None = None,
) -> Floats:
    """(n, len(PARTS)) of 0 to 1, but `supported`, `type` and `judge` of −1 to 1:

    grounded     share of the answer's words of content that stand in the sentences it cites
    supported    how much nearer a cited sentence is to "question answer" than to the question, in cosines
                 of the trunk; 0 without one
    asked        share of the question's words of content that stand in the cited sentences
    agreement    share of the candidates that give the same answer
    confidence   the candidate's own
    type         whether it is of the kind asked for (`experts.answer_type`)
    length       1 up to five words, less for longer ones
    format       1 for plain words, 0 where there is markup or talk about documents
    judge        2 P(right) − 1 by a judge, from `judged` by the normalised answer; 0 without
    """
    answers = [without_marks(candidate.text) for candidate in candidates]
    keys = [normalise_answer(answer) for answer in answers]
    asked, supported = _content(question), _supported(question, answers, candidates, encode)
    rows = []
    for at, candidate in enumerate(candidates):
        held = frozenset(word for citation in candidate.citations for word in words(citation.sentence))
        verdict = (judged or {}).get(keys[at])
        rows.append(
            [
                _share(_content(answers[at]), held), supported[at], _share(asked, held),
                keys.count(keys[at]) / len(keys), candidate.confidence, type_match(question, answers[at]),
                min(1.0, _IDEAL / max(1, len(answers[at].split()))),
                0.0 if _MARKUP.search(answers[at]) else 1.0,
                0.0 if verdict is None else 2.0 * verdict - 1.0,
            ]
        )  # fmt: skip
    return np.array(rows, np.float64).reshape(len(candidates), len(PARTS))


def _supported(
    question: str, answers: Sequence[str], candidates: Sequence[Candidate], encode: Encode | None
) -> list[float]:
    if encode is None or not answers:
        return [0.0] * len(answers)
    claims = [f"{question} {answer}" for answer in answers]
    cited = list(dict.fromkeys(c.sentence for candidate in candidates for c in candidate.citations))
    texts = list(dict.fromkeys([question, *claims, *cited]))
    vectors = dict(zip(texts, np.asarray(encode(texts), np.float64), strict=True))
    gained = {claim: vectors[claim] - vectors[question] for claim in claims}
    return [
        max((float(gained[claim] @ vectors[c.sentence]) for c in candidate.citations), default=0.0)
        for claim, candidate in zip(claims, candidates, strict=True)
    ]


def _content(text: str) -> frozenset[str]:
    return frozenset(words(text)) - FUNCTION


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
    """`weights`: route → (heads, parts); "" those of all routes. `kappa`: how pessimistic. `scale` and
    `shift` make a probability of being right of it (Platt, 1999)."""

    weights: Mapping[str, Floats]
    kappa: float = KAPPA
    scale: float = 1.0
    shift: float = 0.0

    def __call__(
        self,
        question: str,
        candidates: Sequence[Candidate],
        encode: Encode | None = None,
        judged: Mapping[str, float] | None = None,
    ) -> list[float]:
        """For each candidate the probability that it is right: σ(scale · pessimistic + shift)."""
        if not candidates:
            return []
        parts = parts_of(question, candidates, encode, judged)
        found = [
            self.scale * self.pessimistic(row, candidate.expert) + self.shift
            for row, candidate in zip(parts, candidates, strict=True)
        ]
        return [float(1.0 / (1.0 + np.exp(-odds))) for odds in found]

    def pessimistic(self, parts: Floats, route: str) -> float:
        """The heads' mean score of parts (len(PARTS),) less κ · their deviation."""
        scores = self.weights.get(route, self.weights[""]) @ parts
        return float(scores.mean() - self.kappa * scores.std())

    def save(self, path: Path, details: Mapping[str, Any]) -> None:
        """JSON; `details` say what it was fitted on."""
        told = {
            "format": FORMAT, "parts": list(PARTS), "kappa": self.kappa, "scale": self.scale,
            "shift": self.shift, "details": dict(details),
            "weights": {route: np.round(heads, 4).tolist() for route, heads in self.weights.items()},
        }  # fmt: skip
        path.write_text(json.dumps(told, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Reward:
        """Raises UsageError where the file holds no reward of this format and these parts."""
        try:
            told = json.loads(path.read_text("utf-8"))
            if told["format"] != FORMAT or told["parts"] != list(PARTS):
                raise ValueError("of another format")
            weights = {route: np.array(heads, np.float64) for route, heads in told["weights"].items()}
            if "" not in weights or any(heads.shape[1:] != (len(PARTS),) for heads in weights.values()):
                raise ValueError("weights of another shape")
            return cls(weights, float(told["kappa"]), float(told["scale"]), float(told["shift"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path} holds no reward: {error}.", "Make one: agentmtl train reward"
            ) from error


@cache
def shipped_reward() -> Reward:
    """The one that comes with the package, fitted on answers of the embedded reader."""
    return Reward.load(Path(str(files("agentmtl.agent").joinpath("reward.json"))))


# What is thought of the parts before pairs are seen, in their order; what pairs do not tell stays so.
PRIOR = np.array([2.0, 1.0, 1.0, 3.0, 1.0, 0.5, 0.5, 0.5, 2.0])
UNFITTED = Reward({"": PRIOR[None]}, kappa=0.0)


def fit_reward(pairs: Sequence[Pair], heads: int = 8, strength: float = 1.0, seed: int = 0) -> Reward:
    """Weights by pairwise logistic regression over `heads` resamples of the pairs, shrunk to `PRIOR`; for a
    route with pairs of its own, to the shared ones. Raises UsageError without pairs."""
    if not pairs:
        raise UsageError("There are no pairs to learn from.", "Give answers known to be right or wrong.")
    rng = np.random.default_rng(seed)
    shared = [_fitted(_resampled(pairs, rng), strength, PRIOR, 0.0) for _ in range(heads)]
    weights = {"": np.array(shared)}
    for route in sorted({pair.route for pair in pairs} - {""}):
        mine = [pair for pair in pairs if pair.route == route]
        weights[route] = np.array(
            [_fitted(_resampled(mine, rng), strength, base, _SHRINK) for base in shared]
        )
    return Reward(weights)


def calibrated(reward: Reward, parts: Floats, right: Sequence[bool], routes: Sequence[str]) -> Reward:
    """The reward with scale and shift by which it is the probability of being right, over candidates with
    `parts` (n, len(PARTS)). Raises UsageError where all are right or all wrong."""
    from sklearn.linear_model import LogisticRegression

    if len(set(right)) < 2:
        raise UsageError("All answers are right, or all wrong.", "Give answers of both kinds.")
    scores = [[reward.pessimistic(row, route)] for row, route in zip(parts, routes, strict=True)]
    model = LogisticRegression(C=1e6).fit(scores, list(right))
    return replace(reward, scale=float(model.coef_[0, 0]), shift=float(model.intercept_[0]))


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
