"""The steps of an answer as a LangGraph: checkpoints, streams of events, samples fanned out.

    graph = compile_graph(stages, checkpointer)
    graph.invoke({"question": …}, {"configurable": {"thread_id": "1"}})["answer"]

A model that draws one sample a request gets a `Send` for each, so that they run at the same time; another
gets one request for the round. A run that was killed goes on from its last checkpoint with `invoke(None, …)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from agentmtl.agent.stages import Stages, State

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

_NOUNS = [
    ("agentmtl.schema", name)
    for name in ("Answer", "Candidate", "Citation", "Evidence", "Hit", "MatchedKey", "Unit", "Usage")
]


def compile_graph(
    stages: Stages, checkpointer: BaseCheckpointSaver[Any] | None = None
) -> CompiledStateGraph[State, None, State, State]:
    """The graph of these steps. With a `checkpointer` every step is kept, under a thread's id."""
    from langchain_core.runnables import RunnableLambda

    graph = StateGraph(State)
    graph.add_node("route", stages.route)
    graph.add_node("retrieve", stages.retrieve)
    graph.add_node("sample", RunnableLambda(stages.sample, afunc=stages.asample))
    graph.add_node("gather", lambda state: {})
    graph.add_node("aggregate", stages.aggregate)
    graph.add_node("verify", stages.verify)
    graph.add_edge(START, "route")
    graph.add_edge("route", "retrieve")
    for name in ("retrieve", "gather"):
        graph.add_conditional_edges(name, lambda state: _spread(stages, state), ["sample", "aggregate"])
    graph.add_edge("sample", "gather")
    graph.add_edge("aggregate", "verify")
    graph.add_edge("verify", END)
    return graph.compile(checkpointer=checkpointer, name="agentmtl")


def _spread(stages: Stages, state: State) -> list[Send] | str:
    """The samples of the next round, or on to the vote."""
    size = stages.round(state)
    if not size:
        return "aggregate"
    if getattr(stages.expert, "many", True):
        return [Send("sample", {**state, "size": size})]
    return [Send("sample", {**state, "size": 1}) for _ in range(size)]


def serializer() -> JsonPlusSerializer:
    """For a checkpointer: reads the nouns of agentmtl, and never unpickles."""
    return JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=_NOUNS)
