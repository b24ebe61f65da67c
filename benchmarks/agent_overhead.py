"""What the agent costs beside what it calls: its graph ÷ the same graph of empty nodes, and a step.

    python benchmarks/agent_overhead.py [--asks 20] [--rounds 9] [--json]

The expert costs nothing (it gives the same candidate at once) and the evidence, eight passages of an index,
is there already, so that what is left is routing, votes, the check of every citation against the stored text,
the trace, the checkpoints of evidence and candidates, and a row in the log. The empty graph has the same
nodes, edges and state, and its nodes add nothing but what decides the next edge. Checkpointers: none, in
memory, SQLite, each the same on both sides. The plain run, which `Agent.ask` uses, is set against the same
graph.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from timing import Row, parser, pin_threads, ratio, report, take_turns

from agentmtl import Agent, Candidate, Document, Evidence, Hit, Index
from agentmtl.agent.flow import flow
from agentmtl.agent.graph import Graph, compile_graph, serializer
from agentmtl.agent.journal import Journal
from agentmtl.agent.stages import Stages
from agentmtl.agent.state import State, begun
from agentmtl.experts.expert import Needs
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.schema import Citation
from agentmtl.spending import Ledger
from agentmtl.work import now

QUESTION = "Who built the lighthouse of Tarn?"
TARGET = 1.5
NODES = ("rewrite", "route", "plan", "retrieve", "demonstrate", "sample", "gather", "aggregate", "verify")


class Free:
    """An expert that costs nothing: the first words of the best passage."""

    name = "free"
    card = "Says the first words of the best passage."
    needs: Needs = "passages"

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        unit = evidence.passages[0].unit
        text = unit.text[:20]
        cited = Citation(1, unit.id, unit.source_id, unit.start, unit.start + len(text), text, unit.title)
        return [Candidate(f"{text} [1]", (cited,), 0.9, self.name)]

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        return self.propose(question, evidence)


@dataclass(frozen=True, slots=True)
class Gathered(Stages):
    """The agent's steps, with the evidence of one question at hand."""

    def evidence(self, question: str, where: str | None, expert: object) -> Evidence:
        return _EVIDENCE[0]


_EVIDENCE: list[Evidence] = []


def empty_graph(checkpointer: Any) -> Graph:
    """The agent's nodes and edges, with nothing in them."""
    graph = StateGraph(State)
    for name in NODES:
        graph.add_node(
            name, (lambda state: {"drawn": 1}) if name == "sample" else (lambda state: {"route": "free"})
        )
    for before, after in itertools.pairwise((START, *NODES[:4])):
        graph.add_edge(before, after)
    graph.add_conditional_edges("retrieve", lambda state: "demonstrate", ["demonstrate"])
    graph.add_conditional_edges("demonstrate", lambda state: "sample", ["sample", "aggregate"])
    graph.add_edge("sample", "gather")
    graph.add_conditional_edges("gather", lambda state: "aggregate", ["sample", "aggregate"])
    graph.add_edge("aggregate", "verify")
    graph.add_conditional_edges("verify", lambda state: END, [END])
    return graph.compile(checkpointer=checkpointer)


def asking(graph: Graph, asks: int, journal: Journal | None, folder: Path) -> Callable[[], None]:
    """So many questions, each under a thread's name of its own."""
    numbers = itertools.count()

    def run() -> None:
        for _ in range(asks):
            with Ledger().active():
                config: Any = {"configurable": {"thread_id": f"{id(graph)}-{next(numbers)}"}}
                state = graph.invoke(begun(QUESTION), config)
            if journal is not None:
                journal.add(folder, state["answer"], state["evidence"])

    return run


def main() -> None:
    made = parser(__doc__, rounds=9)
    made.add_argument("--asks", type=int, default=20)
    arguments = made.parse_args()
    pin_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = Index.create(folder / "index", encoder="hashing")
        index.add(
            Document(str(n), f"The lighthouse of Tarn {n} was built by Mira Holm. " * 6, f"Tarn {n}")
            for n in range(40)
        )
        _EVIDENCE.append(gather_passages(index.retriever, QUESTION))
        given = Agent(index, expert=Free()).stages()
        stages = Gathered(**{field: getattr(given, field) for field in Stages.__slots__})
        journal = Journal(folder / "log.sqlite")

        def plain() -> None:
            for _ in range(arguments.asks):
                with Ledger().active():
                    state = now(flow(stages, begun(QUESTION)))
                journal.add(index.folder, state["answer"], state["evidence"])

        rows: list[Row] = []
        for label, saver in (
            ("no", None),
            ("in-memory", InMemorySaver(serde=serializer())),
            ("SQLite", _sqlite(folder)),
        ):
            empty = asking(empty_graph(saver), arguments.asks, None, folder)
            full = asking(compile_graph(stages, saver), arguments.asks, journal, folder)
            candidates = {"empty": empty, "agent": full, **({"plain": plain} if saver is None else {})}
            taken = take_turns(candidates, arguments.rounds, arguments.clock)
            rows.append(
                Row(
                    f"agent ÷ empty graph, {label} checkpointer, log on",
                    ratio(taken, "agent", "empty"),
                    at_most=TARGET,
                )
            )
            rows.append(_step(taken["agent"], arguments.asks, f"a step, {label} checkpointer"))
            rows.append(_step(taken["empty"], arguments.asks, f"a step of the empty graph, {label}"))
            if saver is None:
                rows.append(
                    Row(
                        "plain run with the log ÷ empty graph", ratio(taken, "plain", "empty"), at_most=TARGET
                    )
                )
    report("agent overhead", rows, arguments)


def _sqlite(folder: Path) -> SqliteSaver:
    return SqliteSaver(sqlite3.connect(folder / "runs.sqlite", check_same_thread=False), serde=serializer())


def _step(taken: Sequence[float], asks: int, what: str) -> Row:
    from timing import Spread

    return Row(what, Spread.of([1e6 * seconds / asks / len(NODES) for seconds in taken]), "µs")


if __name__ == "__main__":
    main()
