"""The voter: the formula against plain Python, options, abstaining, and that a batch changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl import Index
from agentmtl.errors import UsageError
from agentmtl.experts.demonstrations import DemonstrationVoter, Vote, VoterSettings
from agentmtl.retrieval.demonstrations import Bank, Selection
from agentmtl.retrieval.voting import kernel_weights, tally
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task

WEATHER = Task("weather", "classification", labels=("rain", "sun"))
PARTS = Task("parts", "multiple_choice")
WET = ("heavy rain and wet streets", "rain and a wet coat", "wet grass after the rain")
DRY = ("sun and dry sand", "a dry field in the sun", "hot sun all day")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = Index.create(tmp_path_factory.mktemp("voter") / "i", encoder="hashing:512", streams=())
    examples = [*((text, "rain") for text in WET), *((text, "sun") for text in DRY)]
    made.add_demonstrations(WEATHER, [Demonstration("weather", *e) for e in examples])
    choices = ("a steel wheel", "a green leaf")
    made.add_demonstrations(
        PARTS, [Demonstration("parts", f"part of a car {i}", choices[0], choices, 0) for i in range(3)]
    )
    return made


def voter(index: Index, task: Task = WEATHER, **others: float) -> DemonstrationVoter:
    return DemonstrationVoter(index.retriever, task, VoterSettings(Selection(k=4), **others))


@given(st.lists(st.floats(-5, 5), max_size=8), st.floats(0, 4))
def test_weights_are_a_softmax_of_standardised_scores(scores: list[float], strength: float) -> None:
    weights = kernel_weights(scores, strength)
    assert len(weights) == len(scores) and all(w >= 0 for w in weights)
    if not scores:
        return
    mean = math.fsum(scores) / len(scores)
    spread = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / len(scores)) or 1.0
    raised = [math.exp(strength * (s - max(scores)) / spread) for s in scores]
    assert weights == pytest.approx([r / sum(raised) for r in raised], abs=1e-6)


def test_no_strength_counts_every_demonstration_the_same() -> None:
    assert kernel_weights([3.0, 1.0, 2.0, 0.0], 0.0) == [0.25] * 4
    assert tally(["a", "b", "a", "c"], [0.25] * 4) == {"a": 0.5, "b": 0.25, "c": 0.25}


def test_other_tasks_vote_for_the_tasks_own_labels_alone(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:256", streams=())
    few, many = Task("few", "classification"), Task("many", "classification")
    index.add_demonstrations(
        few, [Demonstration("few", "grey sky", "rain"), Demonstration("few", "x", "sun")]
    )
    others = [Demonstration("many", f"a bright field {i}", label) for i, label in enumerate(("sun", "field"))]
    index.add_demonstrations(many, [*others, Demonstration("many", "a bright field 3", "field")])

    def vote(task: Task, bank: Bank) -> Vote:
        chosen = Selection(k=5, bank=bank, prior=0.0)
        (found,) = DemonstrationVoter(index.retriever, task, VoterSettings(chosen)).predict(
            ["a bright field"]
        )
        return found

    assert len(vote(few, "task").demonstrations) == 2
    shared = vote(few, "all")
    assert set(shared.probabilities) == {"rain", "sun"} and shared.output == "sun"
    assert math.fsum(shared.probabilities.values()) == pytest.approx(1.0)
    written = replace(few, kind="generation")  # its outputs are no labels: only its own examples vote
    assert vote(written, "all").probabilities == vote(few, "task").probabilities


def test_a_label_by_its_neighbours(index: Index) -> None:
    wet, dry = voter(index).predict(["a wet day of rain", "dry land under the sun"])
    assert (wet.output, dry.output) == ("rain", "sun")
    for vote in (wet, dry):
        assert math.isclose(sum(vote.probabilities.values()), 1.0)
        assert vote.confidence == max(vote.probabilities.values()) and not vote.abstained
        assert vote.demonstrations[-1].score == max(h.score for h in vote.demonstrations)


def test_a_batch_gives_what_single_inputs_give(index: Index) -> None:
    texts = ["rain", "sun and rain", "dry sun", "nothing of the kind"]
    together = voter(index).predict(texts)
    alone = [voter(index).predict([text])[0] for text in texts]
    assert [(v.output, v.probabilities) for v in together] == [(v.output, v.probabilities) for v in alone]
    assert voter(index).predict([]) == []


def test_every_k_is_as_if_asked_alone(index: Index) -> None:
    (found,) = voter(index).predict_with(["rain on dry sand"], None, [1, 2, 4])
    for k, vote in found.items():
        settings = VoterSettings(Selection(k=k))
        (alone,) = DemonstrationVoter(index.retriever, WEATHER, settings).predict(["rain on dry sand"])
        assert vote.probabilities == alone.probabilities and len(vote.demonstrations) == k


def test_options_are_scored_and_only_options_are_given(index: Index) -> None:
    (vote,) = voter(index, PARTS).predict(["part of a car, which?"], [["green leaf", "steel wheel"]])
    assert vote.output == "steel wheel" and set(vote.probabilities) == {"green leaf", "steel wheel"}
    assert math.isclose(sum(vote.probabilities.values()), 1.0, rel_tol=1e-6)
    with pytest.raises(UsageError, match="options"):
        voter(index, PARTS).predict(["part of a car"])


def test_it_abstains_below_a_threshold_and_far_from_everything(index: Index) -> None:
    text = "rain on dry sand in the sun"
    (sure,) = voter(index).predict([text])
    for change in ({"threshold": sure.confidence + 0.01}, {"nearest": 1.01}):
        (vote,) = voter(index, **change).predict([text])
        assert vote.abstained and vote.output == "" and vote.probabilities == sure.probabilities
    (kept,) = voter(index, threshold=sure.confidence).predict([text])
    assert not kept.abstained and kept.output == sure.output


def test_a_task_without_examples_abstains(index: Index) -> None:
    (vote,) = DemonstrationVoter(index.retriever, Task("other", "classification")).predict(["rain"])
    assert vote.abstained and vote.probabilities == {} and vote.confidence == 0.0
    (vote,) = DemonstrationVoter(index.retriever, Task("other", "multiple_choice")).predict(
        ["x"], [["a", "b"]]
    )
    assert vote.abstained and vote.output == ""
