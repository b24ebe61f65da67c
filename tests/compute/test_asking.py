"""Whoever answers questions as a pipeline: what is asked, judged and paid for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentmtl import Index
from agentmtl.cli.tuned_pipelines import asking, by_difficulty, opened
from agentmtl.compute.asking import Asked, piloted
from agentmtl.compute.environment import Bench, Trial
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.recording import Table
from agentmtl.compute.tuning import tune
from agentmtl.errors import ModelError, UsageError
from agentmtl.evaluate.datasets import Question
from agentmtl.sample import corpus_path
from agentmtl.schema import SETTING, Allocation, Answer, Stage, Usage
from agentmtl.settings import Settings

PIPELINE = Pipeline(
    "agent",
    (
        Stage("search", ("plain", "two-hop"), (3, 12), SETTING),
        Stage("sample", ("small", "large"), (1, 4)),
    ),
    unit="tokens", combine="end", metric="f1",
)  # fmt: skip
ITEMS = [Question(str(n), f"Question {n}?", (f"answer {n}",)) for n in range(24)]


def ask(question: Question, allocation: Allocation) -> Answer:
    """Right where a large model has two hops of evidence; costs what it was given."""
    search, sample = allocation.of("search"), allocation.of("sample")
    right = sample.model == "large" and (search.model == "two-hop" or int(question.id) % 3 == 0)
    tokens = search.samples * 10 + sample.samples * (100 if sample.model == "large" else 20)
    text = f"{question.answers[0]} [1]" if right else "elsewhere"
    return Answer(question.question, text, (), 1.0, False, sample.model, Usage(1, tokens, 0))


def environment() -> Asked:
    return Asked(PIPELINE, ITEMS, ask, piloted(PIPELINE, ITEMS[:3], ask))


def test_what_options_cost_is_measured_first() -> None:
    """First options share the cheapest whole, 50 tokens; others cost what they add."""
    search, sample = environment().costs
    np.testing.assert_allclose(search, [[25, 115], [25, 115]])
    np.testing.assert_allclose(sample, [[25, 85], [105, 405]])


def test_answers_are_judged_without_their_marks_and_paid_by_usage() -> None:
    run = environment().run((2, 2), 1)  # two-hop 3, large 1
    assert (run.score, run.cost, run.failed) == (1.0, 130.0, False)
    assert environment().run((0, 0), 1).score == 0


def test_the_best_allocation_is_found() -> None:
    tuned = tune(environment(), (200.0,), 60_000)
    best = tuned.space.allocation(tuned.recommendation.choice)
    assert best.of("search").model == "two-hop" and best.of("sample").model == "large"
    assert best.of("search").samples == 3 and best.of("sample").samples == 1  # the cheapest that is as good


def test_questions_that_fail_are_counted() -> None:
    def broken(question: Question, allocation: Allocation) -> Answer:
        if question.id == "2":
            raise ModelError("It is gone.", "Start it.")
        return ask(question, allocation)

    made = Asked(PIPELINE, ITEMS, broken, environment().costs)
    result = Bench(made, np.inf).measure(Trial((2, 2)))
    assert result.failed == 1 and result.scores[2] == 0.0


def test_what_is_judged_otherwise_is_refused() -> None:
    for changed in ({"combine": "product"}, {"metric": "accuracy"}):
        pipeline = Pipeline("agent", PIPELINE.stages, **{"combine": "end", "metric": "f1", **changed})  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="judged"):
            Asked(pipeline, ITEMS, ask, environment().costs)


def test_a_real_agent_is_asked_as_the_allocation_says(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "ix", [str(corpus_path())], encoder="hashing")[0]
    pipeline = Pipeline(
        "ours", (Stage("search", ("plain", "two-hop"), (3,), SETTING), Stage("read", ("sentences",), (1, 8))),
        unit="seconds", combine="end", metric="f1",
    )  # fmt: skip
    item = Question("h4", "Who built the H4 marine timekeeper?", ("John Harrison",))
    made = Asked(pipeline, [item], (by := asking(pipeline, index, Settings())), piloted(pipeline, [item], by))
    run = made.run((1, 1), 0)
    assert not run.failed and run.cost > 0 and "Harrison" in by(item, made.space.allocation((1, 1))).text


def test_models_that_are_not_there_are_named(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "ix", [str(corpus_path())], encoder="hashing")[0]
    with pytest.raises(UsageError, match="No expert is registered as 'small'"):
        asking(PIPELINE, index, Settings())


def test_a_pipeline_of_other_stages_needs_a_recording(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        'name = "x"\n[[stages]]\nname = "solve"\nmodels = ["a"]\nsamples = [1]\n'
    )
    with pytest.raises(UsageError, match="Nothing runs the stages"):
        opened(str(tmp_path / "p.toml"), None, None, tmp_path, None, 0, Settings())


def test_the_measured_questions_tell_how_hard_others_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Every second question is about stars, and no model knows stars unless it is large."""
    stars = [f"How far away is the star number {n}, and how bright is it?" for n in range(40)]
    items = [
        Question(str(n), text if n % 2 else f"What is {n} times {n}?", (f"answer {n}",))
        for n, text in enumerate(stars)
    ]

    def schooled(question: Question, allocation: Allocation) -> Answer:
        easy = int(question.id) % 2 == 0 and int(question.id) % 5 > 0
        answer = ask(question, allocation)
        return replace(answer, text=question.answers[0]) if easy else answer

    made = Asked(PIPELINE, items, schooled, piloted(PIPELINE, items[:3], schooled))
    tuned = tune(made, (140.0,), 60_000)
    leveled = by_difficulty(made, tuned, 100.0, 2, Settings(encoder="hashing"))
    assert leveled is not None and leveled.difficulty.explained > 0.1 and leveled.cost <= 100 * (1 + 1e-9)
    hard, easy = leveled.allocations
    assert hard.of("sample").model == "large" and easy.of("sample").model == "small"
    assert leveled.quality > tuned.frontier.resolve(100.0).quality + 0.1
    table = Table(made.space, np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(UsageError, match="does not hold its questions"):
        by_difficulty(table, tuned, 100.0, 2, Settings(encoder="hashing"))
    alike = [replace(item, question=f"Question {n}?") for n, item in enumerate(items)]
    told = Asked(PIPELINE, alike, ask, made.costs)
    assert by_difficulty(told, tune(told, (140.0,), 60_000), 100.0, 2, Settings(encoder="hashing")) is None
    assert "explain nothing" in capsys.readouterr().err
