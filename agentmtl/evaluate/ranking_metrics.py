"""Retrieval metrics over a ranked list of distinct sources, with ties by expectation.

A ranking is a list of (source id, score), best first, each source once. Sources of equal score are in no
order: every metric is its mean over all orders inside the tied groups, by formula. A relevant source that
is not in the list is never found.

Sources: recall and reciprocal rank as in Voorhees, "The TREC-8 Question Answering Track Report", 1999;
nDCG with binary gains as in Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques",
2002; expectation over ties as in McSherry & Najork, "Computing Information Retrieval Performance Measures
Efficiently in the Presence of Tied Scores", ECIR 2008.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from math import comb, log2
from typing import TypeAlias

from agentmtl.errors import UsageError

Ranking: TypeAlias = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class TiedGroup:
    """`size` sources of equal score, `relevant` of them in the gold, after `before` better ones."""

    before: int
    size: int
    relevant: int


def tied_groups(ranking: Ranking, gold: Set[str]) -> list[TiedGroup]:
    """The groups of equal score, best first.

    Raises UsageError for an empty gold, a repeated source, or scores that rise.
    """
    _check(ranking, gold)
    groups: list[TiedGroup] = []
    before = 0
    for _, members in groupby(ranking, key=lambda entry: entry[1]):
        sources = [source for source, _ in members]
        groups.append(TiedGroup(before, len(sources), sum(s in gold for s in sources)))
        before += len(sources)
    return groups


def _check(ranking: Ranking, gold: Set[str]) -> None:
    if not gold:
        raise UsageError("A question without gold sources has no rank.", "Leave it out of the measurement.")
    if len({source for source, _ in ranking}) != len(ranking):
        raise UsageError("A source is in the ranking twice.", "Rank each source by its best unit.")
    if any(after > before for (_, before), (_, after) in zip(ranking, ranking[1:], strict=False)):
        raise UsageError("The ranking is not in descending order.", "Sort it by score.")


def recall_at(ranking: Ranking, gold: Set[str], k: int) -> float:
    """Expected share of the gold among the first k."""
    found = 0.0
    for group in tied_groups(ranking, gold):
        slots = min(max(k - group.before, 0), group.size)
        found += group.relevant * slots / group.size
    return found / len(gold)


def all_gold_at(ranking: Ranking, gold: Set[str], k: int) -> float:
    """Probability that the whole gold is among the first k; 0 where the gold has more than k sources."""
    groups = tied_groups(ranking, gold)
    if sum(group.relevant for group in groups) < len(gold):
        return 0.0
    probability = 1.0
    for group in groups:
        slots = min(max(k - group.before, 0), group.size)
        # ways to choose which members get a slot, with all relevant ones among the chosen
        probability *= comb(slots, group.relevant) / comb(group.size, group.relevant)
    return probability


def mrr_at(ranking: Ranking, gold: Set[str], k: int) -> float:
    """Expected 1 / rank of the first relevant source, 0 where that is after k."""
    for group in tied_groups(ranking, gold):
        if group.relevant:
            return sum(p / rank for rank, p in _first_relevant(group) if rank <= k)
    return 0.0


def _first_relevant(group: TiedGroup) -> Iterator[tuple[int, float]]:
    """(rank, probability that the group's first relevant source stands there)."""
    orders = comb(group.size, group.relevant)
    for place in range(1, group.size - group.relevant + 2):
        yield group.before + place, comb(group.size - place, group.relevant - 1) / orders


def ndcg_at(ranking: Ranking, gold: Set[str], k: int) -> float:
    """Expected normalised discounted cumulative gain of the first k, gains of 0 and 1."""
    gain = 0.0
    for group in tied_groups(ranking, gold):
        ranks = range(group.before + 1, min(group.before + group.size, k) + 1)
        gain += group.relevant / group.size * sum(1 / log2(rank + 1) for rank in ranks)
    ideal = sum(1 / log2(rank + 1) for rank in range(1, min(k, len(gold)) + 1))
    return gain / ideal
