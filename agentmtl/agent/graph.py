"""The steps of an answer as a LangGraph: checkpoints, streams of events, samples fanned out.

    graph = compile_graph(stages, checkpointer)
    graph.invoke(begun("Who …?"), {"configurable": {"thread_id": "1"}})["answer"]

A model that draws one sample a request gets a `Send` for each, so that they run at the same time; another
gets one request for the round. A run that was killed goes on from its last checkpoint with `invoke(None, …)`.
Steps go out as custom events: `graph.stream(…, stream_mode="custom")`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from agentmtl.agent.stages import Stages
from agentmtl.agent.state import State, Step
from agentmtl.schema import Answer, Evidence, Usage
from agentmtl.work import Work, later, now

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

Graph: TypeAlias = "CompiledStateGraph[State, None, State, State]"

_FROZEN = (Answer, Evidence, Usage)  # never changed once made
_RECENT = 16  # values; a step gives a few
_NOUNS = [
    ("agentmtl.schema", name)
    for name in (
        "Answer", "Candidate", "Citation", "Evidence", "Hit", "MatchedKey", "Turn", "Unit", "Usage",
    )
]  # fmt: skip


def compile_graph(stages: Stages, checkpointer: BaseCheckpointSaver[Any] | None = None) -> Graph:
    """The graph of these steps. With a `checkpointer` every step is kept, under a thread's id."""
    stages = replace(stages, told=_both(stages.told))
    graph = StateGraph(State)
    for step in (
        stages.rewrite, stages.route, stages.retrieve, stages.hop, stages.demonstrate, stages.sample,
        stages.aggregate, stages.verify,
    ):  # fmt: skip
        graph.add_node(step.__name__, _Node(step))
    graph.add_node("plan", stages.plan)
    graph.add_node("gather", lambda state: {})
    graph.add_node("escalate", stages.escalate)
    for before, after in (
        (START, "rewrite"), ("rewrite", "route"), ("route", "plan"), ("plan", "retrieve"),
        ("sample", "gather"), ("aggregate", "verify"),
    ):  # fmt: skip
        graph.add_edge(before, after)
    for name in ("retrieve", "hop"):
        graph.add_conditional_edges(name, lambda state: _onward(stages, state), ["hop", "demonstrate"])
    for name in ("demonstrate", "gather"):
        graph.add_conditional_edges(name, lambda state: _spread(stages, state), ["sample", "aggregate"])
    graph.add_conditional_edges(
        "verify", lambda state: "escalate" if stages.dearer(state) else END, ["escalate", END]
    )
    graph.add_conditional_edges(
        "escalate", lambda state: _again(stages, state), ["retrieve", "hop", "demonstrate"]
    )
    return graph.compile(checkpointer=checkpointer, name="agentmtl")


class _Node(Runnable[State, State]):
    """A step as a node for both kinds of use; `RunnableLambda` would cost more than most steps."""

    def __init__(self, step: Callable[[State], Work[State]]) -> None:
        self.name, self._step = step.__name__, step

    def invoke(self, input: State, config: RunnableConfig | None = None, **kwargs: Any) -> State:
        return now(self._step(input))

    async def ainvoke(self, input: State, config: RunnableConfig | None = None, **kwargs: Any) -> State:
        return await later(self._step(input))


def _onward(stages: Stages, state: State) -> str:
    return "hop" if stages.hops_left(state) else "demonstrate"


def _again(stages: Stages, state: State) -> str:
    """Where an expert that took over begins."""
    return _onward(stages, state) if stages.same_evidence(state) else "retrieve"


def _spread(stages: Stages, state: State) -> list[Send] | str:
    """The samples of the next round, or on to the vote."""
    size = stages.round(state)
    if not size:
        return "aggregate"
    if getattr(stages.experts[state["route"]], "many", True):
        return "sample"  # no copy of the state, evidence and all, in the checkpoint
    return [Send("sample", {**state, "size": 1}) for _ in range(size)]


def _both(told: Callable[[Step], None]) -> Callable[[Step], None]:
    """Told as before, and written to the graph's stream where one is read."""

    def tell(step: Step) -> None:
        told(step)
        get_stream_writer()(step)

    return tell


def serializer() -> JsonPlusSerializer:
    """For a checkpointer: reads the nouns of agentmtl, and never unpickles."""
    return _Serializer()


class _Serializer(JsonPlusSerializer):
    """Packs a noun once: LangGraph keeps every value twice, as a step's result and as the state's."""

    def __init__(self) -> None:
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=_NOUNS)
        self._recent: deque[tuple[object, tuple[str, bytes]]] = deque(maxlen=_RECENT)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if not isinstance(obj, _FROZEN):
            return super().dumps_typed(obj)
        for known, packed in tuple(self._recent):
            if known is obj:
                return packed
        made = super().dumps_typed(obj)
        self._recent.append((obj, made))
        return made
