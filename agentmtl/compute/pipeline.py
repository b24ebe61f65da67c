"""A pipeline as data: its stages, what each may be given, and how their qualities become one.

name = "olympiad"
unit = "flops"            # flops | tokens | usd | seconds | calls
combine = "product"       # of the stages' metrics; or mean, or end: only the whole can be measured

[[stages]]
name = "solve"
models = ["small", "large"]
samples = [1, 2, 4, 8]
aggregator = "majority"

[models.small]
parameters = 1.7e9
prompt_tokens = 200
output_tokens = 900
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from agentmtl.compute.cost import ModelCost, Unit, as_unit, parse_models
from agentmtl.errors import UsageError
from agentmtl.schema import Share, Stage

Combine: TypeAlias = Literal["product", "mean", "end"]
COMBINES: tuple[Combine, ...] = get_args(Combine)
_KEYS = {"name", "unit", "combine", "metric", "stages", "models"}
_STAGE_KEYS = {"name", "models", "samples", "aggregator"}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages in the order in which they run. A metric lies between 0 and 1, more being better.

    Raises UsageError where there is no stage, two of one name, an empty or unsorted grid, or no model.
    """

    name: str
    stages: tuple[Stage, ...]
    unit: Unit = "flops"
    combine: Combine = "product"
    metric: str = "accuracy"
    models: Mapping[str, ModelCost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.stages:
            raise UsageError(f"The pipeline {self.name!r} has no stages.", "Declare at least one [[stages]].")
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"Two stages are called {', '.join(twice)}.", "Give every stage its own name.")
        for stage in self.stages:
            _check_stage(stage)

    @property
    def size(self) -> int:
        """How many configurations there are."""
        size = 1
        for stage in self.stages:
            size *= len(stage.models) * len(stage.samples)
        return size

    def share(self, stage: int, model: int, samples: int) -> Share:
        """What a stage is given, by the places of the model and of the number of samples."""
        one = self.stages[stage]
        return Share(one.models[model], one.samples[samples], one.aggregator)

    def stage(self, name: str) -> Stage:
        """Raises UsageError where there is none of that name."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages)
        raise UsageError(f"The pipeline {self.name!r} has no stage {name!r}.", f"It has: {known}.")

    @property
    def digest(self) -> str:
        """Of what a recording or a journal must match: stages, models, grids, unit, how they combine."""
        told = [
            self.unit, self.combine, self.metric,
            [[s.name, list(s.models), list(s.samples), s.aggregator] for s in self.stages],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _check_stage(stage: Stage) -> None:
    if not stage.models:
        raise UsageError(
            f"Stage {stage.name!r} has no models.", "Name at least one; one is not searched for."
        )
    if len(set(stage.models)) < len(stage.models):
        raise UsageError(f"Stage {stage.name!r} names a model twice.", "Name each once.")
    if not stage.samples:
        raise UsageError(
            f"The grid of samples of stage {stage.name!r} is empty.", "Write samples = [1, 2, 4]."
        )
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in stage.samples):
        raise UsageError(
            f"Stage {stage.name!r} cannot draw {list(stage.samples)} samples.",
            "Write whole numbers from 0 on.",
        )
    if list(stage.samples) != sorted(set(stage.samples)):
        raise UsageError(
            f"The samples of stage {stage.name!r} are not in ascending order: {list(stage.samples)}.",
            "Write each number once, the smallest first.",
        )


def checked_scores(scores: Sequence[float], where: str) -> None:
    """Raises UsageError for a metric that is NaN or lies outside [0, 1]."""
    for score in scores:
        if not isfinite(score) or not 0 <= score <= 1:
            raise UsageError(
                f"The metric of {where} is {score}, which is not within 0 and 1.",
                "Scale it, and give a run that failed a score of 0.",
            )


def load_pipeline(path: Path) -> Pipeline:
    """Raises UsageError for a file that is not there, no TOML, or no pipeline."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", "See docs/tuning.md for the form."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}.", "See docs/tuning.md for the form.") from None
    return parse_pipeline(table, path.stem)


def parse_pipeline(table: Mapping[str, Any], name: str = "pipeline") -> Pipeline:
    """The pipeline of a parsed TOML file. Raises UsageError for what is no pipeline."""
    _known(table, _KEYS, "A pipeline")
    combine = table.get("combine", "product")
    if combine not in COMBINES:
        raise UsageError(f"Stages cannot be combined by {combine!r}.", f"Use one of: {', '.join(COMBINES)}.")
    return Pipeline(
        str(table.get("name", name)),
        tuple(_stage(one) for one in table.get("stages", [])),
        as_unit(str(table.get("unit", "flops"))),
        combine,
        str(table.get("metric", "accuracy")),
        parse_models(table.get("models", {})),
    )


def _stage(table: Mapping[str, Any]) -> Stage:
    _known(table, _STAGE_KEYS, "A stage")
    if not table.get("name"):
        raise UsageError("A stage has no name.", 'Write name = "…" below [[stages]].')
    return Stage(
        str(table["name"]),
        tuple(map(str, table.get("models", [""]))),
        tuple(table.get("samples", [1])),
        str(table.get("aggregator", "majority")),
    )


def _known(table: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise UsageError(
            f"{what} has unknown keys: {', '.join(unknown)}.", f"Known: {', '.join(sorted(known))}."
        )
