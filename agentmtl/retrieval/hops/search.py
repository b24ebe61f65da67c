"""Evidence over several hops without a language model: `search_hops`.

The question is routed first. What compares named things is split into facets, looked up side by side and
covered each; everything goes down the beam, which follows names and vectors from passage to passage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.index.snapshot import Address
from agentmtl.retrieval.hits import Found, Hits
from agentmtl.retrieval.hops.beam import Beam, Chain, Judge, Limits, expand
from agentmtl.retrieval.hops.facets import Facet, Route, split
from agentmtl.retrieval.hops.graph import PassageGraph, build_graph
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.hops.question import ask
from agentmtl.retrieval.hops.select import cover, ordered, rank_scores, with_facets
from agentmtl.retrieval.hops.updaters import Concat, EntityBridge, QueryUpdater
from agentmtl.retrieval.masks import Allowed
from agentmtl.retrieval.ranking import Ranking
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Usage
from agentmtl.trunk.encoder import Vectors

MAX_HOPS = 4
_SHOWN_CHAINS = 5  # of each hop, in the trace

_graphs: WeakKeyDictionary[Retriever, PassageGraph] = WeakKeyDictionary()
_models: WeakKeyDictionary[Retriever, HopModel] = WeakKeyDictionary()
_lock = Lock()


@dataclass(frozen=True, slots=True)
class HopSettings:
    """Defaults were chosen by cross-validation on hotpotqa, musique, entailmentbank and strategyqa;
    `docs/decisions.md` has the numbers.

    `updaters` make the next queries. `graph` False leaves names out: no bridge, no PageRank, no passages by
    title; `identifiers` False that channel. `judge` reads the best chains of each hop again, of the whole
    question, not of its facets. `seconds` is a limit on the whole search (0: none); what was
    found by then is ranked.
    """

    hops: int = 2
    width: int = 12  # chains followed from each hop
    updaters: tuple[QueryUpdater, ...] = (EntityBridge(), Concat())
    facets: bool = True
    graph: bool = True
    identifiers: bool = True
    seconds: float = 0.0
    least_gain: float = 0.02  # probability of the best new chain below which the beam stops
    judge: Judge | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.hops <= MAX_HOPS:
            raise UsageError(f"hops must be 1 to {MAX_HOPS}, not {self.hops}.", "Leave it out for 2.")

    @property
    def limits(self) -> Limits:
        return Limits(self.hops, self.width, self.seconds, self.least_gain)


@dataclass(frozen=True, slots=True)
class HopResult:
    """`hits`: passages best first, each with the hop and the names that led to it. `stopped`: why the beam
    ended ("hops", "time", "nothing new", "no gain"). `usage` counts what a language model was asked."""

    hits: Hits
    route: Route
    stopped: str
    trace: tuple[Mapping[str, Any], ...]
    usage: Usage = field(default_factory=Usage)


def graph_of(retriever: Retriever) -> PassageGraph:
    """The graph of the retriever's generation, built at first use."""
    with _lock:
        if retriever not in _graphs:
            _graphs[retriever] = build_graph(retriever.snapshot)
        return _graphs[retriever]


def model_of(retriever: Retriever) -> HopModel:
    """The weights that the retriever's index keeps."""
    with _lock:
        if retriever not in _models:
            _models[retriever] = HopModel.of(retriever.snapshot)
        return _models[retriever]


def search_hops(
    retriever: Retriever,
    question: str,
    *,
    k: int = 10,
    where: str | None = None,
    settings: HopSettings | None = None,
    model: HopModel | None = None,
    vector: Vectors | None = None,
) -> HopResult:
    """The k best passages for a question that may need several of them.

    `vector` (d,) is the question's own where the caller has it; `model` None: the index's own weights.
    Raises what `Retriever.retrieve` raises.
    """
    started = time.perf_counter()
    retriever.check("passage", k)
    settings, model = settings or HopSettings(), model or model_of(retriever)
    route, facets = split(question) if settings.facets and settings.hops > 1 else ("bridge", ())
    search = _Search(retriever, settings, model, retriever.allowed(where, "passage"), started)
    texts = [question, *(facet.question for facet in facets)]
    given = [] if vector is None else [np.asarray(vector, np.float32)]
    new = texts[len(given) :]
    encoded = [*given, *retriever.encode_queries(new)] if new else given
    judges = [settings.judge, *(None for _ in facets)]
    looked_up = [search.look_up(t, v, judge) for t, v, judge in zip(texts, encoded, judges, strict=True)]
    return search.result(question, route, facets, looked_up, k)


@dataclass(frozen=True, slots=True)
class _LookedUp:
    """What the beam found for one question: scores of passages."""

    beam: Beam
    scores: Mapping[int, float]


