"""Recordings of whole pipelines: what every configuration scored and cost on every question.

A JSON Lines file. Its first line holds the pipeline, the expected costs and the number of questions; each of
the others is a run:

    {"choice": [3, 0], "question": 7, "score": 0.5, "cost": 0.012}

`record` makes one of any environment; `Table` plays it back. A file is refused that belongs to another
pipeline, lacks a configuration, or holds a score outside 0 and 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.compute.environment import Environment, Run, Samples, not_apart
from agentmtl.compute.pipeline import Pipeline, checked_scores, parse_pipeline
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.errors import UsageError

FORMAT = 1
_HINT = "Record the pipeline again."


def record(
    environment: Environment,
    path: Path,
    choices: Iterable[Choice] | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> None:
    """Run every configuration (or those given) on every question, and write what came of it. `told` hears
    how many runs are done."""
    space = environment.space
    every = choices if choices is not None else product(*(range(cost.size) for cost in space.costs))
    done = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(_header(space, environment.questions)) + "\n")
        for choice in every:
            for question in range(environment.questions):
                run = environment.run(choice, question)
                row = {"choice": list(choice), "question": question, "score": run.score, "cost": run.cost}
                file.write(json.dumps(row) + "\n")
                done += 1
                told(done)


def _header(space: Space, questions: int) -> dict[str, Any]:
    pipeline = space.pipeline
    return {
        "format": FORMAT, "questions": questions, "costs": [cost.tolist() for cost in space.costs],
        "pipeline": {
            "name": pipeline.name, "unit": pipeline.unit, "combine": pipeline.combine,
            "metric": pipeline.metric, "stages": [asdict(stage) for stage in pipeline.stages],
        },
    }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """An environment of recorded runs: (configurations, questions) scores and costs."""

    space: Space
    scores: Floats
    costs: Floats

    @property
    def questions(self) -> int:
        return int(self.scores.shape[1])

    def sample(self, stage: int, model: int, question: int, first: int, last: int) -> Samples:
        raise not_apart(self.space)

    def run(self, choice: Choice, question: int) -> Run:
        place = self.place(choice)
        return Run(float(self.scores[place, question]), float(self.costs[place, question]))

    def place(self, choice: Choice) -> int:
        """The row of a configuration."""
        sizes = [cost.size for cost in self.space.costs]
        return int(np.ravel_multi_index(choice, sizes))

    def on(self, questions: Iterable[int]) -> Table:
        """The same on some of the questions."""
        part = list(questions)
        return Table(self.space, self.scores[:, part], self.costs[:, part])


def read_recording(path: Path, pipeline: Pipeline | None = None) -> Table:
    """What `record` wrote. Raises UsageError for a file that is not there, no recording, one of another
    pipeline than that given, or an incomplete one."""
    try:
        head, *lines = path.read_text("utf-8").splitlines()
        header, rows = json.loads(head), [json.loads(line) for line in lines]
        found = parse_pipeline(header["pipeline"])
        space = Space(found, tuple(np.array(cost, np.float64) for cost in header["costs"]))
        shape = found.size, int(header["questions"])
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", _HINT) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no recording: {error!r}.", _HINT) from None
    if pipeline is not None and pipeline.digest != found.digest:
        raise UsageError(
            f"{path} was recorded of another pipeline: {found.name!r} with the stages "
            f"{', '.join(stage.name for stage in found.stages)}.",
            "Give the recording of this pipeline, or record it.",
        )
    table = Table(space, np.full(shape, np.nan), np.full(shape, np.nan))
    for row in rows:
        _fill(table, row, path)
    missing = int(np.isnan(table.scores).sum())
    if missing:
        raise UsageError(f"{path} lacks {missing:,} of {table.scores.size:,} runs.", _HINT)
    return table


def _fill(table: Table, row: dict[str, Any], path: Path) -> None:
    try:
        place, question = table.place(tuple(row["choice"])), int(row["question"])
        score, cost = float(row["score"]), float(row["cost"])
        checked_scores([score], f"configuration {row['choice']} in {path}")
        table.scores[place, question], table.costs[place, question] = score, cost
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"{path} holds a row that is no run: {error!r}.", _HINT) from None
