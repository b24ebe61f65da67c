"""agentmtl answers questions over your own documents, with citations that exist.

    from agentmtl import Agent, Document, Index

    index = Index.create("indexes/mine")
    index.add([Document("note", "Ada Lovelace wrote the first computer program in 1843.")])
    print(Agent(index).ask("Who wrote the first computer program?").text)

Names are loaded when they are first used, so importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.agent.conversation import Session
    from agentmtl.errors import AgentmtlError
    from agentmtl.experts.demonstrations import DemonstrationVoter
    from agentmtl.experts.expert import Expert
    from agentmtl.index.build import BuildReport
    from agentmtl.index.verify import VerifyReport
    from agentmtl.ingest import Chunking, Limits
    from agentmtl.retrieval.hits import Hits
    from agentmtl.retrieval.index import Index
    from agentmtl.schema import (
        Allocation,
        Answer,
        Budget,
        Candidate,
        Citation,
        Demonstration,
        Document,
        Evidence,
        Hit,
        Share,
        Unit,
        Usage,
    )
    from agentmtl.tasks import Task, load_task
    from agentmtl.trunk import Encoder, EncoderIdentity, load_encoder

_HOMES = {
    "Agent": "agentmtl.agent.agent",
    "AgentmtlError": "agentmtl.errors",
    "Allocation": "agentmtl.schema",
    "Answer": "agentmtl.schema",
    "Budget": "agentmtl.schema",
    "BuildReport": "agentmtl.index.build",
    "Candidate": "agentmtl.schema",
    "Chunking": "agentmtl.ingest",
    "Citation": "agentmtl.schema",
    "Demonstration": "agentmtl.schema",
    "DemonstrationVoter": "agentmtl.experts.demonstrations",
    "Document": "agentmtl.schema",
    "Encoder": "agentmtl.trunk",
    "EncoderIdentity": "agentmtl.trunk",
    "Evidence": "agentmtl.schema",
    "Expert": "agentmtl.experts.expert",
    "Hit": "agentmtl.schema",
    "Hits": "agentmtl.retrieval.hits",
    "Index": "agentmtl.retrieval.index",
    "Limits": "agentmtl.ingest",
    "Session": "agentmtl.agent.conversation",
    "Share": "agentmtl.schema",
    "Task": "agentmtl.tasks",
    "Unit": "agentmtl.schema",
    "Usage": "agentmtl.schema",
    "VerifyReport": "agentmtl.index.verify",
    "load_encoder": "agentmtl.trunk",
    "load_task": "agentmtl.tasks",
}

__all__ = [
    "Agent",
    "AgentmtlError",
    "Allocation",
    "Answer",
    "Budget",
    "BuildReport",
    "Candidate",
    "Chunking",
    "Citation",
    "Demonstration",
    "DemonstrationVoter",
    "Document",
    "Encoder",
    "EncoderIdentity",
    "Evidence",
    "Expert",
    "Hit",
    "Hits",
    "Index",
    "Limits",
    "Session",
    "Share",
    "Task",
    "Unit",
    "Usage",
    "VerifyReport",
    "load_encoder",
    "load_task",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentmtl' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
