"""The router's recipe: from lines of scores to a router on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentmtl.errors import IngestError, UsageError
from agentmtl.learn.router import read_rows, train_router
from agentmtl.routing.fitted import FittedRouter, RouterSettings
from agentmtl.routing.route import choose
from agentmtl.trunk import load_encoder

ENCODER = load_encoder("hashing:128")


def rows_file(path: Path, count: int = 60) -> Path:
    rows = []
    for n in range(count):
        hard = n % 2
        query = f"{'prove the theorem' if hard else 'name the colour'} {n}"
        rows.append({"query": query, "expert": "big", "score": 1.0 if n % 9 else 0.0, "cost": 0.5})
        rows.append({"query": query, "expert": "small", "score": float(not hard)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_learns_from_rows(tmp_path: Path) -> None:
    train_router(
        rows_file(tmp_path / "rows.jsonl"), ENCODER, tmp_path / "out", RouterSettings(10, strength=1.0)
    )
    router = FittedRouter.load(tmp_path / "out", ENCODER)
    assert router.experts == ("big", "small") and router.details["costs"] == {"big": 0.5}
    for query, low in (("prove the theorem 99", True), ("name the colour 98", False)):
        route = choose(router, ENCODER.encode([query], "query")[0].astype(float), query)
        assert (route.scores["small"] < 0.5) == low


def test_repeated_rows_are_averaged_and_bad_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "a", "expert": "x", "score": 1}\n{"query": "a", "expert": "x", "score": 0}\n')
    rows, costs = read_rows(path, ENCODER)
    assert rows.scores.tolist() == [[0.5]] and costs == {}
    with pytest.raises(UsageError, match="1 rows of x"):
        train_router(path, ENCODER, tmp_path / "out")
    path.write_text('{"query": "a", "expert": "x", "score": 2}\n')
    with pytest.raises(IngestError, match="rows.jsonl:1.*outside"):
        read_rows(path, ENCODER)
    path.write_text("")
    with pytest.raises((UsageError, IngestError)):
        read_rows(path, ENCODER)
