"""For pipelines that are only measured as a whole: a Gaussian process over configurations, and racing.

A draw of all qualities (Thompson sampling) from the process (`agentmtl.compute.search.process`) names the
best configuration within each budget asked for. It is measured on a few questions, and if later draws name it
again on twice as many, and so on: what cannot win is stopped early. With the last part of what the search may
cost, what is expected to be best is measured on all questions, and of those the best score is recommended.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.search.base import Recommendation, Setup, Z
from agentmtl.compute.search.process import Form, Grid, Ints, Process, Scores, fitted
from agentmtl.compute.space import Choice, Floats
from agentmtl.errors import UsageError

MOST = 20_000  # configurations
FIRST, LEAST, LOOKS = 32, 8, 14  # questions of a first look: fewer where not so many a budget can be paid
CLOSING = 0.4  # of the limit left: from here on the best that is expected is measured on all questions
GROWN = 1.5  # times as many scores, and the form of the kernel is fitted anew
TIED, SURE, DRAWS = 0.005, 0.9, 200


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
        self._seen: dict[int, dict[int, float]] = {}  # scores of a configuration by question
        grids = [(stage.samples, len(stage.models)) for stage in setup.space.stages]
        self._grid = Grid(np.array(self._choices, np.int64), grids)
        self._form = Form()
        self._fitted_on = 0  # scores
        self._process: Process | None = None
        self._limit, self._first, self._closing = 0.0, FIRST, False
        self._queue = self._start()

    def ask(self, left: float) -> Trial | None:
        if not self._limit:
            looks = left / (LOOKS * len(self._setup.budgets) * float(np.median(self._costs)))
            self._limit, self._first = left, int(np.clip(looks, LEAST, FIRST))
        self._closing = left < CLOSING * self._limit
        while True:
            if not self._queue:
                self._queue = self._next()
            if not self._queue:
                return None
            place = self._queue.pop(0)
            had = len(self._seen.get(place, ()))
            if had < self._setup.questions:
                wanted = min(max(2 * had, self._first), self._setup.questions)
                wanted = self._setup.questions if self._closing else wanted
                return Trial(self._choices[place], tuple(self._order[:wanted]))

    def tell(self, result: Result) -> None:
        assert isinstance(result.proposal, Trial)
        place = self._choices.index(result.proposal.choice)
        questions = result.proposal.questions or tuple(range(self._setup.questions))
        self._seen[place] = dict(zip(questions, result.scores, strict=True))
        self._process = None

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
        mean, spread = model.mean, Z * np.sqrt(model.deviation**2 + model.sampling)
        draws = model.draws(np.random.default_rng(self._setup.seed), DRAWS)
        best = self._best(inside, mean, draws)
        close = draws[:, inside] >= draws[:, [best]] - TIED * max(mean[best], 1e-9)
        order = sorted({*inside[close.mean(0) >= SURE].tolist(), best}, key=lambda p: self._costs[p])
        chosen = order[0]
        low, high = max(mean[chosen] - spread[chosen], 0.0), min(mean[chosen] + spread[chosen], 1.0)
        tied = tuple(self._choices[p] for p in order)
        quality = float(np.clip(mean[chosen], low, high))
        return Recommendation(self._choices[chosen], quality, float(low), float(high), tied)

    def _best(self, inside: Ints, mean: Floats, draws: Floats) -> int:
        """The best raw score of those measured on all questions, of two alike the cheaper, unless what is
        expected to be best is surely better. A peak that is real is smoothed away by the process, which
        says where to look."""
        expected = int(inside[mean[inside].argmax()])
        whole = [int(p) for p in inside if len(self._seen.get(int(p), ())) == self._setup.questions]
        if not whole:
            return expected
        measured = max(whole, key=lambda p: (sum(self._seen[p].values()), -self._costs[p]))
        return expected if (draws[:, expected] > draws[:, measured]).mean() >= SURE else measured

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
            inside = self._within(budget)
            draw = model.mean if self._closing else model.draws(self._rng, 1)[0]
            for place in inside[np.argsort(-draw[inside])].tolist():
                if len(self._seen.get(place, ())) < self._setup.questions:
                    named.append(place)
                    break
        return list(dict.fromkeys(named))

    # --- the model --------------------------------------------------------------------------------------

    def _fitted(self) -> Process:
        """The process given all scores so far."""
        if not self._seen:
            raise UsageError("The search measured nothing.", "Let it cost more: --search-budget.")
        if self._process is None:
            self._process = self._made()
        return self._process

    def _made(self) -> Process:
        seen = sorted(self._seen)
        table = np.full((len(seen), self._setup.questions), np.nan)
        for row, place in enumerate(seen):
            table[row, list(self._seen[place])] = list(self._seen[place].values())
        scores, measured = Scores.of(seen, table), sum(map(len, self._seen.values()))
        if measured >= GROWN * self._fitted_on:
            self._fitted_on, self._form = measured, fitted(self._grid, self._form, scores)
        return Process(self._grid, self._form, scores)
