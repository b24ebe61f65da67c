"""The evidence that an expert needs, of its kind."""

from __future__ import annotations

from collections.abc import Sequence

from agentmtl.agent.looking import Looking
from agentmtl.experts.expert import Expert
from agentmtl.experts.voter import voting_evidence
from agentmtl.retrieval.evidence import gather
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Evidence, Hit


def evidence_for(
    expert: Expert,
    retriever: Retriever,
    question: str,
    looking: Looking,
    where: str | None = None,
    hop_model: HopModel | None = None,
) -> Evidence:
    """Scored sentences, labelled examples of the expert's `task` as passages, best first, or passages over
    several hops. Raises what the search raises."""
    if expert.needs == "sentences":
        return gather(retriever, question, hops=looking.search.hops, where=where)
    if expert.needs == "demonstrations":
        task, selection = str(getattr(expert, "task", "")), getattr(expert, "selection", None)
        return voting_evidence(retriever, question, task, selection, where)
    return gather_passages(
        retriever, question, looking.search, where=where, k=looking.passages, model=hop_model,
        reranker=looking.reranker, depth=looking.depth,
    )  # fmt: skip


def in_turn(first: Sequence[Hit], second: Sequence[Hit]) -> tuple[Hit, ...]:
    """The best of one, the best of the other, the second of one …"""
    longest = max(len(first), len(second))
    pairs = ((hits[n] for hits in (first, second) if n < len(hits)) for n in range(longest))
    return tuple(hit for pair in pairs for hit in pair)
