"""The steps of an answer, one after the other, in a thread or on an event loop: what `Agent.ask` runs.

LangGraph gives the same (`agentmtl.agent.graph`) and costs a second to import.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentmtl.agent.stages import Stages
from agentmtl.agent.state import State, add, begun
from agentmtl.schema import Turn
from agentmtl.work import Work


def flow(stages: Stages, question: str, where: str | None = None, turns: Sequence[Turn] = ()) -> Work[State]:
    """All steps in turn: the same as the graph gives, without LangGraph."""
    state = begun(question, where, list(turns))
    add(state, (yield from stages.rewrite(state)))
    add(state, (yield from stages.route(state)))
    add(state, stages.plan(state))
    add(state, (yield from stages.retrieve(state)))
    while True:
        while stages.hops_left(state):
            add(state, (yield from stages.hop(state)))
        add(state, (yield from stages.demonstrate(state)))
        while size := stages.round(state):
            add(state, (yield from stages.sample({**state, "size": size})))
        add(state, (yield from stages.aggregate(state)))
        add(state, (yield from stages.verify(state)))
        if stages.dearer(state) is None:
            return state
        add(state, stages.escalate(state))
        if not stages.same_evidence(state):
            add(state, (yield from stages.retrieve(state)))
