"""Personalised PageRank over names and passages: which passages the found ones point to together.

HippoRAG 2 (arXiv 2502.14802, section 3.4) and LinearRAG (arXiv 2510.10114, section 3.3) rank by it; damping
.5 as theirs. Only the part of the graph around the candidates is walked: their passages and the names in
them, each edge of equal weight, names in many passages left out.
"""

from __future__ import annotations

import numpy as np

from agentmtl.retrieval.hops.graph import Numbers, PassageGraph
from agentmtl.retrieval.hops.question import Floats

DAMPING = 0.5
ROUNDS = 12  # the remainder is below .5¹²
COMMON = 200  # names in more passages than that say nothing


def page_rank(graph: PassageGraph, passages: Numbers, seed: Floats) -> Floats:
    """The mass (n,) of each of `passages` (n,), which adds up to 1 at most: p = (1 − d)·seed + d·Wᵀp.

    `seed` (n,) is not negative and is scaled to add up to 1. A passage without names loses its mass.
    """
    total = float(seed.sum())
    if not len(passages) or total <= 0.0:
        return np.zeros(len(passages))
    seed = seed / total
    owner, places = graph.mentions.places(passages)
    names = graph.mention_names[graph.mentions.values[places]]
    few = np.asarray(graph.mentioned_in.sizes(names) <= COMMON)
    owner, names = owner[few], names[few]
    _, name = np.unique(names, return_inverse=True)
    count = int(name.max()) + 1 if len(name) else 0
    out_passage = np.maximum(np.bincount(owner, minlength=len(passages)), 1)
    out_name = np.maximum(np.bincount(name, minlength=count), 1)
    mass = seed.copy()
    for _ in range(ROUNDS):  # a round is two half-steps: passages to names and back
        at_names = np.bincount(name, (mass / out_passage)[owner], minlength=count)
        back = np.bincount(owner, (at_names / out_name)[name], minlength=len(passages))
        mass = (1.0 - DAMPING) * seed + DAMPING * back
    return np.asarray(mass)
