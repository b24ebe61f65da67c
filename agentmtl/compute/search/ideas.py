"""A language model as one source of proposals among others, beside any search that takes them.

    searcher = WithIdeas(LandscapeSearch(setup), Proposer(setup.space, budget, chat))

Every few proposals of the search the model is shown how things stand and may name configurations, which
the search then looks at as it would at its own: on a few questions first, and on no more where they cannot
win. A reply that says nothing usable costs its tokens and changes nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from agentmtl.compute.environment import Proposal, Result
from agentmtl.compute.search.base import Recommendation, Searcher
from agentmtl.compute.space import Choice, Space
from agentmtl.experts.prompting import Prompts
from agentmtl.schema import Usage


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said, and what that cost."""

    text: str
    usage: Usage = Usage(calls=1)


Chat: TypeAlias = Callable[[str, str], Reply]  # (system, user) → what the model says
Standing: TypeAlias = Sequence[tuple[Choice, float]]  # configurations and what is known of their quality
EVERY, TIMES, COUNT = 6, 5, 4  # proposals of the search between ideas; ideas at most; configurations each
SHOWN = 20  # configurations that the model is shown, the best


class Proposer:
    """Asks the chat model for configurations within a budget. What it names is checked: an unknown stage or
    model is left out, and what is too dear is repaired to what the budget allows."""

    def __init__(self, space: Space, budget: float, chat: Chat, prompts: Prompts | None = None) -> None:
        self.space, self.budget = space, budget
        self.usage = Usage()  # of all replies
        self._chat, self._prompts = chat, prompts or Prompts()

    def propose(
        self, history: Sequence[dict[str, Any]], count: int, guidelines: Sequence[str] = ()
    ) -> list[Choice]:
        """At most what was said, in its order, each once."""
        said = self.say(
            "tune-user", history=lines(history), stages=self._stages(), count=count, guidelines=guidelines
        )
        return list(dict.fromkeys(self.space.repaired(c, self.budget) for c in proposed(said, self.space)))

    def say(self, prompt: str, **values: Any) -> str:
        """The reply to a prompt of the package's, by name."""
        unit = self.space.pipeline.unit
        user = self._prompts.render(prompt, budget=f"{self.budget:g}", unit=unit, **values)
        reply = self._chat(self._prompts.render("tune-system"), user)
        self.usage += reply.usage
        return reply.text

    def row(self, choice: Choice, score: float, stages: Sequence[float] = ()) -> dict[str, Any]:
        """How a configuration and its score are told."""
        cost = float(f"{self.space.cost(choice):.4g}")
        told = {"configuration": named(self.space, choice), "cost": cost, "score": round(score, 4)}
        return {**told, "stages": [round(one, 4) for one in stages]}

    def _stages(self) -> list[dict[str, Any]]:
        told = []
        for stage, cost in zip(self.space.stages, self.space.costs, strict=True):
            models = ", ".join(f"{m} {c:.4g}" for m, c in zip(stage.models, cost[:, 0], strict=True))
            told.append({"name": stage.name, "samples": list(stage.samples), "models": models})
        return told


class Suggestible(Searcher, Protocol):
    """A search that looks at what others name."""

    def suggest(self, choices: Sequence[Choice]) -> None: ...

    def standing(self) -> Standing:
        """What is known of the configurations it thinks of, the best first."""
        ...


class WithIdeas:
    """The search, with ideas of the proposer in between."""

    def __init__(self, search: Suggestible, proposer: Proposer) -> None:
        self.search, self._proposer = search, proposer
        self._asked = self._ideas = 0

    def ask(self, left: float) -> Proposal | None:
        if self._asked and self._asked % EVERY == 0 and self._ideas < TIMES:
            self._ideas += 1
            rows = [self._proposer.row(c, quality) for c, quality in self.search.standing()[:SHOWN]]
            self.search.suggest(self._proposer.propose(rows, COUNT))
        self._asked += 1
        return self.search.ask(left)

    @property
    def usage(self) -> Usage:
        """What the ideas cost."""
        return self._proposer.usage

    def tell(self, result: Result) -> None:
        self.search.tell(result)

    def recommend(self, budget: float) -> Recommendation:
        return self.search.recommend(budget)


def lines(history: Sequence[dict[str, Any]]) -> list[str]:
    return [json.dumps(row) for row in history]


def named(space: Space, choice: Choice) -> dict[str, dict[str, Any]]:
    """A configuration as a model is told of it, and as it names one."""
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
    return [choice for one in told if (choice := parsed(one, space)) is not None]


def parsed(told: Any, space: Space) -> Choice | None:
    """One configuration of a reply; None where it is none of the space."""
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
