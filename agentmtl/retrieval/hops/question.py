"""Hop 1: what a question asks for, the names in it, and the passages to begin with.

The pool is what the fused search would look at (the best of each channel), with the passages that a name in
the question leads to: those of documents with that title, and those that open with the name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.identifiers.storage import has_stream
from agentmtl.index.tokens import words
from agentmtl.retrieval import dense, lexical
from agentmtl.retrieval.evidence import ASKING
from agentmtl.retrieval.hops.graph import Flags, Numbers, PassageGraph
from agentmtl.retrieval.identifiers import channel as identifiers
from agentmtl.retrieval.masks import Allowed
from agentmtl.schema import Level
from agentmtl.trunk.encoder import Vectors

Floats = NDArray[np.float64]

DEPTH = 100  # candidates of each channel, as the fusion takes
COMMON_WORD = 50  # a name of one word in more passages than that is not followed from the question
MAX_OPENING = 200  # passages that open with a name of the question, at most
_SCORE_CAP = 4.0  # standard deviations; beyond it a lexical score says no more

QUESTION_FEATURES = (
    "dense",
    "lexical",
    "title weight",
    "title",
    "opening weight",
    "opening",
    "coverage",
    "identifiers",
)


@dataclass(frozen=True, slots=True)
class Link:
    """A name of the graph that stands in the question: words [start, start + length)."""

    name: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Standardises a channel's scores over the pool; where a unit was not found, `lowest` counts."""

    mean: float
    spread: float
    lowest: float

    def inside(self, scores: Floats) -> Floats:
        """As the fusion does it."""
        return (np.maximum(scores, self.lowest) - self.mean) / self.spread

    def anywhere(self, scores: Floats) -> Floats:
        """Without a floor, so that passages outside the pool differ too."""
        return np.minimum((scores - self.mean) / self.spread, _SCORE_CAP)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question against one graph.

    `terms` are its words but those that only ask; `weights` (t,) their idf over the live passages. `bm25`
    (passages,) covers all passages. `candidates` (c,) ascending passage numbers, `features` (c, f) of them.
    """

    text: str
    vector: Vectors
    terms: tuple[str, ...]
    weights: Floats
    links: tuple[Link, ...]
    linked: frozenset[int]
    bm25: Floats
    dense: Scale
    lexical: Scale
    candidates: Numbers
    features: Floats
    admitted: Flags | None
    holders: Mapping[Level, list[Numbers]] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return float(self.weights.sum()) or 1.0

    def holds(self, level: Level, units: Numbers) -> Flags:
        """(t, n): which of the terms stand in these passages or sentences."""
        found = np.zeros((len(self.terms), len(units)), np.bool_)
        for row, holders in zip(found, self.holders[level], strict=True):
            if len(holders):
                place = np.minimum(np.searchsorted(holders, units), len(holders) - 1)
                row[:] = holders[place] == units
        return found

    def coverage(self, level: Level, units: Numbers) -> Floats:
        """(n,): the idf-weighted share of the question's words in these units."""
        return np.asarray(self.weights @ self.holds(level, units) / self.total)

    def dense_scores(self, vectors: Vectors) -> Floats:
        return self.dense.anywhere((vectors @ self.vector).astype(np.float64))

    def lexical_scores(self, passages: Numbers) -> Floats:
        return self.lexical.anywhere(self.bm25[passages])

    def admits(self, passages: Numbers) -> Flags:
        """Which passages the filter lets through."""
        return np.ones(len(passages), np.bool_) if self.admitted is None else self.admitted[passages]


def ask(
    graph: PassageGraph,
    text: str,
    vector: Vectors,
    allowed: Mapping[int, Allowed] | None = None,
    names: bool = True,
    keys: bool = True,
) -> Asked | None:
    """Look the question up. None where nothing is found (an empty index, or a filter that admits nothing).

    Without `names` the names in the question lead nowhere; without `keys`, or where the index has no token
    stream, the identifiers channel takes no part.
    """
    snapshot = graph.snapshot
    admitted = _admitted(graph, allowed)
    bm25 = _bm25(graph, text)
    by_words = _best(bm25 if admitted is None else np.where(admitted, bm25, 0.0))
    ranking = dense.search(snapshot, "passage", np.asarray(vector, np.float32)[None], DEPTH, allowed)[0]
    by_vector = np.array([graph.number(a) for a in ranking.addresses()], np.int64)
    pool = np.union1d(by_vector, by_words)
    if not len(pool):
        return None
    by_keys = _by_keys(graph, text, allowed) if keys else {}
    terms, weights = _terms(graph, text)
    links = _links(graph, text) if names else ()
    cosines = (graph.vectors(pool) @ vector).astype(np.float64)
    scales = (
        _scale(cosines, float(np.min(ranking.scores)) if len(ranking) else 0.0),
        _scale(bm25[pool], float(bm25[by_words].min()) if len(by_words) else 0.0),
    )
    led = _led_to(graph, text, links, dict(zip(terms, weights.tolist(), strict=True)))
    extra = np.array(sorted({*led.titled, *led.opening, *by_keys} - set(pool.tolist())), np.int64)
    if admitted is not None and len(extra):
        extra = extra[admitted[extra]]
    candidates = np.union1d(pool, extra)
    holders: dict[Level, list[Numbers]] = {level: _holders(graph, level, terms) for level in _LEVELS}
    asked = Asked(
        text, vector, terms, weights, links, frozenset(link.name for link in links), bm25, *scales,
        candidates, np.empty((0, 0)), admitted, holders,
    )  # fmt: skip
    return _with_features(graph, asked, led, by_keys)


_LEVELS: tuple[Level, ...] = ("passage", "sentence")


