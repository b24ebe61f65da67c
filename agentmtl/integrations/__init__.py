"""agentmtl inside other programs: LangChain's and vLLM's.

    from agentmtl.integrations import AgentMTLRetriever, ask_tool

Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentmtl.integrations.chat_vllm import ChatVLLM
    from agentmtl.integrations.embeddings import AgentMTLEmbeddings
    from agentmtl.integrations.middleware import (
        BudgetMiddleware,
        ExpertRoutingMiddleware,
        RetrievalMiddleware,
        TestTimeComputeMiddleware,
    )
    from agentmtl.integrations.retriever import AgentMTLRetriever
    from agentmtl.integrations.runnable_expert import RunnableExpert
    from agentmtl.integrations.tool_expert import ToolExpert
    from agentmtl.integrations.tools import ask_tool, search_tool
    from agentmtl.integrations.vector_store import AgentMTLVectorStore

_HOMES = {
    "AgentMTLEmbeddings": "embeddings",
    "AgentMTLRetriever": "retriever",
    "AgentMTLVectorStore": "vector_store",
    "BudgetMiddleware": "middleware",
    "ChatVLLM": "chat_vllm",
    "ExpertRoutingMiddleware": "middleware",
    "RetrievalMiddleware": "middleware",
    "RunnableExpert": "runnable_expert",
    "TestTimeComputeMiddleware": "middleware",
    "ToolExpert": "tool_expert",
    "ask_tool": "tools",
    "search_tool": "tools",
}

__all__ = [
    "AgentMTLEmbeddings",
    "AgentMTLRetriever",
    "AgentMTLVectorStore",
    "BudgetMiddleware",
    "ChatVLLM",
    "ExpertRoutingMiddleware",
    "RetrievalMiddleware",
    "RunnableExpert",
    "TestTimeComputeMiddleware",
    "ToolExpert",
    "ask_tool",
    "search_tool",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentmtl.integrations' has no attribute {name!r}")
    return getattr(import_module(f"agentmtl.integrations.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
