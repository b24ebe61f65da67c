"""Candidates for the demonstration retriever: what it finds now, scored once, and kept over rounds.

Round by round (UDR, arXiv 2305.04320, section 3.4): the 50 examples nearest to each query by the retriever so
far, itself left out; those that were not scored yet are; the lists of all rounds are learned from. In the
first round, which searches by the frozen vectors, a few examples of the same output come along, wherever they
are (UDR finds them by the words of the answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from agentmtl.learn.feedback import FeedbackScorer, Floats, Pool
from agentmtl.trunk.encoder import Vectors

NEAREST = 50
OF_OUTPUT = 10
TOP = BOTTOM = 5  # of a list, of which one each is shown


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Of a query: examples of its pool (m,), the most useful first, and what they are worth."""

    rows: tuple[int, ...]
    utilities: Floats

    def drawn(self, count: int, random: Random) -> list[int]:
        """`count` of them: one of the best five, one of the worst five, the others from between."""
        rows = list(self.rows)
        if len(rows) <= count:
            return rows
        best, worst, middle = rows[:TOP], rows[-BOTTOM:], rows[TOP:-BOTTOM] or rows
        chosen = [random.choice(best), random.choice(worst)]
        left = [row for row in middle if row not in chosen]
        return chosen + random.sample(left, min(count - 2, len(left)))


Lists = dict[int, Candidates]  # by the query's place in its pool


def mine(
    pool: Pool, vectors: Vectors, scorer: FeedbackScorer, queries: Sequence[int], known: Lists, first: bool
) -> Lists:
    """The candidates of `queries`, by `vectors` (n, d) of the retriever so far, with those of `known`."""
    found = dict(known)
    by_output: dict[str, list[int]] = {}
    for row, output in enumerate(pool.outputs):
        by_output.setdefault(output, []).append(row)
    for query in queries:
        near = _nearest(vectors, query)
        if first:
            near += _of_output(by_output[pool.examples[query].output], query)
        old = known.get(query)
        seen = set(old.rows) if old else set[int]()
        fresh = [row for row in dict.fromkeys(near) if row not in seen]
        rows, utilities = (list(old.rows), list(old.utilities)) if old else ([], [])
        if fresh:
            utilities += scorer.utilities([query], fresh)[0].tolist()
        rows += fresh
        order = sorted(range(len(rows)), key=lambda n: (-utilities[n], rows[n]))
        found[query] = Candidates(tuple(rows[n] for n in order), np.array([utilities[n] for n in order]))
    return found


def _nearest(vectors: Vectors, query: int) -> list[int]:
    scores = vectors @ vectors[query]
    scores[query] = -np.inf
    count = min(NEAREST, len(scores) - 1)
    best = np.argpartition(-scores, count - 1)[:count]
    return [int(row) for row in best[np.argsort(-scores[best], kind="stable")]]


def _of_output(rows: Sequence[int], query: int) -> list[int]:
    others = [row for row in rows if row != query]
    return Random(f"same output:{query}").sample(others, min(OF_OUTPUT, len(others)))
