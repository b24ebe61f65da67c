"""Recorded traces played back: exact, free and repeatable.

A recording of sampled traces is a JSON file a model and question set:

    {"model": "…", "set": "…", "questions": [{"gold": "204", "traces": [["204", 3403], …]}, …]}

with the final answer of every trace ("ERR": none could be read) and its tokens. `compose` makes a pipeline of
several stages out of such files, each a set or a mix of them; `Replay` draws the traces in an order of its
own a seed. What is drawn is what a live run would have drawn; the truth is known exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.cost import ModelCost, decode_flops
from agentmtl.compute.environment import Run, Samples, not_apart
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.compute.votes import BLANK, RIGHT, Tally, drawn
from agentmtl.errors import UsageError
from agentmtl.schema import Stage

UNREAD = "ERR"  # the answer of a trace from which none could be read
GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_HINT = "See docs/tuning.md for the form of a recording."


@dataclass(frozen=True, slots=True, eq=False)
class Traces:
    """Of one model on some questions: (questions, traces) answers as numbers, and tokens."""

    model: str
    name: str
    answers: NDArray[np.int64]
    tokens: NDArray[np.int64]

    def __getitem__(self, part: slice | Sequence[int]) -> Traces:
        return Traces(self.model, self.name, self.answers[part], self.tokens[part])

    def followed_by(self, other: Traces) -> Traces:
        """The questions of both. Raises UsageError where one has more traces a question."""
        if self.answers.shape[1] != other.answers.shape[1]:
            raise UsageError(
                f"{self.name} has {self.answers.shape[1]} traces a question, {other.name} "
                f"{other.answers.shape[1]}.",
                "Mix recordings of as many traces.",
            )
        joined = [
            np.concatenate(pair) for pair in ((self.answers, other.answers), (self.tokens, other.tokens))
        ]
        return Traces(self.model, f"{self.name}+{other.name}", joined[0], joined[1])

    def accuracies(self, most: int) -> Floats:
        """(questions, most) probabilities that a vote of 1 … `most` traces is right, over all subsets."""
        return np.array([drawn(Tally.of(row.tolist()), most) for row in self.answers])


def read_traces(path: Path) -> Traces:
    """Raises UsageError for a file that is not there or no recording of traces."""
    told = read_told(path)
    try:
        rows = [numbered(one["gold"], one["traces"]) for one in told["questions"]]
        answers, tokens = (np.array([row[n] for row in rows], np.int64) for n in (0, 1))
        model, name = str(told["model"]), str(told["set"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is no recording of traces: {error!r}.", _HINT) from None
    if answers.ndim != 2 or not answers.size or (tokens < 0).any():
        raise UsageError(f"{path} does not hold as many traces for every question.", _HINT)
    return Traces(model, name, answers, tokens)


def read_told(path: Path) -> dict[str, Any]:
    """The JSON of a recording. Raises UsageError where it cannot be read."""
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", _HINT) from None
    except ValueError:
        raise UsageError(f"{path} is no JSON.", _HINT) from None
    return told


def numbered(gold: str, traces: Sequence[Sequence[Any]]) -> tuple[list[int], list[int], dict[str, int]]:
    """Answers as numbers in the order in which they first come, tokens, and the number of each answer."""
    numbers = {UNREAD: BLANK, str(gold): RIGHT}
    answers = [number(numbers, answer) for answer, _ in traces]
    return answers, [int(tokens) for _, tokens in traces], numbers


def number(numbers: dict[str, int], answer: object) -> int:
    """That of an answer; a new one has the next."""
    return numbers.setdefault(str(answer), len(numbers) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A pipeline with the traces of every stage and model, and the FLOPs a token of every model."""

    pipeline: Pipeline
    traces: tuple[tuple[Traces, ...], ...]
    flops: tuple[tuple[float, ...], ...]

    def on(self, questions: Sequence[int]) -> Recorded:
        """The same on some of the questions, such as a half to search on."""
        parts = tuple(tuple(one[list(questions)] for one in stage) for stage in self.traces)
        return Recorded(self.pipeline, parts, self.flops)

    @property
    def questions(self) -> int:
        return len(self.traces[0][0].answers)

    def space(self) -> Space:
        """With the mean recorded cost a question: what a price table would say beforehand."""
        costs = []
        for stage, traces, flops in zip(self.pipeline.stages, self.traces, self.flops, strict=True):
            one = np.array([t.tokens.mean() * f for t, f in zip(traces, flops, strict=True)])
            costs.append(one[:, None] * np.array(stage.samples, float))
        return Space(self.pipeline, tuple(costs))

    def truth(self) -> list[Floats]:
        """For every stage (models, samples): the expected accuracy of the vote, exactly."""
        found = []
        for stage, traces in zip(self.pipeline.stages, self.traces, strict=True):
            places = np.array(stage.samples) - 1
            found.append(np.array([t.accuracies(stage.samples[-1]).mean(0)[places] for t in traces]))
        return found


