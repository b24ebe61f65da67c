"""What is believed of a stage after some samples: the accuracy of every model at every number of samples.

A question's answers come from an urn whose make-up is unknown (`votes.Prior`). What is common to the
questions, the prior itself, is fitted to all of them: how much it weighs and how wrong answers spread for
the stage, the rate of right answers for every model. The rest is exact: the expected accuracy of a vote of n
is the mean of `votes.predicted` over questions. So a curve that was seen up to 3 samples goes on to 64,
saturating where the right answer leads and falling where a wrong one does, with no curve to choose.

Its variance has two parts: that of the rate, and that of the urns. Two votes of n on the same urn, of which A
samples are known, agree beyond chance with correlation n / (n + A), as shares of a Pólya urn do exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from agentmtl.compute.space import Floats
from agentmtl.compute.votes import Prior, Tally, log_likelihood, predicted
from agentmtl.errors import UsageError

RATES = np.array(
    [.01, .03, .06, .1, .15, .2, .25, .3, .35, .4, .45, .5, .55, .6, .65, .7, .75, .8, .85, .9, .94, .97, .99]
)  # fmt: skip
WEIGHTS = (0.35, 0.7, 1.4, 2.8)
SPREADS = (0.25, 0.5, 0.75)
_SHAPES = [(weight, spread) for weight in WEIGHTS for spread in SPREADS]
# Beforehand: about one sample's weight, spread wide (wrong answers seldom agree), any rate.
_SHAPE_PRIOR = np.array([-0.5 * np.log(w) ** 2 - 0.5 * ((s - 0.6) / 0.25) ** 2 for w, s in _SHAPES])
_RATE_PRIOR = 0.5 * (np.log(RATES) + np.log(1 - RATES))


@dataclass(slots=True)
class StageBelief:
    """Of one stage. `grid`: the numbers of samples; `reach`: of every model, the most that any budget
    affords, beyond which its curve is taken to be flat. Raises UsageError for a grid with 0 samples."""

    grid: tuple[int, ...]
    reach: tuple[int, ...]
    questions: int
    answers: list[list[list[int]]] = field(init=False)  # model, question: in order
    mean: Floats = field(init=False)  # (models, grid)
    deviation: Floats = field(init=False)
    rates: Floats = field(init=False)  # (models,) of right answers, as fitted
    shape: tuple[float, float] = field(init=False, default=_SHAPES[4])

    def __post_init__(self) -> None:
        if self.grid[0] < 1:
            raise UsageError("A vote needs at least one sample.", "Take 0 out of the grid of samples.")
        models = len(self.reach)
        self.answers = [[[] for _ in range(self.questions)] for _ in range(models)]
        self.mean = np.full((models, len(self.grid)), 0.5)
        self.deviation = np.full((models, len(self.grid)), 0.3)
        self.rates = np.full(models, 0.5)

    def drawn(self, model: int) -> int:
        """Samples a question so far."""
        return len(self.answers[model][0])

    def add(self, model: int, answers: Sequence[Sequence[int]]) -> None:
        """New samples of every question."""
        for known, new in zip(self.answers[model], answers, strict=True):
            known.extend(new)

    def fit(self) -> None:
        """Work out the curves anew."""
        seen = [m for m in range(len(self.reach)) if self.drawn(m)]
        if not seen:
            return
        tallies = {m: [Tally.of(one) for one in self.answers[m]] for m in seen}
        likelihood = np.array([sum(_likelihood(t) for t in tallies[m]) for m in seen]) + _RATE_PRIOR
        top = likelihood.max(2, keepdims=True)
        evidence = (np.log(np.exp(likelihood - top).sum(2)) + top[..., 0]).sum(0) + _SHAPE_PRIOR
        shape = int(evidence.argmax())
        self.shape = _SHAPES[shape]
        for place, model in enumerate(seen):
            self._fit_model(model, tallies[model], likelihood[place, shape])

    def _fit_model(self, model: int, tallies: list[Tally], likelihood: Floats) -> None:
        weights = np.exp(likelihood - likelihood.max())
        weights /= weights.sum()
        rate = float(weights @ RATES)
        spread = float(np.sqrt(weights @ (RATES - rate) ** 2))
        curves = self._curves(model, tallies, rate)
        self.rates[model], self.mean[model] = rate, curves.mean(0)
        known = len(self.answers[model][0]) + self.shape[0]
        own = (curves * (1 - curves)).sum(0) * self._share(known) / self.questions**2
        common = self.shape[0] / known * spread  # so much does the rate move the expected share
        self.deviation[model] = np.sqrt(own + common**2)

    def _curves(self, model: int, tallies: list[Tally], rate: float) -> Floats:
        """(questions, grid) expected accuracies."""
        prior, most = Prior(_near(rate), *self.shape), self.reach[model]
        places = np.minimum(self.grid, most) - 1
        found: Floats = np.array([predicted(tally, prior, most)[places] for tally in tallies])
        return found

    def _share(self, known: float) -> Floats:
        """Of a question's variance, what more samples could remove."""
        n = np.array(self.grid, float)
        share: Floats = n / (n + known)
        return share

    @property
    def reached(self) -> list[int]:
        """The models that some budget affords."""
        return [model for model, most in enumerate(self.reach) if most]

    def learned(self, place: int, drawn: int) -> float:
        """Which share of the variance at a place of the grid one more sample a question is expected to
        remove where so many were drawn."""
        known = drawn + self.shape[0]
        return float(1 - self._share(known + 1)[place] / self._share(known)[place])


def _near(rate: float) -> float:
    """The nearest of RATES: what is worked out for it is remembered."""
    return float(RATES[np.abs(RATES - rate).argmin()])


@lru_cache(maxsize=200_000)
def _likelihood(tally: Tally) -> Floats:
    """(shapes, rates) logarithms."""
    weights, spreads = (np.array(column)[:, None] for column in zip(*_SHAPES, strict=True))
    return log_likelihood(tally, RATES, weights, spreads)
