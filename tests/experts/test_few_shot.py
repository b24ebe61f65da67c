"""Reading few examples: Gaussian classes with label texts, hypotheses weighed by leaving examples out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.experts.bank import marginal, readable, two_parts
from agentmtl.experts.few_shot import (
    HYPOTHESES,
    BankWeights,
    Floats,
    Points,
    class_scores,
    fit_choice,
    hypothesis_weights,
    log_softmax,
    option_features,
    possible,
    predict,
    relations,
)

PLAIN = BankWeights()


def unit(values: Floats) -> Floats:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@given(st.integers(0, 10_000), st.floats(0.5, 20))
def test_an_example_left_out_is_as_if_it_had_never_been_there(seed: int, shrinkage: float) -> None:
    rng = np.random.default_rng(seed)
    x, prior = rng.normal(size=(7, 4)), rng.normal(size=(3, 4))
    y = rng.integers(0, 3, 7)
    found = class_scores(x, x, y, prior, shrinkage, own=True)
    for n in range(7):
        rest = np.delete(np.arange(7), n)
        alone = class_scores(x[n : n + 1], x[rest], y[rest], prior, shrinkage, own=False)
        assert found[n, y[n]] == pytest.approx(alone[0, y[n]])


def test_labels_without_examples_are_told_by_their_texts() -> None:
    rng = np.random.default_rng(0)
    labels = unit(rng.normal(size=(12, 24)))
    asked = unit(labels + 0.1 * rng.normal(size=labels.shape))
    shots = Points(unit(labels[:4] + 0.1 * rng.normal(size=(4, 24))))
    shares = predict(Points(asked), shots, np.arange(4), labels, PLAIN)
    assert shares.shape == (12, 12) and np.allclose(shares.sum(axis=1), 1)
    assert (shares.argmax(axis=1) == np.arange(12)).all()


def test_examples_outweigh_misleading_texts_the_more_there_are() -> None:
    """The texts of two labels are exchanged."""
    rng = np.random.default_rng(1)
    centres = unit(rng.normal(size=(2, 16)))

    def right(count: int) -> float:
        y = np.tile([0, 1], count)
        shots = Points(unit(centres[y] + 0.2 * rng.normal(size=(len(y), 16))))
        answers = np.tile([0, 1], 50)
        asked = Points(unit(centres[answers] + 0.2 * rng.normal(size=(100, 16))))
        return float((predict(asked, shots, y, centres[::-1], PLAIN).argmax(axis=1) == answers).mean())

    assert right(1) < 0.9 < right(30)


def test_what_reads_the_examples_well_counts() -> None:
    """Labels that only the relation of two parts tells apart, then only the content."""
    rng = np.random.default_rng(2)
    y = np.tile([0, 1], 8)
    noise, telling = unit(rng.normal(size=(16, 16))), np.where(y, 1.5, -1.5)[:, None]
    labels = unit(rng.normal(size=(2, 16)))
    related = Points(noise, telling + 0.3 * rng.normal(size=(16, 5)))
    spoken = Points(unit(labels[y] + 0.1 * rng.normal(size=(16, 16))), rng.normal(size=(16, 5)))
    for shots, relates in ((related, True), (spoken, False)):
        hypotheses = possible(shots)
        shares = hypothesis_weights(shots, y, labels, PLAIN, hypotheses)
        mine = sum(w for h, w in zip(hypotheses, shares, strict=True) if h.relates)
        assert shares.sum() == pytest.approx(1) and (mine > 0.9) == relates


def test_strangers_votes_count_where_they_fit_the_examples() -> None:
    rng = np.random.default_rng(3)
    y = np.tile([0, 1], 8)
    x, labels = unit(rng.normal(size=(16, 16))), unit(rng.normal(size=(2, 16)))
    votes = np.log(np.where(y[:, None] == [0, 1], 0.9, 0.1))
    told = {}
    for name, said in (("right", votes), ("wrong", votes[:, ::-1])):
        shots = Points(x, None, said)
        shares = hypothesis_weights(shots, y, labels, PLAIN, possible(shots))
        told[name] = sum(w for h, w in zip(possible(shots), shares, strict=True) if h.votes)
    assert told["right"] > 0.9 > 0.1 > told["wrong"]


def test_only_possible_hypotheses_are_weighed() -> None:
    x = np.zeros((2, 3))
    assert all(not h.relates and not h.votes for h in possible(Points(x)))
    assert possible(Points(x, np.zeros((2, 5)), np.zeros((2, 2)))) == HYPOTHESES


@given(st.integers(0, 1000))
def test_the_marginal_is_a_distribution_and_follows_the_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    meanings = unit(rng.normal(size=(5, 8))).astype(np.float32)
    said = meanings[[3, 1, 0]]
    found = marginal(np.array([0.9, 0.1, 0.0]), said, meanings)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-4) and int(found.argmax()) == 3
    by_hand = np.exp(np.array([0.9, 0.1, 0.0]) / 0.1)
    by_hand /= by_hand.sum()
    each = np.exp(5.0 * said @ meanings.T)
    each /= each.sum(axis=1, keepdims=True)
    assert np.allclose(np.exp(found), by_hand @ each, atol=1e-5)


def test_a_choice_is_fitted_and_held_near_its_start() -> None:
    rng = np.random.default_rng(4)
    features = [rng.normal(size=(4, 4)) for _ in range(200)]
    truth = np.array([2.0, -1.0, 0.0, 0.5])
    right = [int(rng.choice(4, p=np.exp(log_softmax(f @ truth)))) for f in features]
    assert np.allclose(fit_choice(features, right, (0, 0, 0, 0), 100.0), truth, atol=0.6)
    assert np.allclose(fit_choice(features, right, (1, 1, 1, 1), 1e-4), 1, atol=1e-3)
    assert np.allclose(fit_choice([], [], (3, 2, 1, 0), 1.0), (3, 2, 1, 0))


def test_option_features_are_apart_from_what_all_options_share() -> None:
    rng = np.random.default_rng(5)
    question, options, together = rng.normal(size=6), rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    found = option_features(question, options, together, np.empty((0, 6)))
    assert found.shape == (4, 4) and np.allclose(found.sum(axis=0), 0) and not found[:, 3].any()


def test_relations_of_two_parts() -> None:
    pairs = [("a cat sleeps", "the cat sleeps"), ("he sings", "he does not sing at all")]
    same = np.eye(2)
    found = relations(pairs, same, same[[0, 0]])
    assert found[0, 0] == 1 and found[1, 0] == 0
    assert found[0, 1] == pytest.approx(2 / 3) and found[0, 4] == 0 and found[1, 4] == -1
    assert found[1, 3] > 0 > -found[1, 3]


def test_texts_are_read() -> None:
    assert two_parts("Premise: it rains\nHypothesis: it is wet") == ("it rains", "it is wet")
    assert two_parts("it rains\nit is wet") is None and two_parts("Premise: it rains") is None
    assert readable("card_arrival") == "card arrival" and readable("PlayMusic") == "Play Music"
    assert readable("atis_flight#atis_airfare") == "atis flight atis airfare" and readable("_") == "_"


def test_the_prior_of_hypotheses_is_what_the_weights_say() -> None:
    weights = replace(PLAIN, voting=2.0, relating=-3.0, joint=-1.0, shrinking=0.5)
    prior = dict(zip(HYPOTHESES, weights.log_prior(HYPOTHESES), strict=True))
    for h, value in prior.items():
        expected = 2 * h.votes - 3 * h.relates - (h.reads == "both") + 0.5 * np.log(h.shrinkage)
        assert value == pytest.approx(expected)
