"""Evidence for an expert that reads: whole passages, over several hops."""

from __future__ import annotations

from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.hops.search import HopSettings, search_hops
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Evidence

PASSAGES = 8  # that a reader is given


def gather_passages(
    retriever: Retriever,
    question: str,
    settings: HopSettings | None = None,
    *,
    where: str | None = None,
    k: int = PASSAGES,
    model: HopModel | None = None,
) -> Evidence:
    """The k best passages over the hop search, for an expert that reads them; the names that led from one to
    the next are their `keys`. Raises what `search_hops` raises."""
    found = search_hops(retriever, question, k=k, where=where, settings=settings, model=model)
    passages = tuple(found.hits)
    names = dict.fromkeys(hit.keys[0] for hit in passages if hit.hop > 1 and hit.keys)
    return Evidence(question, passages, bridges=tuple(names))
