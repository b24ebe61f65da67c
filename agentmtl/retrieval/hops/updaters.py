"""Query updaters: what to look for next, given a question and the passages found so far.

    bridge     the names in a passage lead to the passages about them or that mention them
    concat     the question's vector with the passage's: MDR (arXiv 2009.12756, section 2.2) without training
    residual   what of the question's vector the passage does not explain

All three give the same thing: steps from a parent passage to a child, with features that the hop model
scores. Vectors of what was found are added to the question's instead of encoding a longer question, so a
hop costs no encoder call. `agentmtl.retrieval.hops.language_model` adds one that asks a language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agentmtl.retrieval import dense
from agentmtl.retrieval.hops.graph import Flags, Numbers, PassageGraph
from agentmtl.retrieval.hops.question import Asked, Floats
from agentmtl.trunk.encoder import Vectors

BRIDGE_FEATURES = (
    "parent", "dense", "lexical", "title", "opening", "sentence", "sentence coverage", "missing coverage",
    "hop", "log mentions", "subject sentence", "several words", "missing weight", "title asked",
)  # fmt: skip
TEXT_FEATURES = (
    "parent", "dense", "lexical", "hop", "likeness", "shared", "log shared", "missing coverage",
    "log parent words", "log child words",
)  # fmt: skip

_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Parents:
    """The passages to go on from: running numbers (b,) and their log-odds (b,)."""

    passages: Numbers
    scores: Floats


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps to score: `parents` (m,) index the beam, `children` (m,) are passages, `via` (m,) the name
    that leads there or −1, `features` (m, f)."""

    parents: Numbers
    children: Numbers
    via: Numbers
    features: Floats

    def __len__(self) -> int:
        return len(self.children)


class QueryUpdater(Protocol):
    """`kind` names the weights its steps are scored with: "bridge" or "text"."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    def propose(self, graph: PassageGraph, asked: Asked, parents: Parents) -> Steps: ...


def no_steps(features: int) -> Steps:
    empty = np.empty(0, np.int64)
    return Steps(empty, empty, empty, np.empty((0, features)))


@dataclass(frozen=True, slots=True)
class EntityBridge:
    """Follows names: LinearRAG's spread (arXiv 2510.10114, section 3.2) kept to one step a hop.

    A name in more than `common` passages leads only to documents it is the title of.
    """

    common: int = 60
    name: str = "bridge"
    kind: str = "bridge"

    def propose(self, graph: PassageGraph, asked: Asked, parents: Parents) -> Steps:
        """Steps to passages about the names in the parents, and to those that mention these names."""
        owner, mentions = _followed(graph, asked, parents.passages)
        if not len(mentions):
            return no_steps(len(BRIDGE_FEATURES))
        edges = _edges(graph, asked, parents, owner, mentions, self.common)
        if not len(edges.children):
            return no_steps(len(BRIDGE_FEATURES))
        return _bridge_steps(graph, asked, parents, edges)


@dataclass(frozen=True, slots=True)
class _Edges:
    """`owner` (m,) indexes the beam; `mentions` (m,) are the parent's mentions, `children` the passages."""

    owner: Numbers
    mentions: Numbers
    children: Numbers
    titled: Flags
    opening: Flags


def _followed(graph: PassageGraph, asked: Asked, passages: Numbers) -> tuple[Numbers, Numbers]:
    """The mentions in the parents of names that the question does not have: (index of parent, mention)."""
    owner, places = graph.mentions.places(passages)
    mentions = graph.mentions.values[places]
    if asked.linked:
        fresh = ~np.isin(graph.mention_names[mentions], np.fromiter(asked.linked, np.int64))
        owner, mentions = owner[fresh], mentions[fresh]
    return owner, mentions