class _Search:
    """One call of `search_hops`."""

    def __init__(
        self,
        retriever: Retriever,
        settings: HopSettings,
        model: HopModel,
        allowed: Mapping[int, Allowed] | None,
        started: float,
    ) -> None:
        self._retriever = retriever
        self._settings = settings
        self._model = model
        self._allowed = allowed
        self._started = started
        self._graph = graph_of(retriever)
        self._updaters = tuple(u for u in settings.updaters if settings.graph or u.kind != "bridge")

    def look_up(self, text: str, vector: Vectors, judge: Judge | None) -> _LookedUp | None:
        settings = self._settings
        asked = ask(self._graph, text, vector, self._allowed, names=settings.graph, keys=settings.identifiers)
        if asked is None:
            return None
        limits = self._settings.limits
        beam = expand(self._graph, asked, self._model, self._updaters, limits, self._started, judge)
        mass = self._model.mass if self._settings.graph else 0.0
        return _LookedUp(beam, rank_scores(self._graph, beam, self._model.chain, mass))

    def result(
        self, question: str, route: Route, facets: Sequence[Facet], found: Sequence[_LookedUp | None], k: int
    ) -> HopResult:
        whole, *_ = found
        if whole is None:
            empty = Ranking(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
            return HopResult(
                Hits(self._retriever.snapshot, "passage", empty, "hops"), route, "nothing found", ()
            )
        paired = [(f, p) for f, p in zip(facets, found[1:], strict=True) if p is not None]
        parts = [part for _, part in paired]
        scores = dict(whole.scores)
        if parts:
            scores = with_facets(whole.scores, [p.scores for p in parts], self._model.facet)
        ranking = ordered(scores, self._ids(scores))
        if parts:
            ranking = cover(ranking, whole.scores, [p.scores for p in parts])
        hits = self._hits(ranking[:k], scores, [whole, *parts], question)
        trace = _trace(self._graph, route, [(None, whole), *paired])
        return HopResult(hits, route, whole.beam.stopped, trace, _usage(self._updaters))

    def _ids(self, passages: Mapping[int, float]) -> dict[int, bytes]:
        numbers = np.fromiter(passages, np.int64, len(passages))
        snapshot = self._retriever.snapshot
        return {
            p: snapshot.id_of("passage", a)
            for p, a in zip(numbers.tolist(), self._graph.addresses(numbers), strict=True)
        }

    def _hits(
        self, passages: Sequence[int], scores: Mapping[int, float], found: Sequence[_LookedUp], question: str
    ) -> Hits:
        addresses = self._graph.addresses(np.array(passages, np.int64))
        ranking = Ranking(
            np.array(_descending([scores[p] for p in passages])),
            np.array([n for n, _ in addresses], np.int64),
            np.array([p for _, p in addresses], np.int64),
        )
        notes: dict[Address, Found] = {}
        for passage, address in zip(passages, addresses, strict=True):
            step = _step_to(passage, found)
            if step is not None:
                notes[address] = Found(step.hop, (_spelt(self._graph, step.via),) if step.via >= 0 else ())
        return Hits(self._retriever.snapshot, "passage", ranking, "hops", query=question, found=notes)


def _descending(scores: Sequence[float]) -> list[float]:
    """A passage put in front for its facet counts no less than what follows it."""
    raised = list(scores)
    for i in range(len(raised) - 2, -1, -1):
        raised[i] = max(raised[i], raised[i + 1])
    return raised


def _step_to(passage: int, found: Sequence[_LookedUp]) -> Chain | None:
    """The step of the best chain that came to a passage; None where only the question found it."""
    best: Chain | None = None
    for part in found:
        chain = part.beam.best.get(passage)
        while chain is not None and chain.passage != passage:
            chain = chain.parent
        if chain is not None and chain.hop > 1 and passage not in _sure(part.beam):
            best = chain if best is None or best.score < chain.score else best
    return best


def _sure(beam: Beam) -> set[int]:
    """Passages that the question alone already holds for evidence."""
    return {p for p, score in beam.first.items() if score > 0.0}


def _spelt(graph: PassageGraph, name: int) -> str:
    return " ".join(graph.spellings[name])


def _trace(
    graph: PassageGraph, route: Route, found: Sequence[tuple[Facet | None, _LookedUp]]
) -> tuple[Mapping[str, Any], ...]:
    """What was asked at each hop, why, and what it found."""
    names = [facet.name for facet, _ in found if facet is not None]
    steps: list[Mapping[str, Any]] = [{"step": "route", "route": route, "facets": names}]
    for facet, part in found:
        for note in part.beam.notes:
            steps.append(
                {
                    "step": "hop",
                    "hop": note.hop,
                    "facet": facet.name if facet else None,
                    "seconds": note.seconds,
                    "proposed": dict(note.steps),
                    "found": [_chain(graph, chain) for chain in note.kept[:_SHOWN_CHAINS]],
                }
            )
    return tuple(steps)


def _chain(graph: PassageGraph, chain: Chain) -> dict[str, Any]:
    numbers = np.array(chain.passages(), np.int64)
    ids = [graph.snapshot.id_of("passage", a).hex() for a in graph.addresses(numbers)]
    via = _spelt(graph, chain.via) if chain.via >= 0 else None
    return {"passage": ids[-1], "from": ids[:-1], "by": chain.updater, "via": via, "score": chain.score}


def _usage(updaters: Sequence[QueryUpdater]) -> Usage:
    total = Usage()
    for updater in updaters:
        total = total + getattr(updater, "usage", Usage())
    return total
