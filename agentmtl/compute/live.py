"""A pipeline that runs: any callables as stages, each output kept and used again.

    live = Live(pipeline, questions, {"find": find, "read": read}, metric, costs)

A stage is called with the question, what the stage before gave (None for the first), the model's name and a
number. Where its aggregator is "setting" the number is that of its samples and it is called once: how many
passages, how wide a beam. Otherwise it is called once a sample, with the number of the sample, and the
aggregator of that name makes one value of them.

An output is kept by stage, model, number, question and the digest of what it was made from. So a
configuration that shares its first stages with another pays for the rest only, and 8 samples contain 4. With
a journal, outputs that JSON can hold outlive the process; of each is noted for which run it was made, so that
a search that is resumed keeps the same account.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agentmtl.compute.cost import amount
from agentmtl.compute.environment import Run, Samples, not_apart
from agentmtl.compute.journal import Journal
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.errors import AgentmtlError, UsageError
from agentmtl.schema import SETTING, Usage


@dataclass(frozen=True, slots=True)
class Output:
    """What a stage gave and what that cost. `digest` names the value for the stages after it."""

    value: Any
    usage: Usage
    digest: str = ""


Call: TypeAlias = Callable[[Any, Any, str, int], Output]
Metric: TypeAlias = Callable[[Any, Any], float]
Aggregate: TypeAlias = Callable[[Sequence[Any]], Any]


def majority(values: Sequence[Any]) -> Any:
    """The most frequent, the first of those alike."""
    return Counter(values).most_common(1)[0][0]


def first(values: Sequence[Any]) -> Any:
    return values[0]


AGGREGATES: Mapping[str, Aggregate] = {"majority": majority, "first": first}


@dataclass(slots=True)
class Live:
    """An environment of a pipeline whose qualities combine by "end". Safe to use from several threads, if the
    stages are.

    `costs`: what is expected of every stage's options beforehand. A question on which a stage
    raises an AgentmtlError scores 0 and counts as failed. Raises UsageError for a stage without a callable,
    or an aggregator that is unknown.
    """

    pipeline: Pipeline
    items: Sequence[Any]
    stages: Mapping[str, Call]
    metric: Metric
    costs: tuple[Floats, ...]
    aggregates: Mapping[str, Aggregate] = field(default_factory=lambda: AGGREGATES)
    journal: Journal = field(default_factory=Journal)
    space: Space = field(init=False)
    _kept: dict[str, tuple[Output, str]] = field(init=False, default_factory=dict)  # with the run it was for
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for stage in self.pipeline.stages:
            if stage.name not in self.stages:
                raise UsageError(f"Nothing runs stage {stage.name!r}.", "Give a callable of that name.")
            if stage.aggregator != SETTING and stage.aggregator not in self.aggregates:
                known = ", ".join([SETTING, *self.aggregates])
                raise UsageError(f"There is no aggregator {stage.aggregator!r}.", f"Use one of: {known}.")
        self.space = Space(self.pipeline, self.costs)

    @property
    def questions(self) -> int:
        return len(self.items)

    def sample(self, stage: int, model: int, question: int, first: int, last: int) -> Samples:
        raise not_apart(self.space)

    def run(self, choice: Choice, question: int) -> Run:
        """One question through all stages. Raises what a stage raises that is no AgentmtlError."""
        run = f"{'-'.join(map(str, choice))}/{question}"
        value, digest, cost, new = None, "", 0.0, 0.0
        for place, number in enumerate(choice):
            model, grid = self.space.option(place, number)
            stage = self.pipeline.stages[place]
            share = place, stage.models[model], stage.samples[grid]
            try:
                outputs = self._outputs(*share, question, value, digest, run)
            except AgentmtlError:
                return Run(0.0, cost, True, new)
            costs = [amount(one.usage, self.pipeline.unit) for one, _ in outputs]
            cost += sum(costs)
            new += sum(c for c, (_, made_for) in zip(costs, outputs, strict=True) if made_for == run)
            value, digest = self._one(stage.aggregator, [one for one, _ in outputs])
        return Run(float(self.metric(self.items[question], value)), cost, False, new)

    def _outputs(
        self, place: int, model: str, samples: int, question: int, value: Any, digest: str, run: str
    ) -> list[tuple[Output, str]]:
        """The outputs of a stage, each with the run that it was made for."""
        stage = self.pipeline.stages[place]
        numbers = [samples] if stage.aggregator == SETTING else list(range(samples))
        found = []
        for number in numbers:
            key = f"{stage.name}/{model}/{number}/{question}/{digest}"
            kept = self._known(key)
            if kept is None:
                kept = self.stages[stage.name](self.items[question], value, model, number), run
                self._keep(key, *kept)
            found.append(kept)
        return found

    def _known(self, key: str) -> tuple[Output, str] | None:
        with self._lock:
            kept = self._kept.get(key)
        row = self.journal.get(key) if kept is None else None
        if row is not None:
            return Output(row["value"], Usage(**row["usage"]), row["digest"]), row["run"]
        return kept

    def _keep(self, key: str, output: Output, run: str) -> None:
        with self._lock:
            self._kept[key] = output, run
        row = {"value": output.value, "usage": output.usage.to_json(), "digest": output.digest, "run": run}
        if _is_plain(output.value):
            self.journal.add(key, row)

    def _one(self, aggregator: str, outputs: Sequence[Output]) -> tuple[Any, str]:
        """What goes on to the next stage, and its digest."""
        if aggregator == SETTING:
            return outputs[0].value, outputs[0].digest or digest_of(outputs[0].value)
        value = self.aggregates[aggregator]([one.value for one in outputs])
        return value, digest_of(value)


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold it."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def digest_of(value: Any) -> str:
    """Of a value that JSON can hold. Raises UsageError for another, whose stage must name it itself."""
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    except TypeError:
        raise UsageError(
            f"A stage gave a {type(value).__name__}, which has no digest.", "Give Output(…, digest=…)."
        ) from None
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