def _edges(
    graph: PassageGraph, asked: Asked, parents: Parents, owner: Numbers, mentions: Numbers, common: int
) -> _Edges:
    names = graph.mention_names[mentions]
    by_title, place = graph.titled.places(names)
    titled = graph.titled.values[place]
    rare = np.where(graph.mentioned_in.sizes(names) <= common)[0]
    within, place = graph.mentioned_in.places(names[rare])
    also = graph.mentioned_in.values[place]
    own = np.concatenate([by_title, rare[within]])
    children = np.concatenate([titled, graph.mention_passages[also]])
    is_title = np.arange(len(own)) < len(titled)
    opens = np.concatenate([np.zeros(len(titled), np.bool_), graph.leads(also)])
    back = graph.titles.places(parents.passages)  # a parent's own title leads nowhere but back
    titles_of = set(zip(back[0].tolist(), graph.titles.values[back[1]].tolist(), strict=True))
    kept = asked.admits(children)
    kept &= graph.documents[children] != graph.documents[parents.passages[owner[own]]]
    if titles_of:
        pairs = zip(owner[own].tolist(), names[own].tolist(), strict=True)
        is_own_title = np.fromiter((pair in titles_of for pair in pairs), np.bool_, len(own))
        kept &= ~(is_own_title & is_title)
    return _distinct(_Edges(owner[own], mentions[own], children, is_title, opens), kept)


def _distinct(edges: _Edges, kept: Flags) -> _Edges:
    """One edge for a mention and a child, with what is known of either kind of it."""
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((edges.children[rows], edges.mentions[rows]))]
    if not len(rows):
        return _Edges(rows, rows, rows, kept[:0], kept[:0])
    mentions, children = edges.mentions[rows], edges.children[rows]
    first = np.ones(len(rows), np.bool_)
    first[1:] = (mentions[1:] != mentions[:-1]) | (children[1:] != children[:-1])
    starts = np.flatnonzero(first)
    return _Edges(
        edges.owner[rows[starts]], mentions[starts], children[starts],
        np.logical_or.reduceat(edges.titled[rows], starts),
        np.logical_or.reduceat(edges.opening[rows], starts),
    )  # fmt: skip


def _bridge_steps(graph: PassageGraph, asked: Asked, parents: Parents, edges: _Edges) -> Steps:
    sentences, which = np.unique(graph.sentence_of(edges.mentions), return_inverse=True)
    vectors = np.zeros((len(sentences), len(asked.vector)), np.float32)
    known = sentences >= 0
    vectors[known] = graph.sentence_vectors(sentences[known])
    cosine = (vectors @ asked.vector).astype(np.float64)
    covered = np.zeros(len(sentences))
    covered[known] = asked.coverage("sentence", sentences[known])
    children, child = np.unique(edges.children, return_inverse=True)
    child_vectors = graph.vectors(children)
    missing = _missing(asked, parents.passages[edges.owner], children, child)
    names = graph.mention_names[edges.mentions]
    subject = edges.titled | edges.opening
    columns = [
        parents.scores[edges.owner],
        asked.dense_scores(child_vectors)[child],
        asked.lexical_scores(children)[child],
        edges.titled,
        edges.opening,
        cosine[which],
        covered[which],
        missing.share,
        _hop_cosines(asked.vector, vectors, which, child_vectors, child),
        np.log1p(graph.mentioned_in.sizes(names)),
        subject * cosine[which],
        np.fromiter((len(graph.spellings[n]) > 1 for n in names.tolist()), np.bool_, len(names)),
        missing.weight,
        _title_asked(graph, asked, children)[child],
    ]
    return Steps(edges.owner, edges.children, names, np.stack(columns, axis=1).astype(np.float64))


def _hop_cosines(
    question: Vectors, found: Vectors, which: Numbers, children: Vectors, child: Numbers
) -> Floats:
    """Cosine of (question + what was found) with each child: `found[which]` and `children[child]` pair up."""
    hops = question + found
    norms = np.maximum(np.linalg.norm(hops, axis=1), _TINY)
    return np.asarray(np.einsum("md,md->m", hops[which], children[child]) / norms[which], np.float64)


@dataclass(frozen=True, slots=True)
class _Missing:
    """What the parent lacks of the question's words and the child has: as a share of what the parent lacks,
    and of the whole question."""

    share: Floats
    weight: Floats


def _missing(asked: Asked, parents: Numbers, children: Numbers, child: Numbers) -> _Missing:
    distinct, parent = np.unique(parents, return_inverse=True)
    lacking = ~asked.holds("passage", distinct) * asked.weights[:, None]  # (t, parents)
    gained = lacking.T @ asked.holds("passage", children)  # (parents, children)
    pairs = gained[parent, child]
    lacks = np.maximum(lacking.sum(axis=0), _TINY)[parent]
    return _Missing(pairs / lacks, pairs / asked.total)


