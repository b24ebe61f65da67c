"""Metrics of a ranking: known values, and ties against the mean over every order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, permutations, product
from math import log2
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.evaluate.metrics import all_gold_at, mrr_at, ndcg_at, recall_at

STRICT = [("a", 5.0), ("b", 4.0), ("c", 3.0), ("d", 2.0)]


def test_strict_ranking_has_the_textbook_values() -> None:
    gold = {"b", "d"}
    assert [recall_at(STRICT, gold, k) for k in (1, 2, 3, 4)] == [0, 0.5, 0.5, 1]
    assert [all_gold_at(STRICT, gold, k) for k in (2, 3, 4, 9)] == [0, 0, 1, 1]
    assert [mrr_at(STRICT, gold, k) for k in (1, 2, 4)] == [0, 0.5, 0.5]
    ideal = 1 + 1 / log2(3)
    assert ndcg_at(STRICT, gold, 4) == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert ndcg_at([("b", 2.0), ("d", 1.0), ("a", 0.0)], gold, 3) == pytest.approx(1)


def test_one_relevant_source_in_a_tie_follows_the_closed_formulas() -> None:
    # g = 1 strictly better, t = 3 tied: E[Hit@k] = clip((k - g)/t), E[1/rank] = mean of 1/2, 1/3, 1/4
    ranking = [("x", 2.0), ("a", 1.0), ("b", 1.0), ("c", 1.0)]
    assert [recall_at(ranking, {"b"}, k) for k in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert mrr_at(ranking, {"b"}, 10) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)


def test_gold_that_is_not_found_counts_as_missed() -> None:
    assert recall_at(STRICT, {"a", "zz"}, 10) == 0.5
    assert all_gold_at(STRICT, {"a", "zz"}, 10) == 0
    assert (mrr_at([], {"a"}, 5), recall_at([], {"a"}, 5), ndcg_at([], {"a"}, 5)) == (0, 0, 0)


def test_more_gold_than_places_is_never_complete() -> None:
    assert all_gold_at(STRICT, {"a", "b", "c"}, 2) == 0


@pytest.mark.parametrize(
    "ranking, gold",
    [(STRICT, set()), ([("a", 1.0), ("a", 0.5)], {"a"}), ([("a", 1.0), ("b", 2.0)], {"a"})],
    ids=["no gold", "repeated source", "rising scores"],
)
def test_a_malformed_ranking_is_refused(ranking: list[tuple[str, float]], gold: set[str]) -> None:
    with pytest.raises(UsageError):
        recall_at(ranking, gold, 5)


# --- ties: the formula against brute force ------------------------------------------------------------


def _orders(ranking: list[tuple[str, float]]) -> Iterator[list[str]]:
    groups = [[source for source, _ in group] for _, group in groupby(ranking, key=lambda e: e[1])]
    for order in product(*(permutations(group) for group in groups)):
        yield [source for group in order for source in group]


def _recall(order: list[str], gold: set[str], k: int) -> float:
    return len(gold & set(order[:k])) / len(gold)


def _all_gold(order: list[str], gold: set[str], k: int) -> float:
    return float(gold <= set(order[:k]))


def _mrr(order: list[str], gold: set[str], k: int) -> float:
    return next((1 / rank for rank, source in enumerate(order[:k], 1) if source in gold), 0.0)


def _ndcg(order: list[str], gold: set[str], k: int) -> float:
    gain = sum(1 / log2(rank + 1) for rank, source in enumerate(order[:k], 1) if source in gold)
    return gain / sum(1 / log2(rank + 1) for rank in range(1, min(k, len(gold)) + 1))


@st.composite
def _tied_rankings(draw: st.DrawFn) -> tuple[list[tuple[str, float]], set[str]]:
    scores = sorted(draw(st.lists(st.integers(0, 2), max_size=6)), reverse=True)
    ranking = [(f"s{i}", float(score)) for i, score in enumerate(scores)]
    names = [source for source, _ in ranking] + ["missing"]
    return ranking, draw(st.sets(st.sampled_from(names), min_size=1))


@given(_tied_rankings(), st.integers(1, 8))
def test_ties_give_the_mean_over_all_orders(case: tuple[list[tuple[str, float]], set[str]], k: int) -> None:
    ranking, gold = case
    orders = list(_orders(ranking))
    for formula, brute in [(recall_at, _recall), (all_gold_at, _all_gold), (mrr_at, _mrr), (ndcg_at, _ndcg)]:
        assert formula(ranking, gold, k) == pytest.approx(fmean(brute(order, gold, k) for order in orders))
