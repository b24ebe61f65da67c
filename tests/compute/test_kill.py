"""`agentmtl tune`, killed for real: what is resumed comes to the same end and pays nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..conftest import environment_in

STAGES = ("algebra", "geometry")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages of 40 questions, two models, 64 recorded answers each."""
    place = tmp_path_factory.mktemp("kill")
    (place / "traces").mkdir()
    rng = np.random.default_rng(5)
    stages = [
        f'[[stages]]\nname = "{s}"\nmodels = ["small", "large"]\nsamples = [1, 2, 4, 8, 16]\n' for s in STAGES
    ]
    (place / "p.toml").write_text('name = "sums"\nunit = "tokens"\n' + "".join(stages))
    for stage in STAGES:
        for model, tokens, rate in (("small", 100, 0.4), ("large", 700, 0.7)):
            right = rng.random((40, 64)) < rng.beta(4 * rate, 4 * (1 - rate), (40, 1))
            said = np.where(right, 7, rng.integers(10, 15, right.shape))
            asked = [{"gold": "7", "traces": [[str(a), tokens] for a in row]} for row in said]
            told = {"model": model, "set": stage, "questions": asked}
            (place / "traces" / f"{model}-{stage}.json").write_text(json.dumps(told))
    return place


def tune(place: Path, out: str, *more: str) -> dict[str, Any]:
    """The arguments of a process: what it runs, where, with which settings."""
    arguments = ["tune", "p.toml", "--replay", "traces", "--budget", "6000", "--search-budget", "3e6"]
    called = [sys.executable, "-m", "agentmtl", *arguments, "--out", out, "--json", *more]
    return {"args": called, "cwd": place, "env": environment_in(place)}


def test_a_killed_search_goes_on_where_it_was(place: Path) -> None:
    whole = subprocess.run(**tune(place, "whole"), capture_output=True, text=True, timeout=120, check=True)
    journal = place / "killed" / "journal-racing.jsonl"
    killed = subprocess.Popen(**tune(place, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = len((place / "whole" / "journal-racing.jsonl").read_text().splitlines())
    while killed.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < rows // 3):
        time.sleep(0.002)
    assert killed.poll() is None, "it ended before it could be killed"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 0 < journal.read_bytes().count(b"\n") < rows
    resumed = subprocess.run(
        **tune(place, "killed", "--resume"), capture_output=True, text=True, timeout=120, check=True
    )
    first, second = json.loads(whole.stdout), json.loads(resumed.stdout)
    for name in ("recommended", "interval", "tied", "frontier"):
        assert first[name] == second[name]
    assert second["spent"]["amount"] == first["spent"]["amount"] > second["spent"]["paid now"] > 0
    keys = Counter(json.loads(line)["key"] for line in journal.read_text().splitlines()[1:])
    assert len(keys) == rows - 1 and max(keys.values()) == 1  # nothing was drawn twice
