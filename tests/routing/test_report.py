"""Diagnostics of routing by hand, and the command over rows and the log; `agentmtl route` with its tiers."""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.agent.journal import Journal
from agentmtl.cli.main import _exit_code as run
from agentmtl.routing.report import Routed, diagnose
from agentmtl.schema import Answer, Evidence, Usage


def many(count: int, expert: str, task: str = "", score: float | None = None) -> list[Routed]:
    return [Routed(expert, task=task, score=score)] * count


def test_shares_entropy_and_the_dead() -> None:
    rows = many(60, "a", "x") + many(20, "a", "y") + many(20, "b", "y")
    found = diagnose(rows, ("a", "b", "c"))
    assert [(one.name, one.rows, one.share) for one in found.experts] == [
        ("a", 80, 0.8), ("b", 20, 0.2), ("c", 0, 0.0),
    ]  # fmt: skip
    nats = -(0.8 * log(0.8) + 0.2 * log(0.2))
    assert found.entropy == pytest.approx(nats / log(3)) and found.effective == pytest.approx(
        1.6494, abs=1e-3
    )
    assert found.experts[0].tasks == {"x": 60, "y": 20}
    assert found.experts[0].entropy == pytest.approx(-(0.75 * log(0.75) + 0.25 * log(0.25)) / log(2))
    assert found.dead == ("c",) and found.single == {"b": "y"}
    hardly = diagnose(many(995, "a") + many(5, "b"), ("a", "b"))
    assert hardly.dead == ("b",) and hardly.single == {}
    assert not diagnose(many(3, "z"), ("a",)).experts[0].registered
    nothing = diagnose([], ("a",))
    assert nothing.dead == () and nothing.rows == 0 and nothing.experts[0].share == 0.0


def test_a_task_starves_where_another_expert_does_better_and_is_hardly_asked() -> None:
    rows = many(20, "a", "x", 0.5) + many(6, "b", "x", 0.9) + many(20, "a", "y", 0.9) + many(6, "b", "y", 0.5)
    (starved,) = diagnose(rows).starved
    assert (starved.task, starved.best, starved.usual) == ("x", "b", "a")
    assert starved.share == pytest.approx(6 / 26) and starved.score == pytest.approx(0.9)
    assert diagnose(many(20, "a", "x", 0.5) + many(4, "b", "x", 0.9)).starved == ()  # too few to say
    assert diagnose(many(20, "a", "x", 0.5) + many(6, "b", "x", 0.54)).starved == ()


def test_calibration_by_hand() -> None:
    rows = [Routed("a", score=float(n % 2), confidence=0.5) for n in range(10)]
    assert diagnose(rows).experts[0].calibration == pytest.approx(0.0)
    sure = [Routed("a", score=0.0, confidence=0.9)] * 5 + [Routed("a", score=1.0, confidence=1.0)] * 5
    one = diagnose(sure).experts[0]
    assert one.calibration == pytest.approx(0.45) and [b.rows for b in one.bins] == [5, 5]
    assert one.score == 0.5 and one.confidence == pytest.approx(0.95) and one.cost is None
    assert diagnose([Routed("a", confidence=0.5)]).experts[0].calibration is None


def test_switches_within_conversations() -> None:
    rows = [
        Routed(e, conversation=c) for e, c in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "2"), ("a", "1"))
    ]
    found = diagnose([*rows, Routed("b")])
    assert (found.conversations, found.turns, found.switches) == (2, 3, 2)
    assert "switches: 2 in 3 further turns, 1.0 a conversation" in found.to_text()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x", "y"]), st.floats(0, 1))))
def test_any_rows_make_a_report(rows: list[tuple[str, str, float]]) -> None:
    found = diagnose([Routed(e, task=t, score=s, confidence=s) for e, t, s in rows], ("a", "d"))
    assert 0 <= found.entropy <= 1 + 1e-9 and json.dumps(found.to_json()) and found.to_text()
    assert sum(one.rows for one in found.experts) == len(rows)


# --- commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two registered experts and folders of its own."""
    monkeypatch.chdir(tmp_path)
    for kind in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"AGENTMTL_{kind}_DIR", str(tmp_path / kind.lower()))
    (tmp_path / "experts.toml").write_text(
        '[experts.cook]\nkind = "chat"\nmodel = "fake:B"\ncard = "Recipes and food."\n'
        'price = { prompt = 2.0, output = 10.0 }\n'
        '[experts.travel]\nkind = "chat"\nmodel = "fake:A"\ncard = "Flights and hotels."\n'
    )  # fmt: skip
    return tmp_path


def test_the_report_of_rows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"expert": "cook", "task": "x", "score": 1, "cost": 0.5, "confidence": 0.9}] * 9
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["experts", "report", "--rows", "rows.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1 and told["dead"] == ["travel"] and told["experts"][0]["cost"] == 0.5
    assert run(["experts", "report", "--rows", "rows.jsonl"]) == 0
    assert "dead: travel" in capsys.readouterr().out
    (place / "rows.jsonl").write_text('{"expert": "cook", "score": 2}\n')
    assert run(["experts", "report", "--rows", "rows.jsonl", "--json"]) == 1


def test_the_report_of_the_log(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["experts", "report"]) == 0
    assert "Nothing was routed" in capsys.readouterr().out
    for expert in ("cook", "travel", "cook"):
        step = {
            "step": "route", "expert": expert, "confidence": 0.8, "reason": "r", "tier": "llm",
            "scores": {expert: 0.8}, "conversation": "c1",
        }  # fmt: skip
        answer = Answer("q", "a", (), 0.9, False, expert, Usage(money=0.01), (step,))
        Journal().add(place, answer, Evidence("q"))
    Journal().add(place, Answer("q", "a", (), 0.9, False, "cook", Usage()), Evidence("q"))  # without the step
    assert run(["experts", "report", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 4 and told["switches"] == 2 and told["dead"] == []
    assert told["experts"][0]["name"] == "cook" and told["experts"][0]["confidence"] == pytest.approx(0.8)
    assert run(["experts", "report", "-n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1


def test_route_asks_the_model_where_the_router_abstains(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["route", "a recipe for food", "--encoder", "hashing:256", "--json"]

    def told(*more: str) -> dict[str, object]:
        assert run([*given, *more]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    plain = told()
    assert plain["expert"] == "cook" and plain["tier"] == "description" and not plain["abstained"]
    assert plain["costs"] == {"cook": pytest.approx(4.56), "travel": 0.0}
    assert told("--llm", "fake:B")["tier"] == "description"  # it was sure
    asked = told("--llm", "fake:B", "--threshold", "1")
    assert asked["expert"] == "travel" and asked["tier"] == "llm" and asked["confidence"] == 0.5
    assert told("--llm", "travel", "--threshold", "1")["expert"] == "cook"  # a registered one, that says A
    failed = told("--llm", "fake:whoever", "--threshold", "1")
    assert failed["abstained"] and failed["expert"] == "cook"
    assert run([*given[:-1], "--explain", "--threshold", "0"]) == 0
    shown = capsys.readouterr().out
    assert "decided by: description" in shown and "by the words: recipe, food" in shown
    assert "4.56 usd a thousand" in shown


def test_route_refuses_what_is_no_model_and_a_router_of_strangers(place: Path) -> None:
    (place / "own.toml").write_text('[experts.reader]\nkind = "embedded"\ncard = "Reads."\n')
    assert run(["route", "x", "--encoder", "hashing:64", "--file", "own.toml", "--llm", "reader"]) == 2
    assert run(["route", "x", "--encoder", "hashing:64", "--llm", "nobody"]) == 2
