"""Searches that ask a language model: once without measurements, or in the loop of AgentTTS.

The loop follows arXiv 2508.00890 and its code: trials of every model of every stage at equal cost first,
then guidelines in words and proposals in turn; the best raw score is recommended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from agentmtl.compute.environment import Result, Trial
from agentmtl.compute.journal import Journal
from agentmtl.compute.search.base import Archive, Recommendation, Setup
from agentmtl.compute.search.ideas import Chat, Proposer, Reply, lines, named, parsed
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.errors import UsageError
from agentmtl.experts.prompting import Prompts
from agentmtl.schema import Usage

CANDIDATES, STEPS, CAP = 10, 5, 60  # proposals a step, steps, samples of the first trials: AgentTTS's own


def remembered(chat: Chat, journal: Journal) -> Chat:
    """The chat, with its replies in the journal: a search that is resumed does not pay for them again."""
    asked = 0

    def say(system: str, user: str) -> Reply:
        nonlocal asked
        key, asked = f"chat/{asked}", asked + 1
        row = journal.get(key)
        if row is None or row["user"] != user:
            reply = chat(system, user)
            row = {"system": system, "user": user, "reply": reply.text, "usage": reply.usage.to_json()}
            journal.add(key, row)
        return Reply(str(row["reply"]), Usage(**row["usage"]))

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
        self._proposer = Proposer(setup.space, self._budget, chat, prompts)
        self._candidates, self._steps = candidates, 1 if zero_shot else steps
        self._guidelines: list[str] = []
        self.archive = Archive(setup.space, setup.questions)
        self._walk = self._proposals() if zero_shot else self._loop()

    @property
    def usage(self) -> Usage:
        """What the model's replies cost."""
        return self._proposer.usage

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
            self._guidelines.append(self._proposer.say("tune-guideline", history=lines(self._history())))
            yield from self._proposals()

    def _proposals(self) -> Iterator[Choice]:
        guidelines = list(dict.fromkeys([*self._guidelines[:1], *self._guidelines[-2:]]))
        found = self._proposer.propose(self._history(), self._candidates, guidelines)
        yield from (c for c in found if c not in self.archive.results)

    def _history(self) -> list[dict[str, Any]]:
        return [self._proposer.row(c, r.score, r.stages) for c, r in self.archive.results.items()]


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


def scripted(space: Space, budget: float, seed: int = 0, count: int = CANDIDATES) -> Chat:
    """A stand-in for a model: it reads the history in the prompt as a model would, and proposes neighbours of
    the best configuration, or what chance draws where there is none. For tests and comparisons."""
    rng = np.random.default_rng(seed)

    def say(system: str, user: str) -> Reply:
        rows = [json.loads(line) for line in user.splitlines() if line.startswith('{"configuration"')]
        rows = [row for row in rows if row["cost"] <= budget]
        if "JSON list" not in user:
            best = max(rows, key=lambda row: row["score"], default=None)
            return Reply(f"Stay near {best['configuration'] if best else 'the middle'}.")
        choices = [space.feasible(rng, budget) for _ in range(count)]
        if rows:
            best = parsed(max(rows, key=lambda row: row["score"])["configuration"], space)
            if best is None:
                raise UsageError("The history names what is not in the space.", "Report this.")
            near = [c for c in space.neighbours(best) if space.cost(c) <= budget]
            order = rng.permutation(len(near))[: count - 2]
            choices = [near[n] for n in order] + choices[: count - len(order)]
        return Reply(json.dumps([named(space, choice) for choice in choices]))

    return say
