"""Votes by hand, and the stopping rule against the distribution it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from agentmtl.agent.aggregate import aggregator, decided, leads, majority, votes_of, weighted
from agentmtl.errors import UsageError
from agentmtl.schema import Candidate


def said(*answers: str, confidence: float = 0.5) -> list[Candidate]:
    return [Candidate(f"{answer} [1]", (), confidence, "fake") for answer in answers]


def test_the_same_answer_in_other_clothes_counts_together() -> None:
    found = majority(said("The Tarn", "Oslo", "tarn."), 4)
    assert found is not None and found.text == "The Tarn [1]" and found.confidence == 0.5
    assert majority([], 3) is None
    assert [vote.answer for vote in votes_of(said("a b", "Oslo", "oslo"))] == ["oslo", "b"]


def test_sure_samples_can_outweigh_many() -> None:
    candidates = [*said("Oslo", "Oslo", confidence=0.2), *said("Bergen", confidence=0.9)]
    assert majority(candidates, 3).text == "Oslo [1]"  # type: ignore[union-attr]
    assert weighted(candidates, 3).text == "Bergen [1]"  # type: ignore[union-attr]
    best = aggregator("best-of-n", lambda found: [float("Bergen" in one.text) for one in found])
    assert best(candidates, 3).text == "Bergen [1]"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="best-of-n"):
        aggregator("best-of-n")


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_chance_to_lead_is_the_betas(first: int, second: int) -> None:
    assert leads(first, second) == pytest.approx(1 - beta.cdf(0.5, first + 1, second + 1), abs=1e-9)


def test_agreement_stops_early_and_a_tie_goes_on() -> None:
    """With .9 three that agree are enough, with .95 four (compute specification, section 8)."""
    for sure, needed in ((0.9, 3), (0.95, 4)):
        stops = [decided(said(*["Oslo"] * n), n, 64, sure) for n in range(1, 6)]
        assert stops.index(True) + 1 == needed
    assert not decided(said("Oslo", "Bergen"), 2, 64)
    assert not decided([], 0, 4) and decided([], 4, 64)  # nothing said four times is agreement too


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(1, 12))
def test_at_the_end_it_stops_and_never_because_of_what_could_turn(drawn: list[str], most: int) -> None:
    candidates = said(*drawn[:most])
    if len(candidates) == most:
        assert decided(candidates, most, most)
    elif decided(candidates, len(candidates), most, sure=1.0):
        left = most - len(candidates)
        other = said(*["z"] * left)
        assert votes_of([*candidates, *other])[0].answer == votes_of(candidates)[0].answer
