"""Metrics of routing by hand, and the evaluation over made-up rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agentmtl.cli.main import _exit_code as run
from agentmtl.evaluate.router_metrics import apgr, cpt, folds_of_groups, gain_curve
from agentmtl.evaluate.routing import evaluate_prompts
from agentmtl.routing.fitted import RouterSettings
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Side, Vectors

WEAK = np.array([1.0, 0.0, 0.0, 1.0])
STRONG = np.array([1.0, 1.0, 1.0, 0.0])


def test_the_gap_is_recovered_in_the_order_of_the_scores() -> None:
    shares, curve = gain_curve(np.array([0.1, 0.9, 0.8, 0.0]), WEAK, STRONG)
    assert shares.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert curve.tolist() == [0.0, 1.0, 2.0, 2.0, 1.0]
    assert cpt(np.array([0.1, 0.9, 0.8, 0.0]), WEAK, STRONG, 0.5) == pytest.approx(0.125)
    best = apgr(np.array([0.1, 0.9, 0.8, 0.0]), WEAK, STRONG)
    assert best == pytest.approx(np.mean([*np.interp(np.arange(0.05, 1, 0.1), shares, curve)]), abs=0.02)
    assert apgr(np.zeros(4), WEAK, STRONG) == pytest.approx(0.5)


def test_groups_stay_together() -> None:
    groups = [f"g{n % 7}" for n in range(70)]
    folds = folds_of_groups(groups, 3, 0)
    assert set(folds.tolist()) == {0, 1, 2}
    assert all(len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) == 1 for name in groups)


def test_a_router_is_measured_beside_its_baselines(tmp_path: Path) -> None:
    rows = []
    for n in range(400):
        hard = n % 2
        text = f"{'Prove the theorem' if hard else 'Name the colour'} number {n}"
        rows.append(
            {"prompt": text, "subject": f"s{n % 8}", "weak": int(n % 5 == 0 if hard else n % 7 != 0),
             "strong": int(n % 11 != 0), "split": "test" if n % 4 == 0 or n % 7 == 1 else "train"}
        )  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = load_encoder("hashing:128")
    report = evaluate_prompts(path, encoder, RouterSettings(neighbours=20), cache=tmp_path / "kept")
    found = report.methods
    ways = {"length", "fitted", "fitted, without options"}
    assert set(found) == {"subject"} | ways | {f"{way}, unseen subjects" for way in ways}
    for where in ("", ", unseen subjects"):  # no prompt lists any
        assert report.differences[f"fitted{where} - fitted, without options{where}"]["apgr"].mean == 0.0
    assert found["fitted"]["apgr"].mean > 0.6 and 0 <= found["fitted"]["ece"].mean < 0.3
    again = evaluate_prompts(path, encoder, RouterSettings(neighbours=20), cache=tmp_path / "kept")
    assert again.methods["fitted"]["apgr"] == found["fitted"]["apgr"]


class Unread:
    """Reads options; of a query its vector says nothing."""

    def __init__(self) -> None:
        self._words = load_encoder("hashing:128")
        self.identity = self._words.identity

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        if side == "document":
            return self._words.encode(texts, side)
        rows = np.random.default_rng(0).normal(size=(len(texts), 128))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_what_options_add_is_measured(tmp_path: Path) -> None:
    """The weak expert fails where options are alike, which neither length nor vector tells."""
    rows = []
    for n in range(400):
        alike = n * 7 % 10 < 5
        other = f"the lamp of Voss {n}" if alike else f"what nobody said {n}"[:20]
        rows.append(
            {"prompt": f"Which?\nA. the lamp of Tarn {n}\nB. {other}", "subject": f"s{n % 8}",
             "weak": int(not alike), "strong": int(n % 11 != 0), "split": "test" if n % 4 == 0 else "train"}
        )  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = evaluate_prompts(path, Unread(), RouterSettings(neighbours=20, strength=1.0))
    for where in ("", ", unseen subjects"):
        assert report.differences[f"fitted{where} - fitted, without options{where}"]["apgr"].low > 0.05


def test_cards_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cards = tmp_path / "cards.toml"
    cards.write_text('[cards]\nbank = "money and accounts"\ntravel = "flights and hotels"\n')
    (tmp_path / "set").mkdir()
    rows = [
        {
            "text": f"{'transfer money' if n % 2 else 'book flights'} {n}",
            "domain": "bank" if n % 2 else "travel",
        }
        for n in range(40)
    ]
    for side in ("train", "test"):
        (tmp_path / "set" / f"{side}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    away = tmp_path / "away.jsonl"
    away.write_text('{"input": "why is the sky blue"}\n' * 5)
    given = ["--data", str(tmp_path / "set"), "--cards", str(cards), "--outside", str(away)]
    assert run(["eval", "routing", *given, "--encoder", "hashing:128", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["methods"]
    assert told["descriptions"]["accuracy"]["mean"] == 1.0 and told["fitted"]["auroc"]["mean"] > 0.9
    assert run(["route", "book flights", "--encoder", "hashing:64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["expert"] == "reader"
    assert run(["route", "x", "--encoder", "hashing:64", "--explain"]) == 0
