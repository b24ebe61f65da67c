"""Pipelines as data, and the errors of those that are none."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from agentmtl.compute.pipeline import Pipeline, checked_scores, load_pipeline, parse_pipeline
from agentmtl.compute.space import Space
from agentmtl.errors import UsageError
from agentmtl.schema import Allocation, Share, Stage

TEXT = """
name = "two"
unit = "tokens"
[[stages]]
name = "find"
models = ["small", "large"]
samples = [1, 2, 4]
[[stages]]
name = "read"
models = ["small"]
samples = [1, 3]
aggregator = "first"
[models.small]
prompt_tokens = 10
output_tokens = 5
[models.large]
prompt_tokens = 10
output_tokens = 50
"""


def two() -> Pipeline:
    return parse_pipeline(tomllib.loads(TEXT))


def test_a_file_says_the_same_as_python(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(TEXT)
    pipeline = load_pipeline(path)
    assert pipeline == two() and pipeline.size == 12
    assert pipeline.stage("read") == Stage("read", ("small",), (1, 3), "first")


def test_the_digest_is_of_what_a_recording_must_match() -> None:
    changed = TEXT.replace("[1, 2, 4]", "[1, 2, 5]")
    assert two().digest == parse_pipeline(tomllib.loads(TEXT.replace('"two"', '"other"'))).digest
    assert two().digest != parse_pipeline(tomllib.loads(changed)).digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[1, 2, 4]", "[]", "grid of samples of stage 'find' is empty"),
        ("[1, 2, 4]", "[4, 2]", "ascending"),
        ("[1, 2, 4]", "[1, -2]", "cannot draw"),
        ("[1, 2, 4]", "[1, 2.5]", "cannot draw"),
        ('["small"]', "[]", "no models"),
        ('["small", "large"]', '["small", "small"]', "twice"),
        ('"read"', '"find"', "Two stages"),
        ('unit = "tokens"', 'unit = "joules"', "joules"),
        ('unit = "tokens"', 'combine = "max"', "max"),
        ('unit = "tokens"', "speed = 3", "speed"),
        ('aggregator = "first"', "colour = 1", "colour"),
    ],
)
def test_what_is_no_pipeline_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_pipeline(tomllib.loads(TEXT.replace(old, new)))


def test_files_that_are_no_pipelines(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_pipeline(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("stages = [")
    with pytest.raises(UsageError, match="no TOML"):
        load_pipeline(tmp_path / "bad.toml")
    with pytest.raises(UsageError, match="no stages"):
        parse_pipeline({})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1, 1.5])
def test_a_metric_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="within 0 and 1"):
        checked_scores([0.5, bad], "stage find")


def test_a_budget_below_the_cheapest_says_what_that_costs() -> None:
    space = Space.expected(two())
    assert space.cheapest == 30
    with pytest.raises(UsageError, match="the cheapest costs 30"):
        space.check_budget(29)
    space.check_budget(30)


def test_costs_must_be_known() -> None:
    bare = Pipeline("bare", (Stage("s", ("m",), (1,)),))
    with pytest.raises(UsageError, match="what m costs"):
        Space.expected(bare)
    with pytest.raises(UsageError, match="one number of 0 or more"):
        Space(bare, (np.array([[np.nan]]),))


def test_choices_and_allocations_are_the_same_thing() -> None:
    space = Space.expected(two())
    allocation = Allocation({"find": Share("large", 2), "read": Share("small", 3, "first")})
    choice = space.choice(allocation)
    assert choice == (4, 1) and space.allocation(choice) == allocation
    assert space.cost(choice) == 110 + 25
    with pytest.raises(UsageError, match="cannot be given 'huge'"):
        space.choice(Allocation({"find": Share("huge", 2)}))


def test_feasible_choices_are_drawn_evenly_and_repairs_are_feasible() -> None:
    space, rng = Space.expected(two()), np.random.default_rng(0)
    inside = [(a, b) for a in range(6) for b in range(2) if space.cost((a, b)) <= 60]
    drawn = [space.feasible(rng, 60) for _ in range(2000)]
    counts = [drawn.count(choice) for choice in inside]
    assert sum(counts) == 2000 and min(counts) > 0.8 * 2000 / len(inside)
    for a in range(6):
        for b in range(2):
            fixed = space.repaired((a, b), 60)
            assert space.cost(fixed) <= 60
            assert fixed == (a, b) or (a, b) not in inside