def compose(
    stages: Mapping[str, Sequence[Traces]],
    parameters: Mapping[str, float],
    samples: Sequence[int] = GRID,
    name: str = "replay",
) -> Recorded:
    """A pipeline whose stages are question sets: for each, the traces of every model.

    `parameters`: of every model, active. Its unit are FLOPs, its metric the product of the stages'
    accuracies. Raises UsageError where a model is unknown, models of a stage differ in their questions, or
    more samples are asked for than there are traces.
    """
    made = []
    for stage, traces in stages.items():
        unknown = [t.model for t in traces if t.model not in parameters]
        if unknown:
            raise UsageError(f"How large is {unknown[0]}?", "Give its active parameters.")
        shapes = {t.answers.shape for t in traces}
        if len(shapes) > 1:
            raise UsageError(f"The models of stage {stage!r} were recorded on other questions.", _HINT)
        if samples and max(samples) > shapes.pop()[1]:
            raise UsageError(
                f"Stage {stage!r} has fewer than {max(samples)} traces a question.", "Ask for fewer samples."
            )
        made.append(Stage(stage, tuple(t.model for t in traces), tuple(samples)))
    if len({len(traces[0].answers) for traces in stages.values()}) > 1:
        raise UsageError("The stages have different numbers of questions.", "Take as many of each.")
    flops = tuple(
        tuple(decode_flops(parameters[t.model], 0, 1) for t in traces) for traces in stages.values()
    )
    return Recorded(Pipeline(name, tuple(made)), tuple(map(tuple, stages.values())), flops)


def matching(pipeline: Pipeline, folder: Path) -> Recorded:
    """The traces in a folder that are of a pipeline's stages, by the set's name, and of its models.

    Raises UsageError where a model of a stage was not recorded or differs in its questions, or where a token
    of it has no cost in the pipeline's unit.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        if not path.name.endswith(".probes.json"):
            read = read_traces(path)
            found[read.name, read.model] = read
    stages: dict[str, list[Traces]] = {}
    for stage in pipeline.stages:
        missing = [m for m in stage.models if (stage.name, m) not in found]
        if missing:
            known = ", ".join(sorted({f"{name} of {model}" for name, model in found})) or "nothing"
            raise UsageError(
                f"{folder} has no traces of {missing[0]!r} for stage {stage.name!r}; it has {known}.",
                "Name stages and models as the recordings do.",
            )
        stages[stage.name] = [found[stage.name, m] for m in stage.models]
    most = max(stage.samples[-1] for stage in pipeline.stages)
    alike = {model: 1.0 for stage in pipeline.stages for model in stage.models}
    composed = compose(stages, alike, (1, most) if most > 1 else (1,))  # checks that they fit together
    each = tuple(tuple(_a_token(pipeline, m) for m in stage.models) for stage in pipeline.stages)
    return Recorded(pipeline, composed.traces, each)


def _a_token(pipeline: Pipeline, model: str) -> float:
    """What a token of an output costs in the pipeline's unit."""
    known = pipeline.models.get(model, ModelCost())
    cost = replace(known, prompt_tokens=0.0, output_tokens=1.0).expected(1, pipeline.unit)
    if pipeline.unit not in ("flops", "tokens", "usd") or not cost:
        raise UsageError(
            f"A token of {model} has no cost in {pipeline.unit}.",
            f"Add [models.{model!r}] with parameters or usd_out, or set unit to flops, tokens or usd.",
        )
    return cost


@dataclass(frozen=True, eq=False)
class Replay:
    """An environment that draws a recording's traces, for every stage, model and question in an order of its
    own: the same for the same seed."""

    recorded: Recorded
    seed: int = 0
    prices: Space | None = None  # what is known of costs beforehand; None: the means of this recording
    _orders: dict[tuple[int, int, int, int], NDArray[np.int64]] = field(default_factory=dict, repr=False)

    @cached_property
    def space(self) -> Space:
        return self.prices or self.recorded.space()

    @property
    def questions(self) -> int:
        return self.recorded.questions

    def _order(self, stage: int, model: int, question: int, turn: int) -> NDArray[np.int64]:
        """The order of the traces when they are gone through for the first time, the second …"""
        key = stage, model, question, turn
        if key not in self._orders:
            rng = np.random.default_rng([self.seed, *key])
            self._orders[key] = rng.permutation(self.recorded.traces[stage][model].answers.shape[1])
        return self._orders[key]

    def sample(self, stage: int, model: int, question: int, first: int, last: int) -> Samples:
        """Where more are asked for than were recorded, they are gone through again in another order."""
        traces, each = self.recorded.traces[stage][model], self.recorded.flops[stage][model]
        recorded = traces.answers.shape[1]
        turns = [
            self._order(stage, model, question, t) for t in range(first // recorded, -(-last // recorded))
        ]
        skipped = first - first % recorded
        places = np.concatenate(turns)[first - skipped : last - skipped]
        answers, tokens = traces.answers[question, places], traces.tokens[question, places]
        return Samples(tuple(answers.tolist()), tuple((tokens * each).tolist()))

    def run(self, choice: Choice, question: int) -> Run:
        raise not_apart(self.space)
