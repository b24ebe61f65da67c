"""From chains to a ranking: the question's own score, the best chain, PageRank, and the facets' share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agentmtl.retrieval.hops.beam import Beam
from agentmtl.retrieval.hops.graph import PassageGraph
from agentmtl.retrieval.hops.model import probability
from agentmtl.retrieval.hops.pagerank import page_rank

ABSENT = -8.0  # log-odds of a passage that a hop did not come to
_MASS_FLOOR = 1e-6  # so that a passage without mass has a logarithm

Scores = Mapping[int, float]  # passage → score, the higher the better


def rank_scores(graph: PassageGraph, beam: Beam, chain_weight: float, mass_weight: float) -> dict[int, float]:
    """P(by the question) + chain_weight · P(best chain) + mass_weight · ln(PageRank mass), by passage."""
    passages = np.array(sorted({*beam.first, *beam.best}), np.int64)
    numbers = passages.tolist()
    first = probability(np.array([beam.first.get(p, ABSENT) for p in numbers]))
    chain = probability(np.array([beam.best[p].score if p in beam.best else ABSENT for p in numbers]))
    scores = first + chain_weight * chain
    if mass_weight:
        scores = scores + mass_weight * np.log(page_rank(graph, passages, scores**2) + _MASS_FLOOR)
    return dict(zip(numbers, scores.tolist(), strict=True))


def ordered(scores: Scores, ids: Mapping[int, bytes]) -> list[int]:
    """Best first, ties by unit id."""
    return sorted(scores, key=lambda p: (-scores[p], ids[p]))


def with_facets(whole: Scores, facets: Sequence[Scores], weight: float) -> dict[int, float]:
    """The whole question's scores plus `weight` times the best facet's."""
    floor = min(min(s.values()) for s in (whole, *facets))
    passages = {p for scores in (whole, *facets) for p in scores}
    return {p: whole.get(p, floor) + weight * max(f.get(p, floor) for f in facets) for p in passages}


def cover(ranking: Sequence[int], whole: Scores, facets: Sequence[Scores]) -> list[int]:
    """The ranking with a passage for each facet in front: the one that is best by facet and question
    together, each passage once."""
    place = {passage: i for i, passage in enumerate(ranking)}
    floor = min(whole.values())
    front: list[int] = []
    for facet in facets:
        left = [p for p in facet if p not in front]
        if left:
            front.append(min(left, key=lambda p: (-(facet[p] + whole.get(p, floor)), place[p])))
    front.sort(key=place.__getitem__)
    return [*front, *(p for p in ranking if p not in set(front))]
