"""Predicting from few labelled examples and the texts of the labels: the arithmetic, on vectors.

A hypothesis h says how the examples of a task are to be read: by what inputs say (content), by how their
two parts relate (relation), or by both; how many examples a label's own text is worth (κ); and how much the
votes of other tasks' examples count (γ). Under each, a class is a Gaussian whose mean has a Gaussian prior,

    m_y = (Σ_{i: y_i = y} x_i + κ · g_y) / (n_y + κ)         g_y = mean of all x + a · label text, centred
    log p_h(y | x) ∝ −β · |x − m_y|² / (1 + 1 / (n_y + κ)) + γ · log p_bank(y | x)

(Murphy, "Conjugate Bayesian analysis of the Gaussian distribution", 2007, with a known isotropic variance).
Hypotheses are weighed by how well each predicts every example from the others, so that what a task's own
examples say against other tasks' experience prevails:

    p(y | x) = Σ_h w_h · p_h(y | x),        w_h ∝ π_h · exp(η · Σ_i log p_h(y_i | x_i, the others))

a, β, η and π are learned over many tasks (`agentmtl train bank`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.tokens import words

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Reals: TypeAlias = NDArray[np.floating[Any]]
Memory: TypeAlias = dict[tuple[bool, float, int, float], Floats]  # of class scores, by what they depend on

NEGATIONS = frozenset(
    ("no", "not", "never", "nobody", "nothing", "none", "neither", "nor", "without", "cannot", "t")
)
RELATIONS = 5  # numbers that say how two parts relate; the first is their cosine
_STEPS = 12  # of Newton's method
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """How a task's examples are read; see the top of this module."""

    reads: str  # content, relation, likeness (the cosine of two parts alone) or both
    shrinkage: float
    votes: float = 0.0

    @property
    def relates(self) -> bool:
        return self.reads != "content"


