"""Encoders side by side: exact ranking, correlation, differences, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl.cli.main import _exit_code as run
from agentmtl.errors import UsageError
from agentmtl.evaluate.correlation import codes, mean_ranks, of_codes, spearman
from agentmtl.evaluate.encoders import evaluate_encoders, rank, together
from agentmtl.trunk import load_encoder
from agentmtl.trunk.headed import ALL, SIDES
from agentmtl.trunk.heads import Head, load_head, save_head

from ..learn.worlds import multihop_set
from ..trunk.tiny import embedding_head, tiny_trunk

BACKEND = "torch-fp32"


def test_spearman_shares_tied_ranks() -> None:
    assert mean_ranks(codes([3, 1, 3, 2])).tolist() == [2.5, 0, 2.5, 1]
    assert spearman([1, 2, 3, 4], [10, 20, 25, 90]) == pytest.approx(1)
    wanted = np.corrcoef([0, 1.5, 1.5, 3], [3, 1, 2, 0])[0, 1]
    assert spearman([1, 2, 2, 3], [3, 1, 2, 0]) == pytest.approx(wanted)
    assert np.isnan(spearman([1, 1], [0, 1]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=20), st.integers(0, 99))
def test_codes_serve_every_resample(values: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    other = rng.normal(size=len(values))
    rows = rng.integers(0, len(values), len(values))
    direct = spearman(np.array(values)[rows], other[rows])
    assert of_codes(codes(values)[rows], codes(other)[rows]) == pytest.approx(direct, nan_ok=True)


def test_a_ranking_holds_every_tie_at_its_end() -> None:
    texts = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8]], np.float32)
    found = rank(np.array([[1, 0], [0, 1]], np.float32), texts, 2)
    assert [[row for row, _ in one] for one in found] == [["0", "2", "3", "4"], ["1", "2", "3", "4"]]
    assert len(rank(texts[:1], texts[:1], 10)[0]) == 1


def judged_set(folder: Path) -> Path:
    folder.mkdir()
    corpus = [{"id": f"d{n}", "title": "", "text": f"passage number {n} of the bridge"} for n in range(20)]
    queries = [{"id": f"q{n}", "text": f"number {n}"} for n in range(8)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(7))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def graded_set(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        {"a": f"a bridge {n}", "b": f"a road {n * n}", "score": n % 6, "set": f"set-{n % 2}"}
        for n in range(40)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_heads_beside_the_trunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tiny_trunk(tmp_path / "trunk")
    made = load_head(embedding_head(files, tmp_path / "demos"))
    for name in ("one", "two"):
        card = replace(made.card, calibration={SIDES: ALL})
        shift = np.float32(0.02 if name == "two" else 0)
        outputs = {"vector": (made.outputs["vector"][0], made.outputs["vector"][1] + shift)}
        save_head(Head(card, made.adapters, outputs), tmp_path / name)
    folders = [
        judged_set(tmp_path / "judged"), graded_set(tmp_path / "graded"), multihop_set(tmp_path / "hops", 20)
    ]  # fmt: skip
    trunk = str(tmp_path / "trunk")
    reports = evaluate_encoders(
        folders, [tmp_path / "one", tmp_path / "two"], encoder=trunk, backend=BACKEND, cache=tmp_path / "v"
    )
    assert [(r.data, r.n) for r in reports] == [("judged", 7), ("graded", 40), ("hops", 20)]
    for report in reports:
        assert set(report.methods) == {"trunk", "one", "two"}
        assert set(report.differences) == {"one - trunk", "two - trunk", "two - one"}
        for metric, value in report.differences["two - one"].items():
            apart = report.methods["two"][metric].mean - report.methods["one"][metric].mean
            assert value.mean == pytest.approx(apart)
    graded = reports[1].methods["one"]
    assert set(graded) == {"set-0", "set-1", "mean"}
    assert graded["mean"].mean == pytest.approx((graded["set-0"].mean + graded["set-1"].mean) / 2)
    vectors = load_encoder(trunk, backend=BACKEND).encode(
        [f"a bridge {n}" for n in range(0, 40, 2)] + [f"a road {n * n}" for n in range(0, 40, 2)]
    )
    direct = spearman((vectors[:20] * vectors[20:]).sum(1), [n % 6 for n in range(0, 40, 2)])
    assert reports[1].methods["trunk"]["set-0"].mean == pytest.approx(direct)
    again = evaluate_encoders(
        folders, [tmp_path / "one", tmp_path / "two"], encoder=trunk, backend=BACKEND, cache=tmp_path / "v"
    )
    assert [r.methods for r in again] == [r.methods for r in reports]
    assert together(reports[:1], 0) is reports[0]
    with pytest.raises(UsageError, match="does not embed every text"):
        evaluate_encoders(folders, [tmp_path / "demos"], encoder=trunk, backend=BACKEND)
    with pytest.raises(UsageError, match="no set to measure"):
        evaluate_encoders([tmp_path], [], encoder=trunk, backend=BACKEND)
    monkeypatch.chdir(tmp_path)
    asked = [
        "eval",
        "encoder",
        "--encoder",
        "trunk",
        "--backend",
        BACKEND,
        "--head",
        "one",
        "--quiet",
        "--json",
    ]
    assert run([*asked, "--data", "judged", "--data", "hops"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["data"] for one in told["sets"]] == ["judged", "hops"]
    assert set(told["macro"]["one"]) == {"ndcg@10", "recall@10"}
