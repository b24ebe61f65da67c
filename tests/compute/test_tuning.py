"""A whole tuning with its report, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentmtl.cli.main import _exit_code
from agentmtl.compute.frontier import read_allocation
from agentmtl.compute.replay import Replay, matching
from agentmtl.compute.report import read_figures, summary, write_report
from agentmtl.compute.tuning import tune
from agentmtl.errors import UsageError

from .test_live import PIPELINE, World
from .worlds import recorded

WORLD = recorded()
BUDGET, LIMIT = 2.5e12, 1.2e14


def test_a_tuning_recommends_and_draws_up_the_frontier() -> None:
    told = []
    tuned = tune(Replay(WORLD, 0), (1e12, BUDGET), LIMIT, told=lambda step, bench: told.append(step.spent))
    assert tuned.method == "racing" and told == sorted(told) and tuned.spent <= LIMIT
    best = tuned.recommendation
    assert tuned.space.cost(best.choice) <= BUDGET and best == tuned.recommendations[1]
    assert tuned.frontier.resolve(BUDGET).quality >= best.quality
    for point in tuned.frontier.points:
        assert point.low <= point.quality <= point.high


@pytest.mark.parametrize("method", ["random", "nested", "evolution"])
def test_other_methods_have_a_frontier_too(method: str) -> None:
    tuned = tune(Replay(WORLD, 0), (BUDGET,), LIMIT, method)
    assert tuned.frontier.resolve(BUDGET).cost <= BUDGET


def test_a_report_is_written_and_read(tmp_path: Path) -> None:
    tuned = [tune(Replay(WORLD, 0), (BUDGET,), LIMIT, m) for m in ("racing", "nested")]
    write_report(tmp_path, tuned)
    allocation, frontier = read_allocation(tmp_path / "allocation.toml")
    assert allocation == tuned[0].space.allocation(tuned[0].recommendation.choice)
    assert frontier == tuned[0].frontier
    text = (tmp_path / "report.md").read_text()
    assert "Frontier" in text and "nested" in text and "90 % interval" in text
    figures = read_figures(tmp_path)
    assert {"recommended", "interval", "tied", "frontier", "spent", "schema"} <= set(figures)
    with pytest.raises(UsageError, match="no report"):
        read_figures(tmp_path / "none")


def test_a_report_says_where_the_file_is_not_what_it_recommends(tmp_path: Path) -> None:
    """An average below the budget gives the file another allocation than the recommendation's."""
    tuned = tune(Replay(WORLD, 0), (1e12, BUDGET), LIMIT)
    write_report(tmp_path, [tuned], average=1e12)
    allocation, _ = read_allocation(tmp_path / "allocation.toml")
    point = tuned.frontier.resolve(1e12)
    assert allocation == point.allocation != tuned.space.allocation(tuned.recommendation.choice)
    assert "allocation.toml is not that" in (tmp_path / "report.md").read_text()
    figures = read_figures(tmp_path)
    assert figures["average"] == {"budget": 1e12, "cost": point.cost, "quality": point.quality}
    assert any("allocation.toml keeps to" in line for line in summary(figures))


def test_a_live_pipeline_is_tuned_with_its_failures_counted() -> None:
    tuned = tune(World(broken=2).live(), (9.0,), 900)
    assert tuned.method == "landscape" and tuned.failed > 0 and tuned.space.pipeline == PIPELINE


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "p.toml").write_text(
        'name = "sums"\nunit = "tokens"\n'
        '[[stages]]\nname = "sums"\nmodels = ["small", "large"]\nsamples = [1, 2, 4]\n'
    )
    (tmp_path / "traces").mkdir()
    for model, tokens, right in (("small", 100, "5"), ("large", 1000, "4")):
        asked = [{"gold": "4", "traces": [["4", tokens], [right, tokens]] * 4} for _ in range(6)]
        told = {"model": model, "set": "sums", "questions": asked}
        (tmp_path / "traces" / f"{model}.json").write_text(json.dumps(told))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = _exit_code(["tune", *arguments, "--json"])
    data: dict[str, object] = json.loads(capsys.readouterr().out)
    return code, data


def test_the_command_searches_resumes_and_reports(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("p.toml", "--replay", "traces", "--budget", "2000", "--search-budget", "100000")
    code, first = told(place, capsys, *given)
    assert code == 0 and first["recommended"]["allocation"]["sums"]["model"] == "large"  # type: ignore[index]
    assert {p.name for p in (place / "tuned").iterdir()} >= {"allocation.toml", "report.md", "report.json"}
    code, refused = told(place, capsys, *given)
    assert code == 2 and "--resume" in str(refused["error"])
    code, again = told(place, capsys, *given, "--resume")
    assert again["recommended"] == first["recommended"] and again["spent"]["paid now"] == 0  # type: ignore[index]
    assert told(place, capsys, "report")[1]["recommended"] == first["recommended"]


def test_the_command_compares_and_plans(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("p.toml", "--replay", "traces", "--budget", "2000", "--search-budget", "100000")
    _, plan = told(place, capsys, *given, "--dry-run")
    assert plan["configurations"] == 6 and plan["cheapest"] == 100 and not (place / "tuned").exists()
    code, compared = told(place, capsys, *given, "--compare")
    assert code == 0 and {one["method"] for one in compared["compared"]} >= {"nested", "random"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("p.toml", "--replay", "traces"), "which budget"),
        (("p.toml", "--replay", "traces", "--budget", "5"), "the cheapest costs 100"),
        (("p.toml", "--budget", "500"), "Nothing runs"),
        (("none.toml", "--budget", "500"), "cannot be read"),
        (("embedded", "--budget", "1"), "which questions"),
        (("p.toml", "--replay", "traces", "--budget", "500", "--method", "magic"), "no method"),
    ],
)
def test_what_cannot_be_tuned_says_why(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, data = told(place, capsys, *arguments)
    assert code == 2 and said in str(data["error"])


def test_traces_that_do_not_match_the_pipeline_are_refused(place: Path) -> None:
    from agentmtl.compute.pipeline import load_pipeline

    pipeline = load_pipeline(place / "p.toml")
    assert matching(pipeline, place / "traces").questions == 6
    (place / "traces" / "large.json").unlink()
    with pytest.raises(UsageError, match="no traces of 'large' for stage 'sums'; it has sums of small"):
        matching(pipeline, place / "traces")
