"""Searches that ask a language model: once without measurements, or in the loop of AgentTTS.

The loop follows arXiv 2508.00890 and its code: trials of every model of every stage at equal cost first,
then guidelines in words and proposals in turn; the best raw score is recommended. What a model proposes is
checked: an unknown stage or model is left out, and what is too dear is repaired to what the budget allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.journal import Journal
from agentmtl.compute.search.base import Archive, Recommendation, Setup
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.errors import UsageError
from agentmtl.experts.prompting import Prompts

Chat: TypeAlias = Callable[[str, str], str]  # (system, user) → what the model says
CANDIDATES, STEPS, CAP = 10, 5, 60  # proposals a step, steps, samples of the first trials: AgentTTS's own


def remembered(chat: Chat, journal: Journal) -> Chat:
    """The chat, with its replies in the journal: a search that is resumed does not pay for them again."""
    asked = 0

    def say(system: str, user: str) -> str:
        nonlocal asked
        key, asked = f"chat/{asked}", asked + 1
        row = journal.get(key)
        if row is None or row["user"] != user:
            row = {"system": system, "user": user, "reply": chat(system, user)}
            journal.add(key, row)
        return str(row["reply"])

    return say


class LanguageSearch:
    """`steps` of proposals, with guidelines between; `zero_shot` asks once and measures nothing before."""

    def __init__(
        self,
        setup: Setup,
        chat: Chat,
        prompts: Prompts | None = None,
        candidates: int = CANDIDATES,
        steps: int = STEPS,
        zero_shot: bool = False,
    ) -> None:
        self._space, self._budget = setup.space, max(setup.budgets)
        self._chat, self._prompts = chat, prompts or Prompts()
        self._candidates, self._steps = candidates, 1 if zero_shot else steps
        self._guidelines: list[str] = []
        self.archive = Archive(setup.space, setup.questions)
        self._walk = self._proposals() if zero_shot else self._loop()

    def ask(self, left: float) -> Trial | None:
        choice = next(self._walk, None)
        return None if choice is None else Trial(choice)

    def tell(self, result: Result) -> None:
        self.archive.add(result)

    def recommend(self, budget: float) -> Recommendation:
        return self.archive.recommend(budget)

    def _loop(self) -> Iterator[Choice]:
        yield from first_trials(self._space, self._budget)
        for _ in range(self._steps):
            self._guidelines.append(self._said("tune-guideline", history=self._history()))
            yield from self._proposals()

    def _proposals(self) -> Iterator[Choice]:
        said = self._said(
            "tune-user", history=self._history(), stages=self._stages(), count=self._candidates,
            guidelines=list(dict.fromkeys([*self._guidelines[:1], *self._guidelines[-2:]])),
        )  # fmt: skip
        found = [self._space.repaired(c, self._budget) for c in proposed(said, self._space)]
        yield from (c for c in dict.fromkeys(found) if c not in self.archive.results)

    def _said(self, prompt: str, **values: Any) -> str:
        unit = self._space.pipeline.unit
        user = self._prompts.render(prompt, budget=f"{self._budget:g}", unit=unit, **values)
        return self._chat(self._prompts.render("tune-system"), user)

    def _history(self) -> list[str]:
        return [
            json.dumps(
                {
                    "configuration": _told(self._space, choice),
                    "cost": float(f"{self._space.cost(choice):.4g}"),
                    "score": round(result.score, 4),
                    "stages": [round(score, 4) for score in result.stages],
                }
            )
            for choice, result in self.archive.results.items()
        ]

    def _stages(self) -> list[dict[str, Any]]:
        told = []
        for stage, cost in zip(self._space.stages, self._space.costs, strict=True):
            models = ", ".join(f"{m} {c:.4g}" for m, c in zip(stage.models, cost[:, 0], strict=True))
            told.append({"name": stage.name, "samples": list(stage.samples), "models": models})
        return told


def first_trials(space: Space, budget: float) -> Iterator[Choice]:
    """AgentTTS's first trials: every model of a stage at the cost of the largest with one sample, the other
    stages with the largest, else the smallest, model that the rest affords."""
    for place, cost in enumerate(space.costs):
        rest = space.cheapest - float(cost.min())
        share = min(float(cost[:, 0].max()), budget - rest)
        for model in range(len(cost)):
            inside = [
                n for n, c in enumerate(cost[model]) if c <= share and space.stages[place].samples[n] <= CAP
            ]
            if not inside:
                continue
            choice = [_smallest(c) for c in space.costs]
            choice[place] = model * cost.shape[1] + inside[-1]
            large = [_largest(c) if other != place else choice[place] for other, c in enumerate(space.costs)]
            yield tuple(large) if space.cost(tuple(large)) <= budget else tuple(choice)


def _smallest(cost: Floats) -> int:
    return int(cost[:, 0].argmin() * cost.shape[1])


def _largest(cost: Floats) -> int:
    return int(cost[:, 0].argmax() * cost.shape[1])


def _told(space: Space, choice: Choice) -> dict[str, dict[str, Any]]:
    shares = space.allocation(choice).shares
    return {name: {"model": share.model, "samples": share.samples} for name, share in shares.items()}


def proposed(said: str, space: Space) -> list[Choice]:
    """The configurations in a reply, in its order: those of a JSON list that name every stage, a model that
    it has, and a number, which becomes the nearest of the grid. Anything else is left out."""
    start, end = said.find("["), said.rfind("]")
    try:
        told = json.loads(said[start : end + 1]) if 0 <= start < end else []
    except ValueError:
        return []
    found = []
    for one in told:
        choice = _parsed(one, space)
        if choice is not None:
            found.append(choice)
    return found


def _parsed(told: Any, space: Space) -> Choice | None:
    if not isinstance(told, dict):
        return None
    numbers = []
    for stage in space.stages:
        share = told.get(stage.name)
        if not isinstance(share, dict) or share.get("model") not in stage.models:
            return None
        samples = share.get("samples")
        if not isinstance(samples, int | float) or isinstance(samples, bool) or not np.isfinite(samples):
            return None
        place = int(np.abs(np.array(stage.samples) - samples).argmin())
        numbers.append(stage.models.index(str(share["model"])) * len(stage.samples) + place)
    return tuple(numbers)


def scripted(space: Space, budget: float, seed: int = 0, count: int = CANDIDATES) -> Chat:
    """A stand-in for a model: it reads the history in the prompt as a model would, and proposes neighbours of
    the best configuration, or what chance draws where there is none. For tests and comparisons."""
    rng = np.random.default_rng(seed)

    def say(system: str, user: str) -> str:
        rows = [json.loads(line) for line in user.splitlines() if line.startswith('{"configuration"')]
        rows = [row for row in rows if row["cost"] <= budget]
        if "JSON list" not in user:
            best = max(rows, key=lambda row: row["score"], default=None)
            return f"Stay near {best['configuration'] if best else 'the middle'}."
        choices = [space.feasible(rng, budget) for _ in range(count)]
        if rows:
            best = _parsed(max(rows, key=lambda row: row["score"])["configuration"], space)
            if best is None:
                raise UsageError("The history names what is not in the space.", "Report this.")
            near = [c for c in space.neighbours(best) if space.cost(c) <= budget]
            order = rng.permutation(len(near))[: count - 2]
            choices = [near[n] for n in order] + choices[: count - len(order)]
        return json.dumps([_told(space, choice) for choice in choices])

    return say
