"""Where a search measures: what it may ask of a pipeline, and the bench that pays for it.

An environment draws single samples of a stage (where stages can be measured apart) or runs the whole on a
question. The bench remembers what was drawn, so that 8 samples contain the 1, 2 … before, keeps account
and writes the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from agentmtl.compute.cost import amount
from agentmtl.compute.journal import Journal
from agentmtl.compute.pipeline import checked_scores
from agentmtl.compute.space import Choice, Floats, Space, combined
from agentmtl.compute.votes import Tally
from agentmtl.errors import UsageError
from agentmtl.schema import Usage


@dataclass(frozen=True, slots=True)
class Samples:
    """Of one stage, model and question, in order: answers as numbers (`votes.RIGHT`, `votes.BLANK`, wrong
    ones from 1) and what each cost in the pipeline's unit."""

    answers: tuple[int, ...]
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """The whole on one question: end metric and cost. A run that failed scores 0 and says so.

    `new`: what of the cost the search had not paid for before, where stages are shared between
    configurations; None: all.
    """

    score: float
    cost: float
    failed: bool = False
    new: float | None = None


class Environment(Protocol):
    """`questions`: how many there are; they are numbered from 0. An environment whose pipeline combines by
    "end" has `run`, others `sample`; both raise UsageError where they do not."""

    @property
    def space(self) -> Space: ...

    @property
    def questions(self) -> int: ...

    def sample(self, stage: int, model: int, question: int, first: int, last: int) -> Samples:
        """Samples number first … last − 1."""
        ...

    def run(self, choice: Choice, question: int) -> Run: ...


@dataclass(frozen=True, slots=True)
class Draw:
    """A proposal: give every question of a stage and model `samples` samples in all."""

    stage: int
    model: int
    samples: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposal: measure a configuration on `questions` (None: on all)."""

    choice: Choice
    questions: tuple[int, ...] | None = None


Proposal: TypeAlias = Draw | Trial


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a proposal. `cost`: what was paid for it now.

    Of a Draw `samples` are the new ones, one Samples a question. Of a Trial `score` is that of the whole and
    `stages` those of the stages, `scores` and `costs` one a question where the pipeline is measured as a
    whole, and `failed` says how many questions failed.
    """

    proposal: Proposal
    cost: float
    samples: tuple[Samples, ...] = ()
    score: float = 0.0
    stages: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()
    failed: int = 0


Made = TypeVar("Made")
_ABREAST = 16  # questions begun before the account is looked at again, where there are workers


