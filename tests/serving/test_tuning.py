"""An agent over the real server, tuned on a set with answers, and asked as was found to be best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import NOTES
from .server import Server
from .test_asking import agentmtl

pytestmark = pytest.mark.server

ASKED = [
    ("When was the bridge of Stadby opened?", "1902", "n2"),
    ("Who built the lighthouse of Tarn?", "Mira Holm", "n0"),
    ("When was the lighthouse of Tarn built?", "1871", "n0"),
    ("Where was Mira Holm born?", "Foulby", "n1"),
]
PIPELINE = """name = "tiny"
unit = "tokens"
combine = "end"
metric = "f1"

[[stages]]
name = "read"
models = ["base"]
samples = [1, 3]
aggregator = "setting"

[[stages]]
name = "sample"
models = ["base", "tickets"]
samples = [1, 3]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    data = tmp_path / "set"
    data.mkdir()
    corpus = [{"id": f"n{at}", "title": title, "text": text} for at, (text, title) in enumerate(NOTES)]
    questions = [
        {"id": str(n), "question": asked, "answer": said, "answers": [said], "gold": [gold]}
        for n, (asked, said, gold) in enumerate(ASKED)
    ]
    for name, rows in (("corpus", corpus), ("questions", questions)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "agent.toml").write_text(PIPELINE)
    return tmp_path


def test_an_agent_is_tuned_and_obeys(server: Server, place: Path) -> None:
    for name, model, kind in (("base", "vllm:tiny", "chat"), ("tickets", "tickets", "adapter")):
        added = agentmtl(
            place, "experts", "add", name, "--kind", kind, "--model", model, "--url", server.url,
            "--card", f"The {name} model.", "--max-tokens", "16",
        )  # fmt: skip
        assert added.returncode == 0, added.stderr
    tuned = agentmtl(
        place, "tune", "agent.toml", "--data", "set", "--budget", "1200", "--search-budget", "30000",
        "--workers", "4", "--json",
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    told = json.loads(tuned.stdout)
    best = told["recommended"]
    assert 0 < best["cost"] <= 1200 and told["spent"]["amount"] <= 30_000 * 1.1
    assert told["spent"]["failed"] == 0 and told["spent"]["measured"] > 1
    assert best["allocation"]["sample"]["model"] in ("base", "tickets")
    asked = agentmtl(
        place, "ask", ASKED[0][0], "--index", next(str(p) for p in (place / "indexes" / "eval").iterdir()),
        "--expert", best["allocation"]["sample"]["model"], "--allocation", "tuned/allocation.toml", "--json",
    )  # fmt: skip
    assert asked.returncode in (0, 3), asked.stderr
    answer = json.loads(asked.stdout)
    drawn = next(step for step in answer["trace"] if step["step"] == "sample")
    assert drawn["samples"] <= best["allocation"]["sample"]["samples"]
