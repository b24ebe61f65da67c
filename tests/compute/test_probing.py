"""Samples that are ended once what they would answer has settled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.compute.probing import Settled, read_probed, settled
from agentmtl.compute.votes import BLANK, RIGHT
from agentmtl.errors import UsageError

TRACES = {"model": "m", "set": "s", "questions": [{"gold": "7", "traces": [["7", 2300], ["ERR", 900]]}]}
PROBES = {
    "model": "m", "set": "s", "interval_tokens": 500,
    "questions": [{"answers": ["3", "7", "ERR"], "probes": [[2, 0, 1, 1, 1], [2, 2]]}],
}  # fmt: skip


def files(tmp_path: Path, probes: object = PROBES) -> tuple[Path, Path]:
    first, second = tmp_path / "t.json", tmp_path / "p.json"
    first.write_text(json.dumps(TRACES))
    second.write_text(json.dumps(probes))
    return first, second


def test_a_sample_is_ended_where_its_answer_has_settled(tmp_path: Path) -> None:
    probed = read_probed(*files(tmp_path))
    answers, tokens = Settled(2, each=10).apply(probed)
    assert answers.tolist() == [[RIGHT, BLANK]]
    assert tokens.tolist() == [[4 * 500 + 4 * 10, 900 + 2 * 10]]  # the second never says anything
    answers, tokens = Settled(1, each=0).apply(probed)
    assert answers[0, 0] not in (RIGHT, BLANK) and tokens[0, 0] == 1000
    answers, tokens = Settled().apply(probed)
    assert answers.tolist() == [[RIGHT, BLANK]] and tokens.tolist() == [[2300, 900]]


def test_the_last_probe_is_no_dearer_than_the_end(tmp_path: Path) -> None:
    _, tokens = Settled(3, each=10).apply(read_probed(*files(tmp_path)))
    assert tokens[0, 0] == 2300 + 5 * 10  # five probes of 500 tokens would be more than there were


@given(st.lists(st.integers(-1, 3), max_size=30), st.integers(1, 6))
def test_settled_is_the_first_run_of_that_length(said: list[int], agree: int) -> None:
    runs = [
        end
        for end in range(agree, len(said) + 1)
        if len(set(said[end - agree : end])) == 1 and said[end - 1] != BLANK
    ]
    assert settled(np.array(said, np.int64), agree) == (runs[0] if runs else None)


@pytest.mark.parametrize(
    "change",
    [
        {"questions": []},
        {"questions": [{"answers": ["7"], "probes": [[0]]}]},
        {"questions": [{"answers": ["7"], "probes": [[0], [9]]}]},
        {"interval_tokens": "x"},
    ],
)
def test_probes_of_other_traces_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        read_probed(*files(tmp_path, {**PROBES, **change}))
    with pytest.raises(UsageError, match="cannot be read"):
        read_probed(tmp_path / "none.json", tmp_path / "p.json")
