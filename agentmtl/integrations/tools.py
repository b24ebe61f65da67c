"""An index and an agent as tools of LangChain: `search_tool(index)` and `ask_tool(agent)`.

    agent = create_agent(model, tools=[search_tool(index), ask_tool(Agent(index))])

What was retrieved comes back quoted, in a fence; the documents or the whole answer are the artifact.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.documents import Document as LangChainDocument
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field

from agentmtl.agent.agent import Agent
from agentmtl.errors import AgentmtlError
from agentmtl.experts.prompting import Prompts, fenced
from agentmtl.experts.quoting import quoted, untagged
from agentmtl.integrations.documents import document_of
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.retriever import Channel
from agentmtl.schema import Answer, Level

SEARCH = "Search the user's documents: the passages that say most about a query."
ASK = "Ask the user's documents: a short answer with the sources that say it, or that they do not say it."


class Query(BaseModel):
    """What `search_tool` takes."""

    query: str = Field(description="What to look for, in words.")


class Question(BaseModel):
    """What `ask_tool` takes."""

    question: str = Field(description="A whole question that can be understood alone.")


def search_tool(
    index: Index,
    *,
    name: str = "search_documents",
    description: str = SEARCH,
    k: int = 4,
    level: Level = "passage",
    where: str | None = None,
    channel: Channel = "fused",
    hops: int = 1,
    prompts: Prompts | None = None,
) -> BaseTool:
    """A tool that takes a `query` and gives `k` numbered documents as fenced text, and as an artifact.

    A query that cannot be searched for is answered with the reason.
    """
    templates = prompts or Prompts()

    def search(query: str) -> tuple[str, list[LangChainDocument]]:
        try:
            hits = list(index.retrieve(query, k=k, level=level, where=where, channel=channel, hops=hops))
        except AgentmtlError as error:
            raise ToolException(str(error)) from error
        found = [document_of(hit) for hit in hits]
        return (fenced(templates, "search-result", hits) if hits else "Nothing was found."), found

    async def asearch(query: str) -> tuple[str, list[LangChainDocument]]:
        return await asyncio.to_thread(search, query)

    return StructuredTool.from_function(
        func=search, coroutine=asearch, name=name, description=description, args_schema=Query,
        response_format="content_and_artifact", handle_tool_error=True,
    )  # fmt: skip


def ask_tool(agent: Agent, *, name: str = "ask_documents", description: str = ASK) -> BaseTool:
    """A tool that takes a `question` and gives the agent's answer with its citations, one a line; the
    artifact is the answer as `agentmtl ask --json` prints it.

    A refusal is an answer; what goes wrong (a budget that is spent, say) is told as the tool's result.
    """

    def ask(question: str) -> tuple[str, dict[str, Any]]:
        try:
            answer = agent.ask(question)
        except AgentmtlError as error:
            raise ToolException(str(error)) from error
        return told(answer), answer.to_json()

    async def aask(question: str) -> tuple[str, dict[str, Any]]:
        try:
            answer = await agent.aask(question)
        except AgentmtlError as error:
            raise ToolException(str(error)) from error
        return told(answer), answer.to_json()

    return StructuredTool.from_function(
        func=ask, coroutine=aask, name=name, description=description, args_schema=Question,
        response_format="content_and_artifact", handle_tool_error=True,
    )  # fmt: skip


def told(answer: Answer) -> str:
    """An answer for a model: its text, then each citation quoted on a line."""
    if answer.abstained:
        return "The documents do not say it."
    lines = [
        f"[{one.marker}] {quoted(one.title or one.source)}: {quoted(one.sentence)}"
        for one in answer.citations
    ]
    return "\n".join([untagged(answer.text), *lines])