def _admitted(graph: PassageGraph, allowed: Mapping[int, Allowed] | None) -> Flags | None:
    if allowed is None:
        return None
    mask = np.zeros(graph.passages, np.bool_)
    for number, admitted in allowed.items():
        base = int(graph.bases[number])
        mask[base : base + len(admitted.mask)] = admitted.mask
    return mask


def _bm25(graph: PassageGraph, text: str) -> Floats:
    scores = np.zeros(graph.passages)
    views = [v for v in graph.snapshot.views("passage") if v.units]
    if views:
        found = lexical.score_all(graph.snapshot, views, Counter(words(text)))
        for view, part in zip(views, found, strict=True):
            base = int(graph.bases[view.number])
            scores[base : base + len(part)] = part
    return scores


def _best(scores: Floats) -> Numbers:
    """The numbers of the `DEPTH` best scores above 0, with all that tie with the last."""
    found = np.flatnonzero(scores)
    if len(found) <= DEPTH:
        return found
    cut = np.partition(scores[found], len(found) - DEPTH)[len(found) - DEPTH]
    best: Numbers = found[scores[found] >= cut]
    return best


def _scale(scores: Floats, lowest: float) -> Scale:
    floored = np.maximum(scores, lowest)
    return Scale(float(floored.mean()), float(floored.std()) or 1.0, lowest)


def _terms(graph: PassageGraph, text: str) -> tuple[tuple[str, ...], Floats]:
    terms = tuple(t for t in dict.fromkeys(words(text)) if t not in ASKING)
    units = max(graph.snapshot.count("passage"), 1)
    frequencies = (lexical.document_frequency(graph.snapshot, "passage", t) for t in terms)
    return terms, np.array([lexical.idf(units, n) for n in frequencies])


def _holders(graph: PassageGraph, level: Level, terms: Sequence[str]) -> list[Numbers]:
    """For each term, the running numbers (ascending) of the live units that hold it."""
    bases = graph.bases if level == "passage" else graph.sentence_bases
    views = graph.snapshot.views(level)
    return [
        np.concatenate([lexical.matching(v, t)[0].astype(np.int64) + bases[v.number] for v in views])
        if views
        else np.empty(0, np.int64)
        for t in terms
    ]


def _links(graph: PassageGraph, text: str) -> tuple[Link, ...]:
    """The names of the graph in the question, the longest first at each place, none overlapping."""
    spelt = words(text)
    found: list[Link] = []
    at = 0
    while at < len(spelt):
        link = _link_at(graph, spelt, at)
        if link is not None:
            found.append(link)
        at += link.length if link is not None else 1
    return tuple(found)


def _link_at(graph: PassageGraph, spelt: Sequence[str], at: int) -> Link | None:
    for length in range(min(graph.longest_name, len(spelt) - at), 0, -1):
        name = graph.names.get(tuple(spelt[at : at + length]))
        if name is not None and (length > 1 or len(graph.mentioned_in.at(name)) <= COMMON_WORD):
            return Link(name, at, length)
    return None


@dataclass(frozen=True, slots=True)
class _LedTo:
    """Passages a name of the question leads to, with the share of the question's weight that name has."""

    titled: Mapping[int, float]
    opening: Mapping[int, float]


def _led_to(graph: PassageGraph, text: str, links: Iterable[Link], idf: Mapping[str, float]) -> _LedTo:
    spelt, total = words(text), sum(idf.values()) or 1.0
    titled: dict[int, float] = {}
    opening: dict[int, float] = {}
    for link in links:
        share = sum(idf.get(w, 0.0) for w in set(spelt[link.start : link.start + link.length])) / total
        for passage in graph.titled.at(link.name).tolist():
            titled[passage] = max(share, titled.get(passage, 0.0))
        mentions = graph.mentioned_in.at(link.name)
        for passage in graph.mention_passages[mentions[graph.leads(mentions)]].tolist():
            opening[passage] = max(share, opening.get(passage, 0.0))
    return _LedTo(titled, opening if len(opening) <= MAX_OPENING else {})


def _by_keys(graph: PassageGraph, text: str, allowed: Mapping[int, Allowed] | None) -> dict[int, float]:
    """Passages by the identifiers channel, with their scores."""
    if not has_stream(graph.snapshot):
        return {}
    found = identifiers.search(
        graph.snapshot, "passage", text, DEPTH, allowed, settings=identifiers.IN_FUSION
    ).ranking
    numbers = [graph.number(address) for address in found.addresses()]
    return dict(zip(numbers, found.scores.tolist(), strict=True))


def _with_features(graph: PassageGraph, asked: Asked, led: _LedTo, by_keys: Mapping[int, float]) -> Asked:
    numbers = asked.candidates.tolist()
    titled = np.array([led.titled.get(p, 0.0) for p in numbers])
    opening = np.array([led.opening.get(p, 0.0) for p in numbers])
    columns = [
        asked.dense.inside((graph.vectors(asked.candidates) @ asked.vector).astype(np.float64)),
        asked.lexical.inside(asked.bm25[asked.candidates]),
        titled,
        np.array([float(p in led.titled) for p in numbers]),
        opening,
        np.array([float(p in led.opening) for p in numbers]),
        asked.coverage("passage", asked.candidates),
        _standardised([by_keys.get(p) for p in numbers]),
    ]
    features = np.stack(columns, axis=1)
    return replace(asked, features=features)


def _standardised(scores: Sequence[float | None]) -> Floats:
    """Mean 0 and spread 1; what was not found counts as the lowest. All 0 where nothing was found."""
    known = [s for s in scores if s is not None]
    values = np.array([min(known) if s is None else s for s in scores]) if known else np.zeros(len(scores))
    return np.asarray((values - values.mean()) / (float(values.std()) or 1.0))
