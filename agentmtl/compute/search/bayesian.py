"""Optuna's samplers behind ask and tell: TPE (multivariate) and a Gaussian process.

What a budget does not allow is a constraint that a trial violates: it is told so and costs nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.search.base import Archive, Recommendation, Setup
from agentmtl.compute.space import Choice
from agentmtl.errors import UsageError

SKIPPED = 50  # infeasible configurations in a row before one that chance draws


class OptunaSearch:
    """Raises UsageError where Optuna is not installed."""

    def __init__(self, setup: Setup, sampler: Literal["tpe", "gp"] = "tpe") -> None:
        try:
            import optuna
        except ImportError:
            raise UsageError(
                "Optuna is not installed.", 'Install it: pip install "agentmtl[tune]".'
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self._space, self._rng = optuna, setup.space, setup.rng
        self._budget = max(setup.budgets)
        self._study = optuna.create_study(direction="maximize", sampler=self._sampler(sampler, setup.seed))
        self._running: dict[Choice, Any] = {}
        self.archive = Archive(setup.space, setup.questions)

    def ask(self, left: float) -> Trial:
        for _ in range(SKIPPED):
            trial = self._study.ask()
            choice = self._suggested(trial)
            if self._space.cost(choice) <= self._budget:
                break
            self._finish(trial, choice, 0.0)
        else:
            choice = self._space.feasible(self._rng, self._budget)
            trial = None
        self._running[choice] = trial
        return Trial(choice)

    def tell(self, result: Result) -> None:
        self.archive.add(result)
        assert isinstance(result.proposal, Trial)
        trial = self._running.pop(result.proposal.choice, None)
        if trial is not None:
            self._finish(trial, result.proposal.choice, result.score)

    def recommend(self, budget: float) -> Recommendation:
        return self.archive.recommend(budget)

    def _sampler(self, name: str, seed: int) -> Any:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both options are marked experimental
            if name == "gp":
                return self._optuna.samplers.GPSampler(seed=seed, constraints_func=_violated)
            return self._optuna.samplers.TPESampler(seed=seed, multivariate=True, constraints_func=_violated)

    def _suggested(self, trial: Any) -> Choice:
        numbers = []
        for stage in self._space.stages:
            model = trial.suggest_categorical(f"{stage.name}.model", list(stage.models))
            place = trial.suggest_int(f"{stage.name}.samples", 0, len(stage.samples) - 1)
            numbers.append(stage.models.index(model) * len(stage.samples) + place)
        return tuple(numbers)

    def _finish(self, trial: Any, choice: Choice, score: float) -> None:
        trial.set_user_attr("over", self._space.cost(choice) / self._budget - 1)
        self._study.tell(trial, score)


def _violated(trial: Any) -> tuple[float]:
    """By how much a trial exceeds the budget; 0 or less: it does not."""
    return (float(trial.user_attrs["over"]),)
