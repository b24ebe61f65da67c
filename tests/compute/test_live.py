"""Any callables as a pipeline: what is kept, what fails, recordings, and the search over whole pipelines."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agentmtl.compute.environment import Bench, Trial
from agentmtl.compute.journal import Journal
from agentmtl.compute.live import Live, Output
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.recording import Table, read_recording, record
from agentmtl.compute.search.base import Setup, run_search
from agentmtl.compute.search.landscape import LandscapeSearch
from agentmtl.compute.search.methods import make_searcher
from agentmtl.errors import ModelError, UsageError
from agentmtl.schema import Stage, Usage

PIPELINE = Pipeline(
    "two",
    (
        Stage("find", ("fast", "slow"), (1, 2, 4), "setting"),
        Stage("say", ("small", "large"), (1, 3), "majority"),
    ),
    unit="calls", combine="end",
)  # fmt: skip
COSTS = (np.array([[1.0, 2, 4], [2.0, 4, 8]]), np.array([[1.0, 3], [2.0, 6]]))


class World:
    """Counts its calls. What `say` says hangs on what `find` found: the stages interact."""

    def __init__(self, questions: int = 20, broken: int = -1) -> None:
        self.calls: Counter[str] = Counter()
        self.items, self.broken = list(range(questions)), broken

    def find(self, question: int, value: object, model: str, number: int) -> Output:
        self.calls["find"] += 1
        found = number * (2 if model == "slow" else 1)
        return Output(found, Usage(calls=found))

    def say(self, question: int, found: int, model: str, number: int) -> Output:
        self.calls["say"] += 1
        if question == self.broken:
            raise ModelError("It broke.", "Try again.")
        rng = np.random.default_rng([question, found, number, len(model)])
        rate = min(0.2 + 0.1 * found, 0.8) if model == "large" else 0.3
        return Output(
            "right" if rng.random() < rate else f"wrong {rng.integers(3)}",
            Usage(calls=2 if model == "large" else 1),
        )

    def live(self, journal: Journal | None = None) -> Live:
        stages = {"find": self.find, "say": self.say}
        return Live(
            PIPELINE, self.items, stages, lambda q, said: float(said == "right"), COSTS,
            journal=Journal() if journal is None else journal,
        )  # fmt: skip


def test_outputs_are_kept_and_paid_once() -> None:
    world = World()
    live = world.live()
    one = live.run((2, 3), 0)  # find fast 4, say large 3
    assert one.cost == one.new == 4 + 6 and world.calls == {"find": 1, "say": 3}
    fewer = live.run((2, 2), 0)  # one sample of the three
    assert (fewer.cost, fewer.new) == (6, 0) and world.calls == {"find": 1, "say": 3}
    other = live.run((3, 2), 0)  # find slow 1: other evidence, so say runs again
    assert (other.cost, other.new) == (4, 4)
    same = live.run((1, 2), 0)  # find fast 2 finds the same as slow 1: only find is paid
    assert (same.cost, same.new) == (4, 2)


def test_failures_are_counted_and_not_hidden() -> None:
    bench = Bench(World(broken=3).live(), np.inf)
    result = bench.measure(Trial((0, 0)))
    assert result.failed == bench.failed == 1 and result.scores[3] == 0 and result.cost == 20 + 19


@pytest.mark.parametrize("bad", [float("nan"), 2.0, -1.0])
def test_a_metric_outside_its_range_is_an_error(bad: float) -> None:
    world = World()
    live = Live(PIPELINE, world.items, {"find": world.find, "say": world.say}, lambda q, s: bad, COSTS)
    with pytest.raises(UsageError, match="within 0 and 1"):
        Bench(live, np.inf).measure(Trial((0, 0)))


def test_what_cannot_run_is_refused() -> None:
    world = World()
    with pytest.raises(UsageError, match="Nothing runs stage 'say'"):
        Live(PIPELINE, world.items, {"find": world.find}, lambda q, s: 1.0, COSTS)
    strange = Pipeline("x", (Stage("say", ("m",), (1,), "magic"),), combine="end")
    with pytest.raises(UsageError, match="no aggregator 'magic'"):
        Live(strange, world.items, {"say": world.say}, lambda q, s: 1.0, (np.ones((1, 1)),))
    with pytest.raises(UsageError, match="apart"):
        world.live().sample(0, 0, 0, 0, 1)


def test_workers_change_nothing() -> None:
    alone = Bench(World().live(), np.inf).measure(Trial((2, 3)))
    with ThreadPoolExecutor(4) as workers:
        assert Bench(World().live(), np.inf, workers=workers).measure(Trial((2, 3))) == alone


@pytest.mark.parametrize("side", [1, 4])
def test_a_trial_ends_where_the_search_may_cost_no_more(side: int) -> None:
    """Its result is of the questions that were asked; whoever resumes comes to the same."""
    with ThreadPoolExecutor(side) as workers:
        bench = Bench(World(40).live(), 61, workers=workers if side > 1 else None)
        result = bench.measure(Trial((2, 3)))  # ten calls a question
    assert isinstance(result.proposal, Trial) and result.proposal.questions is not None
    asked = len(result.proposal.questions)
    assert asked == len(result.scores) == (7 if side == 1 else 16)
    assert bench.spent == result.cost == 10 * asked


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [0, 5, 40])
def test_a_killed_live_search_resumes_to_the_same_end(after: int, tmp_path: Path) -> None:
    def searched(world: World, outputs: Journal, runs: Journal) -> tuple[object, Bench]:
        bench = Bench(world.live(outputs), 900, runs)
        made = LandscapeSearch(Setup(bench.environment.space, 20, (10.0,), 3))
        run_search(made, bench)
        return made.recommend(10.0), bench

    whole, bench = searched(World(), Journal(), Journal())
    world, first = World(), World()

    class Dying(Journal):
        def add(self, key: str, value: object) -> None:
            if len(self) >= after:
                raise Killed
            super().add(key, value)

    with pytest.raises(Killed):
        searched(first, Journal(tmp_path / "outputs.jsonl"), Dying(tmp_path / "runs.jsonl"))
    again, resumed = searched(world, Journal(tmp_path / "outputs.jsonl"), Journal(tmp_path / "runs.jsonl"))
    assert again == whole and resumed.spent == bench.spent
    fresh = World()
    searched(fresh, Journal(), Journal())
    assert first.calls + world.calls == fresh.calls  # no stage was called twice


def table(tmp_path: Path, questions: int = 60) -> Table:
    path = tmp_path / "two.jsonl"
    record(World(questions).live(), path)
    return read_recording(path, PIPELINE)


def test_a_recording_plays_back_what_was_run(tmp_path: Path) -> None:
    played, live = table(tmp_path, 8), World(8).live()
    assert played.questions == 8 and played.scores.shape == (24, 8)
    for choice in ((0, 0), (5, 3), (2, 1)):
        for question in range(8):
            assert played.run(choice, question).score == live.run(choice, question).score
    assert played.on([1, 3]).run((5, 3), 1).score == played.run((5, 3), 3).score


def test_recordings_that_do_not_match_are_refused(tmp_path: Path) -> None:
    table(tmp_path, 4)
    path = tmp_path / "two.jsonl"
    other = Pipeline("other", (Stage("find", ("fast",), (1,)),))
    with pytest.raises(UsageError, match="another pipeline"):
        read_recording(path, other)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]))
    with pytest.raises(UsageError, match="lacks 2 of 96 runs"):
        read_recording(path)
    row = json.loads(lines[-1])
    for changed in ({"score": 1.5}, {"score": float("nan")}, {"choice": [9, 9]}, {"choice": 1}):
        path.write_text("\n".join([*lines[:-1], json.dumps({**row, **changed})]))
        with pytest.raises(UsageError):
            read_recording(path)
    path.write_text("x")
    with pytest.raises(UsageError, match="no recording"):
        read_recording(path)


def best(played: Table, budget: float) -> float:
    means = played.scores.mean(1)
    inside = [c for c in np.ndindex(6, 4) if played.space.cost(c) <= budget]
    return float(max(means[played.place(c)] for c in inside))


def test_the_landscape_search_finds_a_good_configuration_where_stages_interact(tmp_path: Path) -> None:
    played, shares = table(tmp_path), []
    for seed in range(8):
        bench = Bench(played, 2500)
        made = make_searcher("landscape", Setup(played.space, played.questions, (9.0, 14.0), seed))
        run_search(made, bench)
        assert bench.spent <= 2500
        for budget in (9.0, 14.0):
            found = made.recommend(budget)
            assert played.space.cost(found.choice) <= budget and found.low <= found.quality <= found.high
            shares.append(played.scores.mean(1)[played.place(found.choice)] / best(played, budget))
    assert np.mean(shares) > 0.93


@pytest.mark.parametrize("method", ["random", "evolution", "coordinate", "brute-force"])
def test_other_methods_search_whole_pipelines_too(method: str, tmp_path: Path) -> None:
    played = table(tmp_path, 10)
    made = make_searcher(method, Setup(played.space, 10, (9.0,), 0))
    run_search(made, Bench(played, 600))
    assert played.space.cost(made.recommend(9.0).choice) <= 9.0
