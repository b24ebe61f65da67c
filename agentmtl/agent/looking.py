"""How evidence is looked for, as an Allocation says: the search, reranking, how much an expert is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from agentmtl.agent.pipeline import PIPELINE
from agentmtl.errors import UsageError
from agentmtl.experts.expert import Expert
from agentmtl.retrieval.hops.evidence import PASSAGES, SEARCHES
from agentmtl.retrieval.hops.search import HopSettings
from agentmtl.retrieval.rerank import Reranker, load_reranker
from agentmtl.schema import Allocation
from agentmtl.trunk.encoder import Vectors

EMBEDDED = "embedded"  # as the model of the stage "hop": queries of the embedded search alone


@dataclass(frozen=True, slots=True)
class Looking:
    """The search over hops; the first `depth` passages are read again by the `reranker`; the best `passages`
    are given to the expert."""

    search: HopSettings
    passages: int
    reranker: Reranker | None
    depth: int


@dataclass(frozen=True, slots=True)
class Plan:
    """An allocation and what it comes to: how evidence is looked for, and who is asked, by name."""

    allocation: Allocation
    looking: Looking
    experts: Mapping[str, Expert]


class Leveled(Protocol):
    """An allocation a level of difficulty (`agentmtl.compute.difficulty.ByDifficulty`)."""

    @property
    def encoder(self) -> str:
        """The weights of the encoder whose vectors it reads."""
        ...

    @property
    def allocations(self) -> Sequence[Allocation]: ...

    def level(self, vector: Vectors, /) -> int:
        """The place of the one for a question, given its vector (d,)."""
        ...


def looking(search: HopSettings, allocation: Allocation, backend: str) -> Looking:
    """`search` as the stages "search", "rerank" and "read" of the allocation change it. Raises UsageError for
    numbers that cannot be, and what loading the reranker raises."""
    shares, passages, depth = allocation.shares, PASSAGES, 0
    for stage, least in (("search", 1), ("rerank", 0), ("read", 1)):
        if stage in shares and shares[stage].samples < least:
            raise UsageError(
                f"The stage {stage!r} cannot be given {shares[stage].samples}.", f"Give {least} or more."
            )
    if "search" in shares:
        named = SEARCHES.get(shares["search"].model, search)
        search = replace(named, width=shares["search"].samples)
    if "rerank" in shares:
        depth = shares["rerank"].samples
    if "read" in shares:
        passages = shares["read"].samples
    return Looking(search, passages, load_reranker(backend=backend) if depth else None, depth)


def check_models(allocation: Allocation, experts: Iterable[str]) -> None:
    """Raises UsageError for a stage that agents do not have, or one given to whom this agent lacks."""
    stages, experts = {stage.name: stage for stage in PIPELINE}, list(experts)
    own = {"search": list(SEARCHES), "rerank": ["reranker"], "hop": [*experts, EMBEDDED]}
    for stage, share in allocation.shares.items():
        if stage not in stages:
            raise UsageError(
                f"The allocation gives to the stage {stage!r}, which an agent does not have.",
                f"Its stages: {', '.join(stages)}.",
            )
        known = own.get(stage, experts)
        if share.model and share.model not in known:
            raise UsageError(
                f"This agent has no {share.model!r} to give the stage {stage!r} to.",
                f"Give it to one of {', '.join(known)}.",
            )


def reading(expert: Expert, allocation: Allocation) -> Expert:
    """The expert, reading as many passages as the stage "read" is given, where it has a limit of its own."""
    limited = getattr(expert, "reading", None)
    return limited(allocation.of("read").samples) if limited and "read" in allocation.shares else expert