HYPOTHESES = (
    *(Hypothesis("content", k, votes) for votes in (0.0, 0.5, 1.0) for k in (1.0, 4.0, 16.0)),
    *(Hypothesis(reads, k) for reads in ("relation", "likeness") for k in (1.0, 4.0)),
    Hypothesis("both", 4.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BankWeights:
    """What is learned over tasks. `labels`: a; `content`, `relation`: β; `evidence`: η. Of log π: `voting`
    for each unit of γ, `relating` for what reads relations, `joint` for both, `shrinking` for each
    e-fold of κ. `choice`: of what says how an option fits, with `spread` the deviation a task may have."""

    labels: float = 0.8
    content: float = 12.0
    relation: float = 0.5
    evidence: float = 1.0
    voting: float = 0.0
    relating: float = 0.0
    joint: float = 0.0
    shrinking: float = 0.0
    choice: tuple[float, ...] = (10.0, 10.0, 0.0, 0.0)
    spread: float = 3.0

    def log_prior(self, hypotheses: Sequence[Hypothesis]) -> Floats:
        """(h,), not normalised."""
        return np.array(
            [
                self.voting * h.votes + self.relating * h.relates + self.joint * (h.reads == "both")
                + self.shrinking * np.log(h.shrinkage)
                for h in hypotheses
            ]
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Inputs: `content` (n, d); `relation` (n, 5), standardised, None where they have no two parts; `votes`
    (n, labels): log p of other tasks' examples, None without any."""

    content: Floats
    relation: Floats | None = None
    votes: Floats | None = None


def possible(shots: Points) -> tuple[Hypothesis, ...]:
    """Those that the examples of a task can be read by."""
    return tuple(
        h for h in HYPOTHESES
        if (shots.relation is not None or not h.relates) and (shots.votes is not None or not h.votes)
    )  # fmt: skip


def predict(
    points: Points, shots: Points, y: Ints, labels: Floats, weights: BankWeights, memory: Memory | None = None
) -> Floats:
    """(n, labels): p(y | x) for points, from shots with labels y (m,) whose texts' vectors are `labels`.

    `memory` makes it fast to ask the same with other weights again; it goes with one set of arguments.
    """
    hypotheses = possible(shots)
    shares = hypothesis_weights(shots, y, labels, weights, hypotheses, memory)
    found = _log_posteriors(points, shots, y, labels, weights, hypotheses, own=False, memory=memory)
    blended: Floats = np.einsum("h,hnl->nl", shares, np.exp(found))
    return blended


def hypothesis_weights(
    shots: Points,
    y: Ints,
    labels: Floats,
    weights: BankWeights,
    hypotheses: Sequence[Hypothesis],
    memory: Memory | None = None,
) -> Floats:
    """(h,): w_h."""
    found = _log_posteriors(shots, shots, y, labels, weights, hypotheses, own=True, memory=memory)
    said = found[:, np.arange(len(y)), y].sum(axis=1)
    return np.asarray(np.exp(log_softmax(weights.log_prior(hypotheses) + weights.evidence * said)))


def _log_posteriors(
    points: Points,
    shots: Points,
    y: Ints,
    labels: Floats,
    weights: BankWeights,
    hypotheses: Sequence[Hypothesis],
    own: bool,
    memory: Memory | None,
) -> Floats:
    """(h, n, labels): log p_h; with `own` points are the shots, each predicted from the others."""
    known = {} if memory is None else memory

    def content(shrinkage: float) -> Floats:
        key = (own, shrinkage, 0, weights.labels)
        if key not in known:
            prior = shots.content.mean(axis=0) + weights.labels * (labels - labels.mean(axis=0))
            known[key] = class_scores(points.content, shots.content, y, prior, shrinkage, own)
        return known[key]

    def relation(shrinkage: float, numbers: int) -> Floats:
        key = (own, shrinkage, numbers, 0.0)
        if key not in known and points.relation is not None and shots.relation is not None:
            told = shots.relation[:, :numbers]
            usual = np.repeat(told.mean(axis=0)[None], len(labels), axis=0)
            known[key] = class_scores(points.relation[:, :numbers], told, y, usual, shrinkage, own)
        return known[key]

    def scores(h: Hypothesis) -> Floats:
        found = np.zeros((len(points.content), len(labels)))
        if h.reads in ("content", "both"):
            found = found + weights.content * content(h.shrinkage)
        if h.relates:
            numbers = 1 if h.reads == "likeness" else RELATIONS
            found = found + weights.relation * relation(h.shrinkage, numbers)
        return found + h.votes * points.votes if points.votes is not None and h.votes else found

    return log_softmax(np.stack([scores(h) for h in hypotheses]))


def class_scores(
    points: Floats, shots: Floats, y: Ints, prior: Floats, shrinkage: float, own: bool
) -> Floats:
    """(n, labels): −|x − m_y|² / (1 + 1 / (n_y + κ)); with `own` points are the shots, and each is left
    out of its own class."""
    member = np.eye(len(prior))[y]
    counts, sums = member.sum(axis=0), member.T @ shots
    means = (sums + shrinkage * prior) / (counts + shrinkage)[:, None]
    squares = (points**2).sum(1)[:, None] - 2 * points @ means.T + (means**2).sum(1)
    scores: Floats = -squares / (1 + 1 / (counts + shrinkage))
    if own:
        left = counts[y] - 1 + shrinkage
        without = (sums[y] - shots + shrinkage * prior[y]) / left[:, None]
        apart = ((points - without) ** 2).sum(axis=1)
        scores[np.arange(len(y)), y] = -apart / (1 + 1 / left)
    return scores


def log_softmax(scores: Floats) -> Floats:
    """Over the last axis."""
    apart = scores - scores.max(axis=-1, keepdims=True)
    found: Floats = apart - np.log(np.exp(apart).sum(axis=-1, keepdims=True))
    return found


# --- two parts, and options -------------------------------------------------------------------------


def relations(pairs: Sequence[tuple[str, str]], first: Floats, second: Floats) -> Floats:
    """(n, 5) of texts with unit vectors (n, d) each: their cosine, the share of the words of each that the
    other has, how much longer the second is, and whether one alone denies."""
    found = np.zeros((len(pairs), RELATIONS))
    for n, (a, b) in enumerate(pairs):
        mine, other = set(words(a)), set(words(b))
        shared = len(mine & other)
        found[n] = (
            float(first[n] @ second[n]),
            shared / max(1, len(mine)),
            shared / max(1, len(other)),
            np.log((1 + len(other)) / (1 + len(mine))),
            float(bool(mine & NEGATIONS)) - float(bool(other & NEGATIONS)),
        )
    return found


def option_features(question: Reals, options: Reals, together: Reals, answered: Reals) -> Floats:
    """(options, 4), centred: cosines of an option with the question, of both together with the question, with
    the other options, and of both together with examples and their answers (m, d)."""
    others = options @ options.T
    known = (together @ answered.T).mean(axis=1) if len(answered) else np.zeros(len(options))
    found = np.stack([options @ question, together @ question, others.mean(axis=1), known], axis=1)
    return np.asarray(found - found.mean(axis=0), np.float64)


def fit_choice(
    features: Sequence[Floats], right: Sequence[int], start: Sequence[float], spread: float
) -> Floats:
    """(4,): the weights of a conditional logit with a Gaussian prior around `start`, at their likeliest
    (McFadden, "Conditional logit analysis of qualitative choice behavior", 1974)."""
    centre = np.array(start, np.float64)
    found, precision = centre.copy(), np.eye(len(centre)) / spread**2
    for _ in range(_STEPS):
        gradient, curvature = precision @ (found - centre), precision.copy()
        for own, answer in zip(features, right, strict=True):
            share = np.exp(log_softmax(own @ found))
            mean = share @ own
            gradient += mean - own[answer]
            curvature += own.T @ (share[:, None] * own) - np.outer(mean, mean)
        step = np.linalg.solve(curvature, gradient)
        found = found - step
        if np.abs(step).max() < _TINY:
            break
    return found
