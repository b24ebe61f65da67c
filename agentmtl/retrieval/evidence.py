"""Gathering evidence: sentences within the best passages, over one hop and, where it leads on, a second.

Hop 1 retrieves passages for the question and scores their sentences. Hop 2 follows names: an entity that a
good sentence mentions and the question does not ("bridge") is looked up, and the sentences of the passages
that mention it are scored against the question with the name added. It is the beam of two over an
entity–sentence graph of LinearRAG (arXiv 2510.10114) cut down to two steps, with MDR's way of making the
next query (arXiv 2009.12756): the question followed by what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentmtl.index.snapshot import Address, Snapshot
from agentmtl.index.tokens import words
from agentmtl.retrieval import lexical
from agentmtl.retrieval.dense import score_positions
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Evidence, Hit, Unit
from agentmtl.trunk.encoder import Vectors

MIN_WORDS = 4  # of a sentence that may be evidence

# Words that ask and that an answer does not repeat (English; elsewhere idf alone tells words apart).
ASKING = frozenset(
    ["who", "whom", "whose", "what", "which", "where", "when", "why", "how", "did", "do", "doe"]
)  # "doe": does, as the index spells it


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """Defaults were chosen on hotpotqa (its train part); `docs/decisions.md` has the numbers."""

    passages: int = 8  # of hop 1
    sentences: int = 12  # kept a hop
    seeds: int = 4  # sentences of hop 1 whose names are followed
    bridges: int = 6  # names followed, at most
    passages_a_bridge: int = 4
    common: int = 200  # a name in more passages than that leads nowhere
    dense: float = 1.0  # weight of the cosine of question and sentence
    coverage: float = 1.5  # of the idf-weighted share of the question's words in the sentence
    passage: float = 0.5  # of the passage's own fused score, scaled to 0…1
    title: float = 0.8  # of a question word that is in the title only, against one in the sentence
    titled: float = 0.3  # added where the bridge is the title of the document it leads to


def gather(
    retriever: Retriever,
    question: str,
    *,
    hops: int = 2,
    where: str | None = None,
    settings: EvidenceSettings | None = None,
) -> Evidence:
    """Evidence for a question from one generation of an index.

    `sentences` are best first over both hops; a hop-2 hit's `keys` begin with the name that led to it.
    Needs the passage and sentence levels. Raises what `Retriever.retrieve` raises.
    """
    settings = settings or EvidenceSettings()
    vector = retriever.encode_queries([question])[0]
    passages = retriever.retrieve(question, k=settings.passages, where=where, vector=vector)
    if not len(passages):
        return Evidence(question)
    scorer = _SentenceScorer(retriever.snapshot, question, settings)
    first = scorer.hop(vector, _scaled(passages), hop=1)[: settings.sentences]
    if hops < 2:
        return Evidence(question, tuple(passages), tuple(first), tuple(first), scorer.idf)
    bridges = _bridges(retriever, question, first, where, settings)
    second, names = _second_hop(retriever, scorer, question, bridges, settings)
    best: dict[str, Hit] = {}
    for hit in (*first, *second):  # a sentence found by both hops counts by the better of its scores
        if hit.id not in best or best[hit.id].score < hit.score:
            best[hit.id] = hit
    ranked = sorted(best.values(), key=lambda h: (-h.score, h.id))
    return Evidence(question, tuple(passages), tuple(ranked), tuple(first), scorer.idf, tuple(names))


def _scaled(hits: Hits) -> dict[Address, float]:
    """Passage → its score between 0 (the last) and 1 (the best)."""
    scores = np.asarray(hits.scores, np.float64)
    low, high = float(scores.min()), float(scores.max())
    spread = (high - low) or 1.0
    return {a: (s - low) / spread for a, s in zip(hits.addresses, scores.tolist(), strict=True)}


class _SentenceScorer:
    """Scores sentences against a question by cosine, covered words and the passage they stand in."""

    def __init__(self, snapshot: Snapshot, question: str, settings: EvidenceSettings) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self.idf = question_idf(snapshot, question)
        self._terms = {t: w for t, w in self.idf.items() if t not in ASKING}

    def hop(
        self, vector: Vectors, passages: Mapping[Address, float], hop: int, known: Iterable[str] = ()
    ) -> list[Hit]:
        """The sentences of these passages, best first. `known` words count as covered already."""
        strength = self._sentences_of(passages)
        addresses = list(strength)
        units = self._snapshot.units("sentence", addresses)
        cosines = self._cosines(vector, addresses)
        known = set(known)
        hits = [
            self._hit(unit, cosines[address], strength[address], hop, known)
            for unit, address in zip(units, addresses, strict=True)
            if not _is_heading(unit)
        ]
        return sorted(hits, key=lambda h: (-h.score, h.id))

    def _sentences_of(self, passages: Mapping[Address, float]) -> dict[Address, float]:
        found: dict[Address, float] = {}
        units = self._snapshot.units("passage", list(passages))
        for (number, position), unit in zip(passages, units, strict=True):
            segment = self._snapshot.segments[number]
            doc = int(segment.levels["passage"].docs[position])
            strength = passages[number, position]
            for p in segment.rows.spans_within("sentence", doc, unit.start, unit.end):
                found[number, p] = max(strength, found.get((number, p), 0.0))
        return found

    def _cosines(self, vector: Vectors, addresses: Sequence[Address]) -> dict[Address, float]:
        found: dict[Address, float] = {}
        for view in self._snapshot.views("sentence"):
            mine = [p for n, p in addresses if n == view.number]
            scores = score_positions(view, vector, np.array(mine, np.int64))
            found.update(zip(((view.number, p) for p in mine), scores.tolist(), strict=True))
        return found

    def _hit(self, unit: Unit, cosine: float, strength: float, hop: int, known: set[str]) -> Hit:
        s = self._settings
        here, title = set(words(unit.text)), set(words(unit.title))
        wanted = {t: w for t, w in self._terms.items() if t not in known}
        total = sum(wanted.values()) or 1.0
        covered = sum(
            w * (1.0 if t in here else s.title) for t, w in wanted.items() if t in here or t in title
        )
        coverage = covered / total
        score = s.dense * cosine + s.coverage * coverage + s.passage * strength
        keys = tuple(sorted(t for t in self._terms if t in here))
        return Hit(unit, score, {"dense": cosine, "coverage": coverage, "passage": strength}, keys, hop)


def _is_heading(unit: Unit) -> bool:
    """A title or a fragment says nothing by itself, however well it matches."""
    return unit.text == unit.title or len(unit.text.split()) < MIN_WORDS


def question_idf(snapshot: Snapshot, question: str) -> dict[str, float]:
    """The question's words with their idf over the live passages."""
    units = max(snapshot.count("passage"), 1)
    terms = dict.fromkeys(words(question))
    return {t: lexical.idf(units, lexical.document_frequency(snapshot, "passage", t)) for t in terms}


