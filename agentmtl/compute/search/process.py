"""A Gaussian process over configurations that were looked at on a few questions each.

What configuration c scores on question q is taken to be

    level + quality(c) + difficulty(q) + taste(c, q) + noise

where quality is a sum of one effect a stage, one of all stages together and one of the configuration's own.
The first two, and a question's taste, are the smoother the nearer two numbers of samples are (in their
logarithm) and the more alike for two models: configurations that differ little say much the same to the same
question, and are told apart by few questions; ten looks at ten like configurations are not ten looks. All but
quality is integrated out. How much there is of each is chosen by the marginal likelihood.

Draws: Wilson et al., "Efficiently sampling functions from Gaussian process posteriors", 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.space import Floats

Ints: TypeAlias = NDArray[np.int64]

_VALUES: dict[str, tuple[Any, ...]] = {
    "length": (0.35, 0.7, 1.5, 3.0),
    "alike": (0.3, 0.7),
    "taste": ((0.3, 0.1), (0.3, 0.4), (0.6, 0.1), (0.6, 0.3), (0.75, 0.2)),
    "spread": (0.01, 0.03, 0.1),
    "together": (0.1, 0.5, 0.9),
    "own": (0.05, 0.3, 0.7),
}


@dataclass(frozen=True, slots=True)
class Form:
    """What kind of process: `length` of the logarithm of samples over which options are alike, correlation
    `alike` of two models, the shares (difficulty, taste) of what scores vary within configurations, the
    `spread` of qualities as a share of the variance of scores, and in it the shares of the stages `together`
    and of each configuration's `own`."""

    length: float = 0.7
    alike: float = 0.3
    taste: tuple[float, float] = (0.6, 0.3)
    spread: float = 0.03
    together: float = 0.5
    own: float = 0.3


class Grid:
    """All choices. `numbers`: (choices, stages) options; `grids`: of each stage the samples, and how many
    models."""

    def __init__(self, numbers: Ints, grids: Sequence[tuple[tuple[int, ...], int]]) -> None:
        self.numbers, self._grids = numbers, grids
        self._known: dict[tuple[float, float], list[Floats]] = {}

    def kernels(self, form: Form) -> list[Floats]:
        """Correlations of the options, one matrix a stage."""
        key = form.length, form.alike
        if key not in self._known:
            self._known[key] = [_stage_kernel(*grid, *key) for grid in self._grids]
        return self._known[key]


