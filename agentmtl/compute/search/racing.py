"""The default: beliefs of every stage, exact knapsacks on draws from them, samples where they pay.

    1. One sample a question of every stage and model.
    2. Beliefs (`StageBelief`) give every curve with its uncertainty. Draws of all curves together (Thompson
       sampling) are solved exactly for every budget asked; where a draw's best choice is not the one that
       would be recommended, the loss is put down to the models in which they differ.
    3. The next sample goes to the stage and model with the largest loss that it is expected to resolve a unit
       of cost. Models that no draw chooses get no more; the search stops when the loss left is small.

One search serves every budget. No language model is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentmtl.compute.environment import Draw, Proposal, Result
from agentmtl.compute.knapsack import Solutions, solve
from agentmtl.compute.search.base import Recommendation, Setup, Z
from agentmtl.compute.search.belief import StageBelief
from agentmtl.compute.space import Choice, Floats, combined
from agentmtl.errors import UsageError

DRAWS = 32
BATCH = 0.08  # of what is left is spent before the beliefs are worked out again
NEGLIGIBLE = 0.002  # a share of all loss: less is not worth a sample
ENOUGH = 1e-4  # expected loss at which a search stops
TIED, SURE = 0.005, 0.9  # a tied choice loses at most that share, with that probability


class RacingSearch:
    """Raises UsageError for a pipeline whose stages cannot be measured apart, or that does not vote."""

    def __init__(self, setup: Setup) -> None:
        space = setup.space
        if space.pipeline.combine == "end" or any(s.aggregator != "majority" for s in space.stages):
            raise UsageError(
                f"The stages of {space.pipeline.name!r} are not independent votes.", "Use --method landscape."
            )
        self._space, self._setup, self._rng = space, setup, setup.rng
        self.beliefs = [self._belief(stage) for stage in range(len(space.stages))]
        begin = [(self._each(stage, m), stage, m) for stage, b in enumerate(self.beliefs) for m in b.reached]
        self._queue = [Draw(stage, model, 1) for _, stage, model in sorted(begin)]
        self._changed: set[int] = set()

    def ask(self, left: float) -> Proposal | None:
        if not self._queue:
            self._queue = self._next(left)
        return self._queue.pop(0) if self._queue else None

    def tell(self, result: Result) -> None:
        draw = result.proposal
        assert isinstance(draw, Draw)
        self.beliefs[draw.stage].add(draw.model, [one.answers for one in result.samples])
        self._changed.add(draw.stage)

    def suggest(self, choices: Sequence[Choice]) -> None:
        """Configurations of others: each of their models is given one sample more than it has."""
        for choice in choices:
            for stage, number in enumerate(choice):
                model, place = self._space.option(stage, number)
                belief, grid = self.beliefs[stage], self._space.stages[stage].samples
                more, due = belief.drawn(model) + 1, {(d.stage, d.model) for d in self._queue}
                if model in belief.reached and more <= grid[place] and (stage, model) not in due:
                    self._queue.append(Draw(stage, model, more))

    def standing(self) -> list[tuple[Choice, float]]:
        """The frontier as it is believed to be, the best first."""
        self._fit()
        found = self.solutions().within(max(self._setup.budgets))
        return [(choice, self.interval(choice)[0]) for choice in reversed(found)]

    def solutions(self) -> Solutions:
        """The frontier as it is believed to be."""
        return self._solved([belief.mean for belief in self.beliefs])

    def interval(self, choice: Choice) -> tuple[float, float, float]:
        """Expected quality and the bounds of its 90 % interval."""
        means, spreads = self._at(choice)
        if self._space.pipeline.combine == "product":
            quality = float(means.prod())
            factor = float(np.exp(Z * np.sqrt(((spreads / np.maximum(means, 1e-9)) ** 2).sum())))
            return quality, quality / factor, min(quality * factor, 1.0)
        quality, spread = float(means.mean()), Z * float(np.sqrt((spreads**2).sum())) / len(means)
        return quality, max(quality - spread, 0.0), min(quality + spread, 1.0)

    def recommend(self, budget: float) -> Recommendation:
        self._space.check_budget(budget)
        self._fit()
        solved = self.solutions()
        best = solved.choice(budget)
        assert best is not None  # the budget was checked
        tied = self._tied(best, solved, budget)
        quality, low, high = self.interval(tied[0])
        return Recommendation(tied[0], quality, low, high, tuple(tied))

    # --- what to measure next ---------------------------------------------------------------------------

    def _fit(self) -> None:
        for stage in self._changed:
            self.beliefs[stage].fit()
        self._changed.clear()

    def _next(self, left: float) -> list[Draw]:
        """The next samples, for a part of what is left: those that resolve most loss for their cost."""
        self._fit()
        loss, places = self._losses()
        if loss.sum() < ENOUGH * len(self._setup.budgets):
            return []
        worth = {
            (stage, model): float(loss[stage, model])
            for stage, belief in enumerate(self.beliefs)
            for model in belief.reached
            if loss[stage, model] > NEGLIGIBLE * loss.sum()
        }
        found: list[Draw] = []
        spent, drawn = 0.0, {(s, m): self.beliefs[s].drawn(m) for s, m in worth}
        prices = {at: self._each(*at) * self._setup.questions for at in worth}
        gains = dict[tuple[int, int], tuple[float, float]]()  # worth a unit of cost, and the share resolved
        changed = list(worth)
        while spent < BATCH * left:
            for at in changed:
                share = self.beliefs[at[0]].learned(int(places[at]), drawn[at])
                gains[at] = worth[at] * share / max(prices[at], 1e-300), share
            may = [
                (gains[at], at)
                for at in worth
                if spent + prices[at] <= left and drawn[at] < self.beliefs[at[0]].reach[at[1]]
            ]
            if not may:
                break
            (_, share), at = max(may)
            spent += prices[at]
            drawn[at] += 1
            worth[at] *= 1 - share
            changed = [at]
            found.append(Draw(*at, drawn[at]))
        return found

    def _losses(self) -> tuple[Floats, Floats]:
        """For every stage and model the loss put down to it, a draw; and its usual place on the grid."""
        shape = (len(self.beliefs), max(len(b.reach) for b in self.beliefs))
        loss, places, times = np.zeros(shape), np.zeros(shape), np.full(shape, 1e-9)
        now = self.solutions()
        chosen = [now.choice(budget) for budget in self._setup.budgets]
        for curves in self._draws(self._rng):
            solved = self._solved(curves)
            for budget, ours in zip(self._setup.budgets, chosen, strict=True):
                best = solved.choice(budget)
                assert best is not None and ours is not None  # the budgets were checked
                lost = 1 - self._quality(ours, curves) / max(self._quality(best, curves), 1e-12)
                doubts = self._doubts(best, ours)
                whole = sum(doubts.values())
                for (stage, number), doubt in doubts.items():
                    model, place = self._space.option(stage, number)
                    places[stage, model] += place
                    times[stage, model] += 1
                    loss[stage, model] += lost * doubt / whole
        return loss / DRAWS, places / times

    def _doubts(self, one: Choice, other: Choice) -> dict[tuple[int, int], float]:
        """The relative variances of the options in which two choices differ: what makes them doubtful."""
        found = {}
        for stage, numbers in enumerate(zip(one, other, strict=True)):
            belief = self.beliefs[stage]
            for number in set(numbers) if numbers[0] != numbers[1] else ():
                relative = belief.deviation.flat[number] / max(belief.mean.flat[number], 1e-3)
                found[stage, number] = float(relative) ** 2
        return found

    def _draws(self, rng: np.random.Generator) -> list[list[Floats]]:
        """Curves of all stages, DRAWS times; a model's whole curve moves together."""
        made = []
        for _ in range(DRAWS):
            moved = [b.mean + rng.standard_normal((len(b.mean), 1)) * b.deviation for b in self.beliefs]
            made.append([np.clip(curve, 1e-3, 1 - 1e-3) for curve in moved])
        return made

    # --- choosing ---------------------------------------------------------------------------------------

    def _tied(self, best: Choice, solved: Solutions, budget: float) -> list[Choice]:
        """The choices that are surely as good as the best, the cheapest first."""
        near = [c for c in self._space.neighbours(best) if self._space.cost(c) <= budget]
        candidates = list(dict.fromkeys([best, *near, *solved.within(budget)]))
        draws = self._draws(self._setup.rng)
        top = np.array([self._quality(best, curves) for curves in draws])
        sure = []
        for choice in candidates:
            here = np.array([self._quality(choice, curves) for curves in draws])
            if choice == best or (here >= (1 - TIED) * top).mean() >= SURE:
                sure.append(choice)
        return sorted(sure, key=self._space.cost)

    def _quality(self, choice: Choice, curves: list[Floats]) -> float:
        at = [curve.flat[n] for curve, n in zip(curves, choice, strict=True)]
        return float(combined(self._space.pipeline.combine, at))

    def _at(self, choice: Choice) -> tuple[Floats, Floats]:
        means = [belief.mean.flat[n] for belief, n in zip(self.beliefs, choice, strict=True)]
        spreads = [belief.deviation.flat[n] for belief, n in zip(self.beliefs, choice, strict=True)]
        return np.array(means), np.array(spreads)

    def _solved(self, curves: list[Floats]) -> Solutions:
        return solve(self._space.costs, curves, self._space.pipeline.combine)

    def _each(self, stage: int, model: int) -> float:
        """What one more sample of a question is expected to cost."""
        cost, grid = self._space.costs[stage][model], self._space.stages[stage].samples
        return float((cost[-1] - cost[0]) / max(grid[-1] - grid[0], 1)) if len(grid) > 1 else float(cost[0])

    def _belief(self, stage: int) -> StageBelief:
        return StageBelief(self._space.stages[stage].samples, self._reach(stage), self._setup.questions)

    def _reach(self, stage: int) -> tuple[int, ...]:
        """The most samples of every model that the largest budget affords beside the cheapest of the rest."""
        cost, grid = self._space.costs[stage], self._space.stages[stage].samples
        left = max(self._setup.budgets) - (self._space.cheapest - float(cost.min()))
        return tuple(max((n for n, c in zip(grid, row, strict=True) if c <= left), default=0) for row in cost)
