"""Evidence for an expert that reads: whole passages, over several hops."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType

from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.hops.search import HopSettings, search_hops
from agentmtl.retrieval.rerank import Reranker
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import SETTING, Evidence, Stage

PASSAGES = 8  # that a reader is given
# What an Allocation's stage "search" may be given; `plain` looks once, without names and identifiers.
SEARCHES: Mapping[str, HopSettings] = MappingProxyType({
    "plain": HopSettings(hops=1, graph=False, identifiers=False),
    "one-hop": HopSettings(hops=1),
    "two-hop": HopSettings(hops=2),
    "three-hop": HopSettings(hops=3),
})  # fmt: skip
# What an Allocation may give: the width of the beam, passages that are reranked, passages that are read.
EVIDENCE = (
    Stage("search", tuple(SEARCHES), (3, 12, 24), SETTING),
    Stage("rerank", ("reranker",), (0, 10, 20), SETTING),
    Stage("read", ("reader",), (1, 2, 4, 8), SETTING),
)


def gather_passages(
    retriever: Retriever,
    question: str,
    settings: HopSettings | None = None,
    *,
    where: str | None = None,
    k: int = PASSAGES,
    model: HopModel | None = None,
    reranker: Reranker | None = None,
    depth: int = 0,
) -> Evidence:
    """The k best passages over the hop search, for an expert that reads them; the names that led from one to
    the next are their `keys`. The first `depth` are read again by the `reranker`.

    Raises what `search_hops` and the reranker raise.
    """
    most = max(k, depth)
    hits = search_hops(retriever, question, k=most, where=where, settings=settings, model=model).hits
    if reranker is not None and depth:
        hits = reranker.rerank(question, hits, depth=depth)
    return evidence_of(question, hits, k)


def evidence_of(question: str, hits: Hits, k: int = PASSAGES) -> Evidence:
    """The first k of a hop search's hits as evidence."""
    passages = tuple(islice(hits, k))
    names = dict.fromkeys(hit.keys[0] for hit in passages if hit.hop > 1 and hit.keys)
    return Evidence(question, passages, bridges=tuple(names))
