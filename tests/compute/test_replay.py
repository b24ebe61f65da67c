"""Recordings read, composed and played back; their truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agentmtl.compute.environment import Bench, Draw, Trial
from agentmtl.compute.replay import Replay, compose, read_traces
from agentmtl.compute.votes import BLANK, RIGHT
from agentmtl.errors import UsageError

from .worlds import GRID, PARAMETERS, recorded, traces

TOLD = {
    "model": "small", "set": "toy",
    "questions": [
        {"gold": "7", "traces": [["7", 10], ["8", 20], ["ERR", 5], ["8", 1]]},
        {"gold": "1", "traces": [["2", 10], ["1", 20], ["3", 5], ["2", 1]]},
    ],
}  # fmt: skip


def written(folder: Path, told: object) -> Path:
    path = folder / "recording.json"
    path.write_text(json.dumps(told))
    return path


def test_a_recording_is_read(tmp_path: Path) -> None:
    read = read_traces(written(tmp_path, TOLD))
    assert read.answers.tolist() == [[RIGHT, 1, BLANK, 1], [1, RIGHT, 2, 1]]
    assert read.tokens.tolist() == [[10, 20, 5, 1], [10, 20, 5, 1]]
    assert read.accuracies(1)[:, 0].tolist() == [0.25, 0.25]


def of(*questions: object) -> dict[str, object]:
    return {"model": "m", "set": "s", "questions": list(questions)}


@pytest.mark.parametrize(
    "told",
    [
        [], {}, of(), of({"gold": 1}), of({"gold": "1", "traces": [["1", -5]]}),
        of({"gold": "1", "traces": [["1", 5]]}, {"gold": "1", "traces": []}),
    ],
)  # fmt: skip
def test_what_is_no_recording_is_refused(tmp_path: Path, told: object) -> None:
    with pytest.raises(UsageError):
        read_traces(written(tmp_path, told))


def test_what_does_not_fit_together_is_refused() -> None:
    small = traces("small", "first", 0.5)
    for stages, said in [
        ({"a": [small, traces("large", "first", 0.5, 11)]}, "other questions"),
        ({"a": [small], "b": [traces("small", "b", 0.5, 11)]}, "different numbers"),
        ({"a": [traces("huge", "a", 0.5)]}, "How large is huge"),
    ]:
        with pytest.raises(UsageError, match=said):
            compose(stages, PARAMETERS, GRID)
    with pytest.raises(UsageError, match="fewer than 64"):
        compose({"a": [small]}, PARAMETERS, (1, 64))
    with pytest.raises(UsageError, match="as many traces"):
        small.followed_by(traces("small", "b", 0.5, count=8))


def test_mixes_and_halves() -> None:
    one, other = traces("small", "first", 0.5), traces("small", "second", 0.5)
    mix = one[:6].followed_by(other[6:])
    assert (mix.answers[:6] == one.answers[:6]).all() and (mix.answers[6:] == other.answers[6:]).all()
    half = recorded().on(range(0, 12, 2))
    assert half.questions == 6 and (half.traces[0][0].answers == recorded().traces[0][0].answers[::2]).all()


def test_the_truth_is_what_many_replays_average_to() -> None:
    world = recorded()
    truth, found = world.truth(), []
    for seed in range(300):
        bench = Bench(Replay(world, seed), np.inf)
        found.append(bench.measure(Trial((2, 6))).stages)
    assert np.mean(found, axis=0) == pytest.approx([truth[0][0, 2], truth[1][1, 2]], abs=0.012)


def test_samples_are_nested_and_paid_once() -> None:
    bench = Bench(Replay(recorded(), 3), np.inf)
    eight = bench.measure(Draw(0, 1, 8))
    assert eight.cost == pytest.approx(sum(sum(s.costs) for s in eight.samples)) and eight.cost > 0
    assert bench.measure(Draw(0, 1, 4)).cost == 0 and bench.measure(Draw(0, 1, 8)).samples == ()
    assert bench.expected(Draw(0, 1, 8)) == 0 < bench.expected(Draw(0, 0, 1))
    assert bench.spent == eight.cost == bench.paid


def test_without_reuse_every_trial_draws_its_own() -> None:
    bench = Bench(Replay(recorded(), 3), np.inf, reuse=False)
    first, second = bench.measure(Trial((0, 0))), bench.measure(Trial((0, 0)))
    assert first.cost > 0 and second.cost > 0 and first.cost != second.cost
    for _ in range(40):  # more than were recorded: they are gone through again
        bench.measure(Trial((0, 0)))


def test_replays_are_the_same_for_the_same_seed() -> None:
    one, same, other = (Replay(recorded(), seed).sample(0, 0, 5, 0, 32) for seed in (1, 1, 2))
    assert one == same != other
    assert sorted(one.answers) == sorted(other.answers)
    part = Replay(recorded(), 1).sample(0, 0, 5, 30, 40)
    assert part.answers[:2] == one.answers[30:]


def test_stages_apart_only() -> None:
    with pytest.raises(UsageError, match="apart"):
        Replay(recorded()).run((0, 0), 0)
