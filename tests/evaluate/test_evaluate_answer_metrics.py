"""Metrics of answers and of confidences."""

from __future__ import annotations

from itertools import permutations
from math import isnan
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.evaluate.metrics import (
    aurc,
    auroc,
    contains_answer,
    ece,
    em,
    f1,
    risk_coverage,
)
from agentmtl.experts.answers import normalise_answer


def test_normalisation_drops_case_articles_and_punctuation() -> None:
    assert normalise_answer("  The U.S.  Army, an  army!") == "us army army"
    assert normalise_answer("theatre") == "theatre"


def test_em_and_f1_take_the_best_reference() -> None:
    assert em("the Eiffel Tower!", ["Paris", "Eiffel tower"]) == 1
    assert em("Eiffel", ["Eiffel tower"]) == 0
    assert f1("in the Eiffel Tower", ["Eiffel tower", "Rome"]) == pytest.approx(0.8)
    assert f1("b b a1", ["b a1 a1"]) == pytest.approx(
        2 / 3
    )  # repeated tokens count as often as both have them
    assert f1("", ["x"]) == 0


def test_an_answer_is_contained_as_whole_words_only() -> None:
    assert contains_answer("He was born in New-York in 1912.", ["1912"])
    assert not contains_answer("It cost 12 million.", ["2 million"])
    assert contains_answer("In the Netherlands (the north).", ["netherlands north"])
    assert contains_answer("It was The The.", ["The"])  # nothing is left of it: looked for as written
    assert not contains_answer("anything", [""]) and not contains_answer("anything", [])


def test_auroc_counts_a_tie_as_half() -> None:
    assert auroc([0.9, 0.8, 0.1], [True, True, False]) == 1
    assert auroc([0.5, 0.5], [True, False]) == 0.5
    assert auroc([0.9, 0.5, 0.5, 0.1], [False, True, False, True]) == pytest.approx(0.5 / 4)
    assert isnan(auroc([0.1, 0.2], [True, True]))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=12))
def test_auroc_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    positives = [score for score, label in pairs if label]
    negatives = [score for score, label in pairs if not label]
    got = auroc([score for score, _ in pairs], [label for _, label in pairs])
    if not positives or not negatives:
        assert isnan(got)
    else:
        assert got == pytest.approx(fmean((p > n) + (p == n) / 2 for p in positives for n in negatives))


def test_ece_weighs_each_bin_by_its_size() -> None:
    # bins (0, ½] and (½, 1]: |.25 - .5| over two answers, |.9 - 0| over one
    assert ece([0.2, 0.3, 0.9], [True, False, False], bins=2) == pytest.approx((0.5 + 0.9) / 3)
    assert ece([0.0, 1.0], [False, True]) == 0
    assert ece([0.5, 0.5], [True, False], bins=10) == 0
    with pytest.raises(UsageError):
        ece([1.2], [True])


def test_risk_coverage_of_a_known_order() -> None:
    curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.at(0.5) == 0.5 and curve.at(0) == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_in_confidence_give_the_mean_curve(pairs: list[tuple[int, bool]]) -> None:
    curve = risk_coverage([c for c, _ in pairs], [right for _, right in pairs])
    orders = [p for p in permutations(pairs) if all(a[0] >= b[0] for a, b in zip(p, p[1:], strict=False))]
    for count in range(1, len(pairs) + 1):
        brute = fmean(fmean(not right for _, right in order[:count]) for order in orders)
        assert curve.risk[count - 1] == pytest.approx(brute)
    assert aurc([c for c, _ in pairs], [r for _, r in pairs]) == pytest.approx(float(curve.risk.mean()))


def test_thinning_keeps_both_ends() -> None:
    curve = risk_coverage(np.linspace(0, 1, 1000), np.arange(1000) % 3 == 0)
    points = curve.thinned(11)
    assert len(points) == 11
    assert points[0][0] == pytest.approx(0.001) and points[-1] == (1.0, float(curve.risk[-1]))
    assert risk_coverage([], []).thinned() == [] and isnan(aurc([], []))


@pytest.mark.parametrize("scores, labels", [([0.1], [True, False]), ([[0.1]], [[True]]), ([np.nan], [True])])
def test_malformed_columns_are_refused(scores: list[float], labels: list[bool]) -> None:
    with pytest.raises(UsageError):
        auroc(scores, labels)
