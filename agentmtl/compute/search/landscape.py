"""For pipelines that are only measured as a whole: a Gaussian process over configurations, and racing.

A configuration's quality is taken to be a sum of one effect a stage and one of all stages together, each the
smoother the nearer two numbers of samples are (in their logarithm) and the more alike for two models; how
smooth and how much, that is fitted by the marginal likelihood. Questions differ in difficulty, so every score
is taken against the mean of its question (paired), and noise is what is left.

A draw of all qualities (Thompson sampling; Wilson et al., "Efficiently sampling functions from Gaussian
process posteriors", 2020) names the best configuration within each budget asked for. It is measured on a few
questions, and if later draws name it again on twice as many, and so on: what cannot win is stopped early. The
posterior mean recommends.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.search.base import Recommendation, Setup, Z
from agentmtl.compute.space import Floats
from agentmtl.errors import UsageError

Ints: TypeAlias = NDArray[np.int64]

MOST = 20_000  # configurations
FIRST = 8  # questions of a first look
TIED, SURE, DRAWS = 0.005, 0.9, 200
_LENGTHS = (0.7, 1.5, 3.0)  # of the logarithm of samples
_ALIKE = (0.3, 0.7)  # correlation of two models
_TOGETHER = (0.1, 0.5)  # the share of the interaction in the variance


class LandscapeSearch:
    """Raises UsageError for a pipeline whose stages are measured apart, or for more than 20,000
    configurations within the largest budget."""

    def __init__(self, setup: Setup) -> None:
        if setup.space.pipeline.combine != "end":
            raise UsageError(
                f"The stages of {setup.space.pipeline.name!r} are measured apart.", "Use --method racing."
            )
        self._space, self._setup, self._rng = setup.space, setup, setup.rng
        every = product(*(range(cost.size) for cost in setup.space.costs))
        self._choices = [c for c in every if setup.space.cost(c) <= max(setup.budgets) * (1 + 1e-9)]
        if len(self._choices) > MOST:
            raise UsageError(
                f"{len(self._choices):,} configurations are too many to model.", "Use --method tpe."
            )
        self._costs = np.array([setup.space.cost(c) for c in self._choices])
        self._order = [int(q) for q in self._rng.permutation(setup.questions)]
        self._numbers = np.array(self._choices, np.int64)
        self._seen: dict[int, dict[int, float]] = {}  # scores of a configuration by question
        self._kernels = {
            shape: [_stage_kernel(s.samples, len(s.models), *shape) for s in setup.space.stages]
            for shape in product(_LENGTHS, _ALIKE)
        }
        self._queue = self._start()

    def ask(self, left: float) -> Trial | None:
        while True:
            if not self._queue:
                self._queue = self._next()
            if not self._queue:
                return None
            place = self._queue.pop(0)
            had = len(self._seen.get(place, ()))
            if had < self._setup.questions:
                wanted = min(max(2 * had, FIRST), self._setup.questions)
                return Trial(self._choices[place], tuple(self._order[:wanted]))

    def tell(self, result: Result) -> None:
        assert isinstance(result.proposal, Trial)
        place = self._choices.index(result.proposal.choice)
        questions = result.proposal.questions or tuple(range(self._setup.questions))
        self._seen[place] = dict(zip(questions, result.scores, strict=True))

    def recommend(self, budget: float) -> Recommendation:
        self._space.check_budget(budget)
        inside = self._within(budget)
        model = self._fitted()
        mean, spread = model.mean, Z * model.deviation
        best = int(inside[mean[inside].argmax()])
        rng = np.random.default_rng(self._setup.seed)
        draws = np.array([model.draw(rng) for _ in range(DRAWS)])
        close = draws[:, inside] >= draws[:, [best]] - TIED * max(mean[best], 1e-9)
        order = sorted({*inside[close.mean(0) >= SURE].tolist(), best}, key=lambda p: self._costs[p])
        chosen = order[0]
        low, high = max(mean[chosen] - spread[chosen], 0.0), min(mean[chosen] + spread[chosen], 1.0)
        tied = tuple(self._choices[p] for p in order)
        quality = float(np.clip(mean[chosen], low, high))
        return Recommendation(self._choices[chosen], quality, float(low), float(high), tied)

    def _within(self, budget: float) -> Ints:
        return np.flatnonzero(self._costs <= budget * (1 + 1e-9))

    # --- what to measure next ---------------------------------------------------------------------------

    def _start(self) -> list[int]:
        """A few configurations far apart: the dearest within each budget, and what chance draws."""
        found: list[int] = []
        for budget in self._setup.budgets:
            inside = self._within(budget)
            found.append(int(inside[self._costs[inside].argmax()]))
            found += self._rng.choice(inside, min(3, len(inside)), replace=False).tolist()
        return list(dict.fromkeys(found))

    def _next(self) -> list[int]:
        model = self._fitted()
        named = []
        for budget in self._setup.budgets:
            draw, inside = model.draw(self._rng), self._within(budget)
            for place in inside[np.argsort(-draw[inside])].tolist():
                if len(self._seen.get(place, ())) < self._setup.questions:
                    named.append(place)
                    break
        return list(dict.fromkeys(named))

    # --- the model --------------------------------------------------------------------------------------

    def _fitted(self) -> Process:
        if not self._seen:
            raise UsageError("The search measured nothing.", "Let it cost more: --search-budget.")
        seen = sorted(self._seen)
        values, noise = self._observed(seen)
        level = float(values.mean())
        variance = max(float(values.var()), 1e-4)
        made = [
            Process(
                self._numbers,
                self._kernels[length, alike],
                together,
                seen,
                values - level,
                noise,
                variance,
                level,
            )
            for (length, alike), together in product(self._kernels, _TOGETHER)
        ]
        return max(made, key=lambda model: model.evidence)

    def _observed(self, seen: list[int]) -> tuple[Floats, Floats]:
        """Of every measured configuration the quality, paired by question, and its variance."""
        table = np.full((len(seen), self._setup.questions), np.nan)
        for row, place in enumerate(seen):
            scores = self._seen[place]
            table[row, list(scores)] = list(scores.values())
        asked, level = ~np.isnan(table), float(np.nanmean(table))
        rows, columns = np.maximum(asked.sum(1), 1), asked.sum(0) + 1.0  # a question's effect is shrunk
        effect = np.zeros(len(seen))
        for _ in range(5):  # effects of questions and of configurations in turn
            hardness = np.where(asked, table - level - effect[:, None], 0.0).sum(0) / columns
            effect = np.where(asked, table - level - hardness, 0.0).sum(1) / rows
        left = np.where(asked, table - level - hardness - effect[:, None], 0.0)
        noise = max(float((left**2).sum() / max(asked.sum() - len(seen), 1)), 1e-6)
        return level + effect, noise / rows


def _stage_kernel(samples: tuple[int, ...], models: int, length: float, alike: float) -> Floats:
    """Correlations of the options of a stage."""
    logs = np.log1p(np.array(samples, float))
    near = np.exp(-0.5 * ((logs[:, None] - logs) / length) ** 2)
    same = np.where(np.eye(models, dtype=bool), 1.0, alike)
    kernel: Floats = np.kron(same, near)
    return kernel


class Process:
    """A Gaussian process on the grid of all choices, given some values.

    `numbers`: (choices, stages) options; `kernels`: one a stage; `together`: the share of the interaction in
    the `variance`; `values` around `level`, with the variance of their `noise`, at the places `seen`.
    """

    def __init__(
        self,
        numbers: Ints,
        kernels: list[Floats],
        together: float,
        seen: list[int],
        values: Floats,
        noise: Floats,
        variance: float,
        level: float,
    ) -> None:
        parts = [k[numbers[:, s]][:, numbers[seen, s]] for s, k in enumerate(kernels)]
        mixed = (1 - together) * np.mean(parts, axis=0) + together * np.prod(parts, axis=0)
        self._numbers, self._kernels, self._together = numbers, kernels, together
        self._seen, self._values, self._noise, self._variance = seen, values, noise, variance
        self._level = level
        self._cross = variance * mixed
        self._gram = self._cross[seen] + np.diag(noise)

    @property
    def evidence(self) -> float:
        """The logarithm of the marginal likelihood, but for a constant."""
        _, logdet = np.linalg.slogdet(self._gram)
        return float(-0.5 * (self._values @ np.linalg.solve(self._gram, self._values) + logdet))

    @cached_property
    def _gain(self) -> Floats:
        gain: Floats = np.linalg.solve(self._gram, self._cross.T).T
        return gain

    @property
    def mean(self) -> Floats:
        mean: Floats = self._level + self._gain @ self._values
        return mean

    @property
    def deviation(self) -> Floats:
        deviation: Floats = np.sqrt(np.maximum(self._variance - (self._gain * self._cross).sum(1), 1e-12))
        return deviation

    def draw(self, rng: np.random.Generator) -> Floats:
        """(choices,) qualities drawn from the posterior: a draw of the prior, moved to what was seen."""
        prior = self._prior(rng)
        missed = self._values - prior[self._seen]
        missed -= np.sqrt(self._noise) * rng.standard_normal(len(missed))
        drawn: Floats = self._level + prior + self._gain @ missed
        return drawn

    @cached_property
    def _roots(self) -> list[NDArray[np.floating[Any]]]:
        return [np.linalg.cholesky(k + 1e-9 * np.eye(len(k))) for k in self._kernels]

    def _prior(self, rng: np.random.Generator) -> Floats:
        grid = rng.standard_normal([len(root) for root in self._roots])
        for axis, root in enumerate(self._roots):
            grid = np.moveaxis(np.tensordot(root, grid, axes=(1, axis)), 0, axis)
        drawn = np.sqrt(self._together) * grid[tuple(self._numbers.T)]
        share = np.sqrt((1 - self._together) / len(self._roots))
        for stage, root in enumerate(self._roots):
            drawn += share * (root @ rng.standard_normal(len(root)))[self._numbers[:, stage]]
        prior: Floats = np.sqrt(self._variance) * drawn
        return prior
