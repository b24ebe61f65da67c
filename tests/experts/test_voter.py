"""The voter as an expert: it says what `DemonstrationVoter` says, and cites the examples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentmtl import Index
from agentmtl.agent.citations import is_exact
from agentmtl.errors import UsageError
from agentmtl.experts.demonstrations import DemonstrationVoter, VoterSettings
from agentmtl.experts.voter import VoterExpert, options_of, voting_evidence
from agentmtl.retrieval.demonstrations import Selection
from agentmtl.schema import Demonstration, Evidence
from agentmtl.tasks import Task

WEATHER = Task("weather", "classification", labels=("rain", "sun"))
PARTS = Task("parts", "multiple_choice")
WET = ("heavy rain and wet streets", "rain and a wet coat", "wet grass after the rain")
DRY = ("sun and dry sand", "a dry field in the sun", "hot sun all day")
SETTINGS = VoterSettings(Selection(k=4))


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


@pytest.mark.parametrize("text", ["a wet coat in heavy rain", "dry sand", "wet sand in the sun"])
def test_it_says_what_the_voter_says_and_cites_its_examples(index: Index, text: str) -> None:
    (vote,) = DemonstrationVoter(index.retriever, WEATHER, SETTINGS).predict([text])
    expert = VoterExpert(WEATHER, SETTINGS)
    given = voting_evidence(index.retriever, text, expert.task, expert.selection)
    found = expert.propose(text, given, n=2)
    assert {c.text.split()[0]: c.confidence for c in found} == pytest.approx(dict(vote.probabilities))
    assert found[0].text.startswith(vote.output) and expert.threshold == 0.0
    for candidate in found:
        label = candidate.text.split()[0]
        assert candidate.citations and all(is_exact(index.snapshot, one) for one in candidate.citations)
        assert {one.text for one in candidate.citations} <= set(WET if label == "rain" else DRY)
    assert expert.propose(text, Evidence(text), given.passages, n=2) == found, "as demonstrations too"


def test_options_are_read_from_the_question_and_compared(index: Index) -> None:
    asked = "Which is part of a car? A) a green leaf B) a steel wheel"
    expert = VoterExpert(PARTS, encode=index.retriever.encode_queries)
    given = voting_evidence(index.retriever, asked, "parts")
    (best,) = expert.propose(asked, given)
    (vote,) = DemonstrationVoter(index.retriever, PARTS).predict([asked], [("a green leaf", "a steel wheel")])
    assert best.text == "a steel wheel [1][2][3]" and best.confidence == pytest.approx(vote.confidence)
    assert expert.propose("Which is part of a car?", given) == []
    with pytest.raises(UsageError, match="compares options"):
        VoterExpert(PARTS)


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which? A) one B) two words C) three", ["one", "two words", "three"]),
        ("Which?\n(A) one\n(B) two", ["one", "two"]),
        ("Which? A. one B. two", ["one", "two"]),
        ("Which? A: one", []),
        ("Vitamin B. complex?", []),
        ("Which? A) B) two", []),
        ("", []),
    ],
)
def test_options_in_a_question(question: str, options: list[str]) -> None:
    assert options_of(question) == options


def test_what_is_unlike_every_example_is_left_unanswered(index: Index) -> None:
    far = VoterExpert(WEATHER, replace(SETTINGS, nearest=0.9))
    given = voting_evidence(index.retriever, "quantum chromodynamics", "weather")
    assert far.propose("quantum chromodynamics", given) == []
    assert VoterExpert(WEATHER, SETTINGS).propose("quantum chromodynamics", given)


def test_only_its_own_labels_are_votes(index: Index) -> None:
    given = voting_evidence(index.retriever, "wet rain", "weather")
    odd = replace(
        given.passages[0], unit=replace(given.passages[0].unit, metadata={"task": "x", "output": "y"})
    )
    assert VoterExpert(WEATHER).propose("wet rain", replace(given, passages=(odd,))) == []
    sentence = replace(odd, unit=replace(odd.unit, level="sentence"))
    assert VoterExpert(Task("x", "answer")).propose("wet rain", replace(given, passages=(sentence,))) == []
    (near,) = VoterExpert(Task("x", "answer")).propose("wet rain", replace(given, passages=(odd,)))
    assert near.text == "y [1]"