@dataclass(frozen=True, slots=True)
class _Bridge:
    name: str
    seed: Hit
    passages: tuple[Address, ...]


def _bridges(
    retriever: Retriever, question: str, seeds: Sequence[Hit], where: str | None, settings: EvidenceSettings
) -> list[_Bridge]:
    """Names in the best sentences that the question does not have, with the passages that mention them."""
    snapshot = retriever.snapshot
    allowed = retriever.allowed(where, "passage")
    asked = " ".join(words(question))
    found: dict[str, _Bridge] = {}
    for seed in seeds[: settings.seeds]:
        for name, entity in _names_in(snapshot, seed.unit).items():
            spelt = " ".join(words(name))
            if name in found or not spelt or spelt in asked:
                continue
            mentions = dict.fromkeys((n, p) for n, p, _, _ in snapshot.mentions(entity))
            if 1 < len(mentions) <= settings.common:
                passages = tuple(a for a in mentions if allowed is None or allowed[a[0]].mask[a[1]])
                found[name] = _Bridge(name, seed, passages)
    return list(found.values())[: settings.bridges]


def _names_in(snapshot: Snapshot, sentence: Unit) -> dict[str, bytes]:
    """The names that occur in a sentence, with their entity ids."""
    ((_, (number, position)),) = snapshot.locate([sentence.id]).values()
    segment = snapshot.segments[number]
    doc = int(segment.levels["sentence"].docs[position])
    names = segment.rows.names_within(doc, sentence.start, sentence.end)
    text = " ".join(sentence.text.split())
    return {name: entity for name, entity in names if name in text}


def _second_hop(
    retriever: Retriever,
    scorer: _SentenceScorer,
    question: str,
    bridges: Sequence[_Bridge],
    settings: EvidenceSettings,
) -> tuple[list[Hit], list[str]]:
    found: dict[str, Hit] = {}
    names: list[str] = []
    if not bridges:
        return [], []
    vectors = retriever.encode_queries([f"{question} {bridge.name}" for bridge in bridges])
    for bridge, vector in zip(bridges, vectors, strict=True):
        passages = _best_passages(retriever, vector, bridge, settings)
        hits = scorer.hop(vector, passages, hop=2, known=words(bridge.seed.text))
        for hit in hits[: settings.sentences]:
            bonus = settings.titled if hit.unit.title.startswith(bridge.name) else 0.0
            better = replace(hit, score=hit.score + bonus, keys=(bridge.name, *hit.keys))
            if hit.id == bridge.seed.id:
                continue  # the sentence that led here leads nowhere new
            if hit.id not in found or found[hit.id].score < better.score:
                found[hit.id] = better
        names.append(bridge.name)
    return sorted(found.values(), key=lambda h: (-h.score, h.id))[: settings.sentences], names


def _best_passages(
    retriever: Retriever, vector: Vectors, bridge: _Bridge, settings: EvidenceSettings
) -> dict[Address, float]:
    """The passages that mention the bridge, best first by cosine with the lengthened question."""
    found: dict[Address, float] = {}
    for view in retriever.snapshot.views("passage"):
        mine = np.array([p for n, p in bridge.passages if n == view.number], np.int64)
        scores = score_positions(view, vector, mine)
        found.update(zip(((view.number, int(p)) for p in mine), scores.tolist(), strict=True))
    best = sorted(found, key=lambda a: (-found[a], a))[: settings.passages_a_bridge]
    return {address: found[address] for address in best}
