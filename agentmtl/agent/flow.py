"""The steps of an answer, one after the other, in a thread or on an event loop: what `Agent.ask` runs.

LangGraph gives the same (`agentmtl.agent.graph`) and costs a second to import.
"""

from __future__ import annotations

from agentmtl.agent.stages import Stages
from agentmtl.agent.state import State, add
from agentmtl.work import Work


def flow(stages: Stages, first: State) -> Work[State]:
    """All steps in turn from `begun`: the same as the graph gives, without LangGraph."""
    state = State(**first)
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