@dataclass(slots=True)
class Bench:
    """Measures in an environment. `limit`: what the search may cost, in the pipeline's unit.

    `workers` run questions side by side. With `reuse` the samples of a stage are used again by every trial
    that has it; without, each trial draws its own, as searches that know only whole trials do. `spent`
    counts all that was used, whether it was paid for now or found in the journal, so that a resumed search
    goes the same way. A trial ends with the question at which the limit is passed (side by side: with those
    begun), and its result is then of the questions that were asked.
    """

    environment: Environment
    limit: float
    journal: Journal = field(default_factory=Journal)
    workers: Executor | None = None
    reuse: bool = True
    spent: float = 0.0
    paid: float = 0.0  # of `spent`, what was not in the journal
    failed: int = 0
    proposing: float = 0.0  # of `spent`, on a model's proposals
    _drawn: dict[tuple[int, int, int], list[Samples]] = field(default_factory=dict)
    _counts: dict[tuple[int, int], int] = field(default_factory=dict)
    _runs: dict[tuple[Choice, int], Run] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return max(self.limit - self.spent, 0.0)

    @property
    def scores(self) -> dict[tuple[Choice, int], float]:
        """What the whole scored, by configuration and question."""
        return {key: run.score for key, run in self._runs.items()}

    def charge(self, usage: Usage) -> None:
        """What a model that proposes has cost so far, as much of it as the pipeline's unit counts."""
        total = amount(usage, self.environment.space.pipeline.unit)
        self.spent, self.proposing = self.spent + total - self.proposing, total

    def expected(self, proposal: Proposal) -> float:
        """What a proposal will cost by what is known before."""
        space, whole = self.environment.space, self.environment.space.pipeline.combine == "end"
        if isinstance(proposal, Draw):
            return self._expected_draw(proposal.stage, proposal.model, proposal.samples)
        if whole:
            return space.cost(proposal.choice) * len(self._new(proposal))
        shares = [space.option(stage, number) for stage, number in enumerate(proposal.choice)]
        return sum(
            self._expected_draw(stage, model, space.stages[stage].samples[place])
            for stage, (model, place) in enumerate(shares)
        )

    def measure(self, proposal: Proposal) -> Result:
        """Pays for what is new. Raises what the environment raises, and UsageError for a metric outside
        its range."""
        before = self.spent
        if isinstance(proposal, Draw):
            samples = self._draw(proposal.stage, proposal.model, proposal.samples)
            return Result(proposal, self.spent - before, samples)
        if self.environment.space.pipeline.combine == "end":
            return self._whole(proposal, before)
        stages = [self._voted(stage, number) for stage, number in enumerate(proposal.choice)]
        score = float(combined(self.environment.space.pipeline.combine, stages))
        return Result(proposal, self.spent - before, score=score, stages=tuple(stages))

    # --- samples of a stage -----------------------------------------------------------------------------

    def _expected_draw(self, stage: int, model: int, samples: int) -> float:
        space, had = self.environment.space, self._counts.get((stage, model), 0) if self.reuse else 0
        if samples <= had:
            return 0.0
        grid = np.array(space.stages[stage].samples, float)
        costs = space.costs[stage][model]
        asked = np.array([had, samples], float)
        low, high = np.interp(asked, [0.0, *grid[grid > 0]], [0.0, *costs[grid > 0]])
        return float(high - low) * self.environment.questions

    def _draw(self, stage: int, model: int, samples: int) -> tuple[Samples, ...]:
        had = self._counts.get((stage, model), 0)
        if samples <= had:
            return ()
        key = f"{stage}/{model}/{had}-{samples}"
        new = self._each(
            range(self.environment.questions),
            lambda q: self._sampled(f"{key}/{q}", stage, model, q, had, samples),
        )
        for question, one in enumerate(new):
            self._drawn.setdefault((stage, model, question), []).append(one)
            self.spent += sum(one.costs)
        self._counts[stage, model] = samples
        return tuple(new)

    def _sampled(self, key: str, stage: int, model: int, question: int, first: int, last: int) -> Samples:
        row = self.journal.get(key)
        if row is not None:
            return Samples(tuple(row["answers"]), tuple(row["costs"]))
        made = self.environment.sample(stage, model, question, first, last)
        self.paid += sum(made.costs)
        self.journal.add(key, {"answers": list(made.answers), "costs": list(made.costs)})
        return made

    def _voted(self, stage: int, number: int) -> float:
        """The stage's metric with the first samples of every question: how often the vote is right."""
        model, place = self.environment.space.option(stage, number)
        samples = self.environment.space.stages[stage].samples[place]
        first = 0 if self.reuse else self._counts.get((stage, model), 0)
        self._draw(stage, model, first + samples)
        won = []
        for question in range(self.environment.questions):
            drawn = [a for part in self._drawn[stage, model, question] for a in part.answers]
            won.append(Tally.of(drawn[first : first + samples]).won)
        return float(np.mean(won))

    # --- the whole --------------------------------------------------------------------------------------

    def _asked(self, trial: Trial) -> Sequence[int]:
        return range(self.environment.questions) if trial.questions is None else trial.questions

    def _new(self, trial: Trial) -> list[int]:
        return [q for q in self._asked(trial) if (trial.choice, q) not in self._runs]

    def _whole(self, trial: Trial, before: float) -> Result:
        new, step = self._new(trial), 1 if self.workers is None else _ABREAST
        for start in range(0, len(new), step):
            if start and not self.left:
                trial = Trial(trial.choice, tuple(q for q in self._asked(trial) if q not in new[start:]))
                break
            part = new[start : start + step]
            for question, run in zip(part, self._each(part, partial(self._ran, trial.choice)), strict=True):
                self._runs[trial.choice, question] = run
                self.spent += run.cost if run.new is None else run.new
                self.failed += run.failed
        runs = [self._runs[trial.choice, q] for q in self._asked(trial)]
        scores, costs = tuple(r.score for r in runs), tuple(r.cost for r in runs)
        return Result(
            trial, self.spent - before, score=float(np.mean(scores)), scores=scores, costs=costs,
            failed=sum(r.failed for r in runs),
        )  # fmt: skip

    def _ran(self, choice: Choice, question: int) -> Run:
        key = f"{'-'.join(map(str, choice))}/{question}"
        row = self.journal.get(key)
        if row is not None:
            return Run(row["score"], row["cost"], row["failed"], row["new"])
        run = self.environment.run(choice, question)
        checked_scores([run.score], f"question {question}")
        self.paid += run.cost if run.new is None else run.new
        self.journal.add(key, {"score": run.score, "cost": run.cost, "failed": run.failed, "new": run.new})
        return run

    def _each(self, questions: Sequence[int], make: Callable[[int], Made]) -> list[Made]:
        """What `make` makes of every question, in order, side by side where there are workers."""
        if self.workers is None:
            return [make(question) for question in questions]
        waiting: list[Future[Made]] = [self.workers.submit(make, question) for question in questions]
        try:
            return [one.result() for one in waiting]
        finally:
            for one in waiting:
                one.cancel()


def not_apart(space: Space) -> UsageError:
    """The error of a pipeline whose stages were asked for one by one."""
    return UsageError(
        f"The stages of {space.pipeline.name!r} cannot be measured apart.",
        'Use a method for whole pipelines, or set combine = "product" if they are independent.',
    )


def quality_of(space: Space, choice: Choice, stages: Sequence[Floats]) -> float:
    """The quality of a choice, given for every stage that of its options."""
    return float(
        combined(space.pipeline.combine, [np.ravel(one)[n] for one, n in zip(stages, choice, strict=True)])
    )