def _stage_kernel(samples: tuple[int, ...], models: int, length: float, alike: float) -> Floats:
    logs = np.log1p(np.array(samples, float))
    near = np.exp(-0.5 * ((logs[:, None] - logs) / length) ** 2)
    kernel: Floats = np.kron(np.where(np.eye(models, dtype=bool), 1.0, alike), near)
    return kernel


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What was measured: the places of the configurations `seen`, and their scores by question around their
    mean, (seen, questions), NaN where a question was not asked. `patterns`: configurations and the questions
    that exactly they were asked."""

    seen: list[int]
    rest: Floats
    level: float
    variance: float
    patterns: list[tuple[Ints, Ints]]

    @classmethod
    def of(cls, seen: list[int], table: Floats) -> Scores:
        level, asked = float(np.nanmean(table)), ~np.isnan(table)
        found: dict[bytes, list[int]] = {}
        for question in np.flatnonzero(asked.any(0)).tolist():
            found.setdefault(asked[:, question].tobytes(), []).append(question)
        patterns = [(np.flatnonzero(asked[:, part[0]]), np.array(part)) for part in found.values()]
        spread = max(float(np.nanmean((table - level) ** 2)), 1e-6)
        return cls(seen, table - level, level, spread, patterns)


class Process:
    """The process of a form, given scores."""

    def __init__(self, grid: Grid, form: Form, scores: Scores) -> None:
        self._numbers, self._kernels, self._form, self._scores = (
            grid.numbers,
            grid.kernels(form),
            form,
            scores,
        )
        seen = scores.seen
        parts = [k[self._numbers[:, s]][:, self._numbers[seen, s]] for s, k in enumerate(self._kernels)]
        joint = np.prod(parts, axis=0)
        mixed = (1 - form.together) * np.mean(parts, axis=0) + form.together * joint
        mixed *= 1 - form.own
        mixed[seen, np.arange(len(seen))] += form.own
        self._variance = form.spread * scores.variance
        self._cross = self._variance * mixed  # (choices, seen)
        self._precision, self._pull, self._apart = _likelihood(scores, joint[seen], *form.taste)
        self._system = np.eye(len(seen)) + self._precision @ self._cross[seen]

    @property
    def evidence(self) -> float:
        """The logarithm of the marginal likelihood, but for a constant."""
        _, logdet = np.linalg.slogdet(self._system)
        moved = self._cross[self._scores.seen] @ np.linalg.solve(self._system, self._pull)
        return float(self._apart + 0.5 * (self._pull @ moved - logdet))

    @property
    def mean(self) -> Floats:
        """(choices,)"""
        mean: Floats = self._scores.level + self._cross @ np.linalg.solve(self._system, self._pull)
        return mean

    @property
    def deviation(self) -> Floats:
        """(choices,)"""
        known = self._cross @ np.linalg.solve(self._system, self._precision)
        left = self._variance - (known * self._cross).sum(1)
        deviation: Floats = np.sqrt(np.maximum(left, 1e-12))
        return deviation

    @property
    def sampling(self) -> float:
        """The variance that a mean over these questions has for being over these and not others like them."""
        asked = int((~np.isnan(self._scores.rest)).any(0).sum())
        return self._scores.variance * sum(self._form.taste) / asked

    def draws(self, rng: np.random.Generator, count: int) -> Floats:
        """(count, choices) qualities drawn from the posterior: draws of the prior, moved to what was seen."""
        prior = self._prior(rng, count)
        noise = rng.standard_normal((count, len(self._scores.seen))) @ self._root.T
        told = prior[:, self._scores.seen] @ self._precision.T + noise
        moved = np.linalg.solve(self._system, (self._pull - told).T)
        drawn: Floats = self._scores.level + prior + (self._cross @ moved).T
        return drawn

    @cached_property
    def _root(self) -> Floats:
        """Of the precision."""
        least = 1e-9 * float(np.trace(self._precision)) / len(self._precision)
        root = np.linalg.cholesky(self._precision + least * np.eye(len(self._precision)))
        return np.asarray(root, np.float64)

    def _prior(self, rng: np.random.Generator, count: int) -> Floats:
        """(count, choices)"""
        form, roots = self._form, [np.linalg.cholesky(k + 1e-9 * np.eye(len(k))) for k in self._kernels]
        grid = rng.standard_normal([count, *(len(root) for root in roots)])
        for axis, root in enumerate(roots, 1):
            grid = np.moveaxis(np.tensordot(root, grid, axes=(1, axis)), 0, axis)
        drawn = np.sqrt(form.together) * grid[(slice(None), *self._numbers.T)]
        share = np.sqrt((1 - form.together) / len(roots))
        for stage, root in enumerate(roots):
            effect = rng.standard_normal((count, len(root))) @ root.T
            drawn += share * effect[:, self._numbers[:, stage]]
        drawn = np.sqrt(1 - form.own) * drawn + np.sqrt(form.own) * rng.standard_normal(drawn.shape)
        prior: Floats = np.sqrt(self._variance) * drawn
        return prior


def _likelihood(
    scores: Scores, alike: Floats, difficulty: float, taste: float
) -> tuple[Floats, Floats, float]:
    """Of the qualities of the configurations seen: its precision, its product with the values, and the
    likelihood where all were 0. `alike`: (seen, seen) correlations of taste."""
    precision, pull, apart = np.zeros(alike.shape), np.zeros(len(alike)), 0.0
    noise = 1 - difficulty - taste
    for rows, questions in scores.patterns:
        block = np.ix_(rows, rows)
        covariance = scores.variance * (difficulty + taste * alike[block] + noise * np.eye(len(rows)))
        inverse, values = np.linalg.inv(covariance), scores.rest[np.ix_(rows, questions)]
        weighted = inverse @ values
        precision[block] += len(questions) * inverse
        pull[rows] += weighted.sum(1)
        apart -= 0.5 * (float((values * weighted).sum()) + len(questions) * np.linalg.slogdet(covariance)[1])
    return precision, pull, apart


def fitted(grid: Grid, form: Form, scores: Scores) -> Form:
    """The form of the highest marginal likelihood, one of its numbers after the other."""
    best = Process(grid, form, scores).evidence
    for one, values in zip(fields(Form), _VALUES.values(), strict=True):
        for value in values:
            other = replace(form, **{one.name: value})
            if other != form:
                evidence = Process(grid, other, scores).evidence
                form, best = (other, evidence) if evidence > best else (form, best)
    return form
