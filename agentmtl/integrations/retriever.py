"""`AgentMTLRetriever`: an index as a LangChain retriever, and as a tool.

retriever = AgentMTLRetriever(index=Index.open("indexes/docs"), k=4)
retriever.invoke("When was the bridge opened?")
agent = create_agent(model, tools=[retriever.as_search_tool()])
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field

from agentmtl.integrations.documents import document_of
from agentmtl.integrations.tools import search_tool
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.retriever import Channel
from agentmtl.schema import Level


class AgentMTLRetriever(BaseRetriever):
    """`k` units of `level`; `where` filters by metadata; with `hops` 2 to 4 passages for a question that
    needs several. `k`, `where` and `hops` can be given to `invoke` too."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: Index
    k: int = Field(default=4, ge=1)
    level: Level = "passage"
    where: str | None = None
    channel: Channel = "fused"
    hops: int = Field(default=1, ge=1)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
        where: str | None = None,
        hops: int | None = None,
    ) -> list[LangChainDocument]:
        hits = self.index.retrieve(
            query, k=k or self.k, level=self.level, where=where or self.where, channel=self.channel,
            hops=hops or self.hops,
        )  # fmt: skip
        return [document_of(hit) for hit in hits]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,
        **options: Any,
    ) -> list[LangChainDocument]:
        return await asyncio.to_thread(self._get_relevant_documents, query, **options)

    def as_search_tool(
        self, name: str = "search_documents", description: str = "Search the user's documents."
    ) -> BaseTool:
        """A tool that an agent can call with a query; it gives the documents as quoted text, and as an
        artifact (`integrations.tools.search_tool`)."""
        return search_tool(
            self.index, name=name, description=description, k=self.k, level=self.level, where=self.where,
            channel=self.channel, hops=self.hops,
        )  # fmt: skip
