"""Labelled examples for an input: which ones, and in what order.

The best are found by any channel, of one task or of a bank of many; what says the same as the input is left
out, so that nothing is answered by its own answer. Order, diversity and balance as in-context learning uses
them: the best example stands nearest to the input (UDR, arXiv 2305.04320, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.index.snapshot import Address
from agentmtl.index.tokens import words
from agentmtl.index.vectors import vectors_of
from agentmtl.retrieval.retriever import MAX_K, Channel, Retriever, task_filter
from agentmtl.schema import Hit
from agentmtl.trunk.encoder import Vectors

Bank: TypeAlias = Literal["task", "prior", "all"]
Order: TypeAlias = Literal["best_last", "best_first"]

SHINGLE = 3  # words
LEAK = 0.9  # shingle Jaccard from which an example says the same as the input
_SPARE = 8  # more than k fetched, for what the filters take out
_POOL = 5  # times k fetched where diversity or balance choose among them


@dataclass(frozen=True, slots=True)
class Selection:
    """How demonstrations are chosen. Defaults were measured; `docs/decisions.md` has the numbers.

    `bank`: examples of the task alone, of all tasks with `prior` added to the task's own scores, or of all;
    all are those that are encoded as the task's own (`agentmtl.retrieval.example_encoder`).
    `diversity`: 0 takes the best, towards 1 those least like the ones taken before (maximal marginal
    relevance, Carbonell & Goldstein, SIGIR 1998). `balance` takes the outputs in turn.
    """

    k: int = 8
    channel: Channel = "fused"
    order: Order = "best_last"
    diversity: float = 0.0
    balance: bool = False
    bank: Bank = "task"
    prior: float = 2.0
    leakage_filter: bool = True

    def __post_init__(self) -> None:
        if self.k < 1 or not 0.0 <= self.diversity <= 1.0:
            raise UsageError(
                f"k {self.k} with diversity {self.diversity} selects nothing.",
                "k ≥ 1, diversity from 0 to 1.",
            )


@dataclass(frozen=True, slots=True)
class Selected:
    """`hits` in prompt order; `cosines` (n,) of input and example, in the same order."""

    hits: tuple[Hit, ...]
    cosines: tuple[float, ...]


def select(
    retriever: Retriever,
    text: str,
    task: str,
    selection: Selection | None = None,
    vector: Vectors | None = None,
    where: str | None = None,
) -> Selected:
    """The demonstrations of `task` for an input. `vector` (d,) is the input's own where it is known.

    Raises what `Retriever.retrieve` raises.
    """
    wanted = selection or Selection()
    query = retriever.encode_inputs([text], task)[0] if vector is None else np.asarray(vector, np.float32)
    pool = _candidates(retriever, text, task, wanted, query, where)
    vectors = _vectors(retriever, [address for _, address in pool])
    chosen = _choose([hit for hit, _ in pool], vectors, wanted)
    if wanted.order == "best_last":
        chosen = chosen[::-1]
    cosines = (vectors[chosen] @ query).tolist() if chosen else []
    return Selected(tuple(pool[i][0] for i in chosen), tuple(cosines))


def _candidates(
    retriever: Retriever, text: str, task: str, wanted: Selection, query: Vectors, where: str | None
) -> list[tuple[Hit, Address]]:
    """The pool without what says the same as the input; searched deeper where that takes too many."""
    many = wanted.balance or wanted.diversity > 0
    enough = min(wanted.k * (_POOL if many else 1), MAX_K)
    depth = min(enough + _SPARE, MAX_K)
    said = shingles(text)
    while True:
        pool = _pool(retriever, text, task, wanted, query, where, depth)
        left = [(h, a) for h, a in pool if not (wanted.leakage_filter and alike(said, shingles(h.text)))]
        if len(left) >= enough or len(pool) < depth or depth == MAX_K:
            return left
        depth = min(4 * depth, MAX_K)


def _pool(
    retriever: Retriever,
    text: str,
    task: str,
    wanted: Selection,
    query: Vectors,
    where: str | None,
    depth: int,
) -> list[tuple[Hit, Address]]:
    """The `depth` best, best first."""
    mine = _found(retriever, text, wanted.channel, query, depth, task_filter(where, task))
    if wanted.bank == "task":
        return mine
    every = _found(retriever, text, wanted.channel, query, depth, retriever.read_alike(where, task))
    if wanted.bank == "all":
        return every
    raised = {a: replace(h, score=h.score + wanted.prior) for h, a in (*every, *mine) if _is_of(h, task)}
    merged = {a: raised.get(a, h) for h, a in (*every, *mine)}
    ordered = sorted(merged.items(), key=lambda item: (-item[1].score, item[1].id))
    return [(hit, address) for address, hit in ordered[:depth]]


def _is_of(hit: Hit, task: str) -> bool:
    return hit.unit.metadata.get("task") == task


def _found(
    retriever: Retriever, text: str, channel: Channel, query: Vectors, depth: int, where: str | None
) -> list[tuple[Hit, Address]]:
    hits = retriever.retrieve(
        text, level="demonstration", k=depth, where=where, channel=channel, vector=query
    )
    return list(zip(hits, hits.addresses, strict=True))


def _vectors(retriever: Retriever, addresses: Sequence[Address]) -> Vectors:
    """(n, d) of stored demonstrations."""
    snapshot = retriever.snapshot
    rows = [
        vectors_of(snapshot.segments[number].levels["demonstration"].flat)[position]
        for number, position in addresses
    ]
    return np.stack(rows) if rows else np.empty((0, snapshot.settings.encoder.dimension), np.float32)


# --- choosing ---------------------------------------------------------------------------------------


def _choose(hits: Sequence[Hit], vectors: Vectors, wanted: Selection) -> list[int]:
    """Indexes into the pool, best first."""
    order = _diverse(hits, vectors, wanted) if wanted.diversity > 0 else list(range(len(hits)))
    return (_in_turn(hits, order) if wanted.balance else order)[: wanted.k]


def _diverse(hits: Sequence[Hit], vectors: Vectors, wanted: Selection) -> list[int]:
    """Maximal marginal relevance: (1 − diversity) · score − diversity · highest cosine with one taken."""
    scores = np.array([hit.score for hit in hits])
    spread = float(np.ptp(scores)) or 1.0
    left, taken = list(range(len(hits))), list[int]()
    alike = vectors @ vectors.T
    while left and len(taken) < wanted.k * (_POOL if wanted.balance else 1):
        near = alike[np.array(left)][:, np.array(taken)].max(axis=1) if taken else np.zeros(len(left))
        gain = (1 - wanted.diversity) * (scores[left] - scores.min()) / spread - wanted.diversity * near
        taken.append(left.pop(int(np.argmax(gain))))
    return taken


def _in_turn(hits: Sequence[Hit], order: Iterable[int]) -> list[int]:
    """The best of every output first, then the second of every output …"""
    seen: dict[str, int] = {}
    rounds: list[tuple[int, int]] = []
    for place, i in enumerate(order):
        output = str(hits[i].unit.metadata.get("output"))
        rounds.append((seen.get(output, 0), place))
        seen[output] = seen.get(output, 0) + 1
    ranked = list(order)
    return [ranked[place] for _, place in sorted(rounds)]


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The runs of `SHINGLE` words; the whole text where it is shorter. Signs count where there is no word."""
    spelt = words(text) or text.split()
    if len(spelt) <= SHINGLE:
        return frozenset([tuple(spelt)])
    return frozenset(tuple(spelt[i : i + SHINGLE]) for i in range(len(spelt) - SHINGLE + 1))


def alike(said: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    """Whether two texts with these shingles say the same, or nearly."""
    return len(said & other) >= LEAK * len(said | other)