def _title_asked(graph: PassageGraph, asked: Asked, passages: Numbers) -> Floats:
    """1 where a passage's title stands in the question."""
    found = np.zeros(len(passages))
    if asked.linked:
        owner, places = graph.titles.places(passages)
        stands = np.isin(graph.titles.values[places], np.fromiter(asked.linked, np.int64))
        found[owner[stands]] = 1.0
    return found


@dataclass(frozen=True, slots=True)
class Concat:
    """Searches with the question's vector plus the parent's; `width` children of each parent."""

    width: int = 30
    name: str = "concat"
    kind: str = "text"

    def propose(self, graph: PassageGraph, asked: Asked, parents: Parents) -> Steps:
        """Steps to the passages nearest to question and parent together."""
        queries = _unit(asked.vector + graph.vectors(parents.passages))
        return _text_steps(graph, asked, parents, queries, self.width)


@dataclass(frozen=True, slots=True)
class Residual:
    """Searches with the part of the question's vector that is orthogonal to the parent's: v − (v·p) p."""

    width: int = 30
    name: str = "residual"
    kind: str = "text"

    def propose(self, graph: PassageGraph, asked: Asked, parents: Parents) -> Steps:
        """Steps to the passages nearest to what the parent leaves unexplained."""
        found = _unit(graph.vectors(parents.passages))
        left = asked.vector - (found @ asked.vector)[:, None] * found
        return _text_steps(graph, asked, parents, _unit(left), self.width)


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY), np.float32)


def _text_steps(graph: PassageGraph, asked: Asked, parents: Parents, queries: Vectors, width: int) -> Steps:
    rankings = dense.search(graph.snapshot, "passage", queries, width)
    owner = np.repeat(np.arange(len(queries)), [len(r) for r in rankings])
    children = np.concatenate([graph.bases[r.segments] + r.positions for r in rankings])
    return text_steps(graph, asked, parents, owner, children)


def text_steps(
    graph: PassageGraph, asked: Asked, parents: Parents, owner: Numbers, children: Numbers
) -> Steps:
    """Steps with the text features, for whatever found the children; `owner` indexes the parents."""
    kept = asked.admits(children) & (children != parents.passages[owner])
    owner, children = owner[kept], children[kept]
    if not len(children):
        return no_steps(len(TEXT_FEATURES))
    distinct, child = np.unique(children, return_inverse=True)
    vectors, found = graph.vectors(distinct), graph.vectors(parents.passages)
    likeness = np.einsum("md,md->m", found[owner], vectors[child])
    shared = _shared_words(graph, asked, parents.passages, owner, children)
    columns = [
        parents.scores[owner],
        asked.dense_scores(vectors)[child],
        asked.lexical_scores(distinct)[child],
        _hop_cosines(asked.vector, found, owner, vectors, child),
        likeness,
        shared.share,
        np.log1p(shared.weight),
        _missing(asked, parents.passages[owner], distinct, child).share,
        np.log1p(graph.word_counts(parents.passages))[owner],
        np.log1p(graph.word_counts(distinct))[child],
    ]
    features = np.stack(columns, axis=1).astype(np.float64)
    return Steps(owner, children, np.full(len(children), -1, np.int64), features)


def _shared_words(
    graph: PassageGraph, asked: Asked, parents: Numbers, owner: Numbers, children: Numbers
) -> _Missing:
    """The words that are new in a parent and stand in the child: share of the new ones' idf, and its sum."""
    asked_words = np.array([graph.word(t) for t in asked.terms], np.int64)
    share, weight = np.zeros(len(children)), np.zeros(len(children))
    for index, passage in enumerate(parents.tolist()):
        mine = np.flatnonzero(owner == index)
        if not len(mine):
            continue
        new = np.setdiff1d(graph.words_of(passage), asked_words, assume_unique=True)
        idf = graph.idf(new)
        lists = [graph.words_of(c) for c in children[mine].tolist()]
        place = np.searchsorted(new, np.concatenate(lists))
        place = np.minimum(place, max(len(new) - 1, 0))
        stands = new[place] == np.concatenate(lists) if len(new) else np.zeros(len(place), np.bool_)
        sizes = np.array([len(found) for found in lists])
        rows = np.repeat(np.arange(len(lists)), sizes)[stands]
        weight[mine] = np.bincount(rows, idf[place[stands]], minlength=len(lists))
        share[mine] = weight[mine] / max(float(idf.sum()), _TINY)
    return _Missing(share, weight)
