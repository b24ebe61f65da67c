"""A beam over evidence chains: from the passages a question finds to those that they lead to.

Each hop, every query updater proposes steps from the best chains' last passages; a step's log-odds are
those that parent and child are both part of the evidence. A passage counts by the best chain it is in,
wherever it stands in it. Path scores and the beam follow MDR (arXiv 2009.12756, section 2.3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from agentmtl.retrieval.hops.graph import Numbers, PassageGraph
from agentmtl.retrieval.hops.model import HopModel, probability
from agentmtl.retrieval.hops.question import Asked, Floats
from agentmtl.retrieval.hops.updaters import Parents, QueryUpdater, Steps


@dataclass(frozen=True, slots=True)
class Chain:
    """A passage and how it was come to. `score` is in log-odds; `via` is a name's number or −1."""

    passage: int
    score: float
    hop: int = 1
    parent: Chain | None = None
    updater: str = ""
    via: int = -1

    def passages(self) -> list[int]:
        """Those of the whole chain, the first one first."""
        before = self.parent.passages() if self.parent is not None else []
        return [*before, self.passage]


@dataclass(frozen=True, slots=True)
class HopNote:
    """What one hop did, for the trace."""

    hop: int
    parents: Numbers
    steps: dict[str, int]  # proposed, by updater
    kept: tuple[Chain, ...]
    seconds: float


@dataclass
class Beam:
    """`best`: for every passage the best chain that it is part of; `first`: its log-odds by the question."""

    first: dict[int, float]
    best: dict[int, Chain] = field(default_factory=dict)
    notes: list[HopNote] = field(default_factory=list)
    stopped: str = "hops"

    def credit(self, chain: Chain) -> None:
        """Let every passage of a chain share in its score."""
        for passage in chain.passages():
            if passage not in self.best or self.best[passage].score < chain.score:
                self.best[passage] = chain


@dataclass(frozen=True, slots=True)
class Limits:
    """`hops` counts the first one. `seconds` from the start of the search; 0 is no limit."""

    hops: int
    width: int
    seconds: float = 0.0
    least_gain: float = 0.0  # probability below which the best new chain is not followed further


class Judge(Protocol):
    """Scores the `read` best chains of a hop again (`agentmtl.retrieval.hops.judge`)."""

    @property
    def read(self) -> int: ...

    def __call__(self, graph: PassageGraph, question: str, chains: Sequence[Chain]) -> list[float]: ...


def expand(
    graph: PassageGraph,
    asked: Asked,
    model: HopModel,
    updaters: Sequence[QueryUpdater],
    limits: Limits,
    started: float,
    judge: Judge | None = None,
) -> Beam:
    """Run the beam. The first hop is the question's own candidates."""
    scores = model("question", asked.features)
    beam = Beam(dict(zip(asked.candidates.tolist(), scores.tolist(), strict=True)))
    order = np.lexsort((asked.candidates, -scores))[: limits.width]
    front = [Chain(int(asked.candidates[i]), float(scores[i])) for i in order]
    for hop in range(2, limits.hops + 1):
        if limits.seconds and time.perf_counter() - started > limits.seconds:
            beam.stopped = "time"
            break
        front = _hop(graph, asked, model, updaters, limits, front, hop, beam, judge)
        if not front:
            beam.stopped = "nothing new"
            break
        if float(probability(np.array([front[0].score]))[0]) < limits.least_gain:
            beam.stopped = "no gain"
            break
    return beam


def _hop(
    graph: PassageGraph,
    asked: Asked,
    model: HopModel,
    updaters: Sequence[QueryUpdater],
    limits: Limits,
    front: Sequence[Chain],
    hop: int,
    beam: Beam,
    judge: Judge | None,
) -> list[Chain]:
    begun = time.perf_counter()
    parents = Parents(
        np.array([c.passage for c in front], np.int64), np.array([c.score for c in front], np.float64)
    )
    chains: list[Chain] = []
    counts: dict[str, int] = {}
    for updater in updaters:
        steps = updater.propose(graph, asked, parents)
        counts[updater.name] = len(steps)
        chains += _best_steps(steps, model(updater.kind, steps.features), front, updater.name, hop)
    if judge is not None:
        chains = judged(chains, judge.read, lambda best: judge(graph, asked.text, best))
    found: dict[int, Chain] = {}
    for chain in chains:
        beam.credit(chain)
        if chain.passage not in found or found[chain.passage].score < chain.score:
            found[chain.passage] = chain
    kept = sorted(found.values(), key=lambda c: (-c.score, c.passage))[: limits.width]
    beam.notes.append(HopNote(hop, parents.passages, counts, tuple(kept), time.perf_counter() - begun))
    return kept


def _best_steps(steps: Steps, scores: Floats, front: Sequence[Chain], updater: str, hop: int) -> list[Chain]:
    """The best step to every (parent, child), as chains; none that comes back to its own chain."""
    order = np.lexsort((steps.children, -scores))
    seen: set[tuple[int, int]] = set()
    chains: list[Chain] = []
    for i in order.tolist():
        pair = int(steps.parents[i]), int(steps.children[i])
        if pair in seen:
            continue
        seen.add(pair)
        parent = front[pair[0]]
        if hop == 2 or pair[1] not in parent.passages():
            chains.append(Chain(pair[1], float(scores[i]), hop, parent, updater, int(steps.via[i])))
    return chains


def distinct_best(chains: Sequence[Chain], count: int) -> list[Chain]:
    """The best chains, each way through the passages once."""
    best: dict[tuple[int, ...], Chain] = {}
    for chain in sorted(chains, key=lambda c: (-c.score, c.passage)):
        best.setdefault(tuple(chain.passages()), chain)
        if len(best) == count:
            break
    return list(best.values())


def judged(
    chains: Sequence[Chain], count: int, scores_of: Callable[[list[Chain]], list[float]]
) -> list[Chain]:
    """The chains with the `count` best ones scored again; another score of the same way is dropped."""
    best = distinct_best(chains, count)
    read = {tuple(chain.passages()) for chain in best}
    others = [chain for chain in chains if tuple(chain.passages()) not in read]
    again = [replace(c, score=score) for c, score in zip(best, scores_of(best), strict=True)]
    return [*again, *others]
