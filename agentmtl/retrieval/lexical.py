"""The lexical channel: BM25 over the postings of all segments, with statistics of the live units only.

Document frequencies and the mean length are merged over segments at query time and leave deleted units
out, so an index scores like a fresh build of the same units (Robertson & Zaragoza, "The Probabilistic
Relevance Framework", 2009, section 3; idf and tf in the form Lucene uses).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.live import LevelView
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.tokens import words
from agentmtl.retrieval.masks import Allowed
from agentmtl.retrieval.ranking import EMPTY, Ranking, best
from agentmtl.schema import Level

Matches = tuple[NDArray[np.int32], NDArray[np.int32]]  # unit positions, counts


def search(
    snapshot: Snapshot, level: Level, query: str, k: int, allowed: Mapping[int, Allowed] | None = None
) -> Ranking:
    """The k best units of `level` for the words of `query`; units that share no word are left out."""
    views = [v for v in snapshot.views(level) if v.units]
    terms = Counter(words(query))
    if not views or not terms:
        return EMPTY
    totals = score_all(snapshot, views, terms)
    scores, segments, positions = [], [], []
    for view, total in zip(views, totals, strict=True):
        if allowed is not None:
            total = np.where(allowed[view.number].mask, total, 0.0)
        found = np.flatnonzero(total)
        scores.append(total[found])
        positions.append(found)
        segments.append(np.full(len(found), view.number, np.int64))
    return best(
        np.concatenate(scores),
        np.concatenate(segments),
        np.concatenate(positions),
        k,
        lambda n, p: snapshot.id_of(level, (n, p)),
    )


def score_all(
    snapshot: Snapshot, views: Sequence[LevelView], terms: Mapping[str, int]
) -> list[NDArray[np.float64]]:
    """BM25 of every unit of every view, (units,) each; 0 where no word matches or the unit is deleted."""
    k1, b = snapshot.settings.k1, snapshot.settings.b
    units = sum(v.units for v in views)
    mean = max(sum(v.words for v in views) / units, 1e-9)
    totals = [np.zeros(v.files.units) for v in views]
    for term, times in terms.items():
        matches = [matching(v, term) for v in views]
        weight = times * idf(units, sum(len(positions) for positions, _ in matches))
        for view, total, (positions, counts) in zip(views, totals, matches, strict=True):
            lengths = view.files.postings.lengths[positions]
            total[positions] += weight * counts / (counts + k1 * (1.0 - b + (b / mean) * lengths))
    return totals


def idf(units: int, matching: int) -> float:
    """ln(1 + (N − df + ½)/(df + ½)), never negative."""
    return math.log1p((units - matching + 0.5) / (matching + 0.5))


def document_frequency(snapshot: Snapshot, level: Level, term: str) -> int:
    """Live units of `level` that hold the word."""
    return sum(len(matching(view, term)[0]) for view in snapshot.views(level))


def matching(view: LevelView, term: str) -> Matches:
    """The live units that hold the word, and how often."""
    postings = view.files.postings
    where = postings.find(term)
    positions, counts = postings.units[where], postings.counts[where]
    if len(view.dead):
        keep = view.alive[positions]
        return positions[keep], counts[keep]
    return positions, counts
