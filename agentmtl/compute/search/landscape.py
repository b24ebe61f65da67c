"""For pipelines that are only measured as a whole: a Gaussian process over configurations, and racing.

A configuration's quality is taken to be a sum of one effect a stage, one of all stages together and one of
its own. The first two are the smoother the nearer two numbers of samples are (in their logarithm) and the
more alike for two models; how smooth and how much is fitted by the marginal likelihood. An effect of every
question, its difficulty, is integrated out, so that configurations are compared on the questions they share.

A draw of all qualities (Thompson sampling; Wilson et al., "Efficiently sampling functions from Gaussian
process posteriors", 2020) names the best configuration within each budget asked for. It is measured on a few
questions, and if later draws name it again on twice as many, and so on: what cannot win is stopped early. The
posterior mean recommends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.search.base import Recommendation, Setup, Z
from agentmtl.compute.space import Choice, Floats
from agentmtl.errors import UsageError

Ints: TypeAlias = NDArray[np.int64]

MOST = 20_000  # configurations
FIRST = 8  # questions of a first look
TIED, SURE, DRAWS = 0.005, 0.9, 200
_LENGTHS = (0.7, 1.5, 3.0)  # of the logarithm of samples
_ALIKE = (0.3, 0.7)  # correlation of two models
_DOUBT = 8.0  # scores' worth of doubt about the noise
_OWN = (0.05, 0.3, 0.7)  # the share that is each configuration's own, and smooth in nothing
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

    def suggest(self, choices: Sequence[Choice]) -> None:
        """Configurations of others: each is looked at once, and again where draws name it."""
        known = {*self._seen, *self._queue}
        places = [self._choices.index(c) for c in choices if c in self._choices]
        self._queue = [*(p for p in dict.fromkeys(places) if p not in known), *self._queue]

    def standing(self) -> list[tuple[Choice, float]]:
        """What was looked at with what it is believed to be worth, the best first."""
        mean = self._fitted().mean
        return [(self._choices[p], float(mean[p])) for p in sorted(self._seen, key=lambda p: -mean[p])]

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
        table = np.full((len(seen), self._setup.questions), np.nan)
        for row, place in enumerate(seen):
            table[row, list(self._seen[place])] = list(self._seen[place].values())
        told = Told.of(table)
        made = [
            Process(self._numbers, self._kernels[shape], together, own, seen, told)
            for shape, together, own in product(self._kernels, _TOGETHER, _OWN)
        ]
        return max(made, key=lambda model: model.evidence)


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What scores say of the configurations measured once the difficulty of every question is integrated out:
    a normal likelihood with that `precision` (configurations by configurations) and `pull`, its product with
    the values, around `level`. `variance`: of the configurations' effects."""

    precision: Floats
    pull: Floats
    level: float
    variance: float

    @classmethod
    def of(cls, table: Floats) -> Told:
        """From (configurations, questions) scores, NaN where a question was not asked."""
        asked = ~np.isnan(table)
        level = float(np.nanmean(table))
        rest = np.where(asked, table - level, 0.0)
        rows, columns = asked.sum(1), np.maximum(asked.sum(0), 1)
        effect, hardness = np.zeros(len(table)), np.zeros(table.shape[1])
        for _ in range(20):  # least squares of configurations and questions in turn
            hardness = np.where(asked, rest - effect[:, None], 0.0).sum(0) / columns
            effect = np.where(asked, rest - hardness, 0.0).sum(1) / rows
        left = float((np.where(asked, rest - effect[:, None] - hardness, 0.0) ** 2).sum())
        free = max(int(asked.sum()) - len(table) - int(asked.any(0).sum()) + 1, 0)
        spread = float((rest**2).sum() / asked.sum())
        noise = max((left + _DOUBT * spread / 2) / (free + _DOUBT), 1e-6)  # few scores say little of it
        hard = max(float(hardness[asked.any(0)].var()), 1e-3)
        shares = asked / (asked.sum(0) / noise + 1 / hard)  # of each question's difficulty
        precision = np.diag(rows / noise) - shares @ asked.T / noise**2
        pull = rest.sum(1) / noise - shares @ rest.sum(0) / noise**2
        return cls(precision, pull, level, max(float(effect.var()), spread / 50, 1e-4))


def _stage_kernel(samples: tuple[int, ...], models: int, length: float, alike: float) -> Floats:
    """Correlations of the options of a stage."""
    logs = np.log1p(np.array(samples, float))
    near = np.exp(-0.5 * ((logs[:, None] - logs) / length) ** 2)
    same = np.where(np.eye(models, dtype=bool), 1.0, alike)
    kernel: Floats = np.kron(same, near)
    return kernel


class Process:
    """A Gaussian process on the grid of all choices, given what scores say of those at the places `seen`.

    `numbers`: (choices, stages) options; `kernels`: one a stage; `own`: the share of the variance that is
    each choice's own; `together`: that of the interaction in the rest.
    """

    def __init__(
        self,
        numbers: Ints,
        kernels: list[Floats],
        together: float,
        own: float,
        seen: list[int],
        told: Told,
    ) -> None:
        parts = [k[numbers[:, s]][:, numbers[seen, s]] for s, k in enumerate(kernels)]
        mixed = (1 - together) * np.mean(parts, axis=0) + together * np.prod(parts, axis=0)
        mixed *= 1 - own
        mixed[seen, np.arange(len(seen))] += own
        self._numbers, self._kernels, self._together, self._own = numbers, kernels, together, own
        self._seen, self._told = seen, told
        self._cross = told.variance * mixed  # (choices, seen)
        self._prior_kernel = self._cross[seen]
        self._system = np.eye(len(seen)) + told.precision @ self._prior_kernel

    @property
    def evidence(self) -> float:
        """The logarithm of the marginal likelihood, but for a constant."""
        _, logdet = np.linalg.slogdet(self._system)
        pull = self._told.pull
        return float(0.5 * (pull @ self._prior_kernel @ np.linalg.solve(self._system, pull) - logdet))

    @property
    def mean(self) -> Floats:
        mean: Floats = self._told.level + self._cross @ np.linalg.solve(self._system, self._told.pull)
        return mean

    @property
    def deviation(self) -> Floats:
        known = self._cross @ np.linalg.solve(self._system, self._told.precision)
        left = self._told.variance - (known * self._cross).sum(1)
        deviation: Floats = np.sqrt(np.maximum(left, 1e-12))
        return deviation

    def draw(self, rng: np.random.Generator) -> Floats:
        """(choices,) qualities drawn from the posterior: a draw of the prior, moved to what was seen."""
        prior = self._prior(rng)
        told = self._told.precision @ prior[self._seen] + self._root @ rng.standard_normal(len(self._seen))
        moved = np.linalg.solve(self._system, self._told.pull - told)
        drawn: Floats = self._told.level + prior + self._cross @ moved
        return drawn

    @cached_property
    def _root(self) -> Floats:
        """Of the precision."""
        values, vectors = np.linalg.eigh(self._told.precision)
        root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
        return root

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
        drawn = np.sqrt(1 - self._own) * drawn + np.sqrt(self._own) * rng.standard_normal(len(drawn))
        prior: Floats = np.sqrt(self._told.variance) * drawn
        return prior
