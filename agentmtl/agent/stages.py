"""The steps of an answer, as functions of the state: what each reads and what it adds.

    route → retrieve → sample ⟲ gather → aggregate → verify

`run` calls them one after the other; `agentmtl.agent.graph` makes a LangGraph of the same functions. The
state holds plain nouns only, so that a checkpoint of it can be read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import add
from typing import Annotated, Any, TypedDict

from agentmtl.agent.aggregate import aggregator, decided
from agentmtl.agent.citations import exact_only
from agentmtl.agent.reward import UNFITTED, Reward
from agentmtl.errors import BudgetExceededError
from agentmtl.experts.expert import Expert
from agentmtl.retrieval.evidence import gather
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.hops.search import HopSettings
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Answer, Candidate, Evidence, Share
from agentmtl.spending import current_ledger

FIRST = 3  # samples of the first round: fewer cannot decide a vote

Step = Mapping[str, Any]


class State(TypedDict, total=False):
    """What is known so far. `drawn`: samples, those that said nothing usable included; `size`: of this
    round."""

    question: str
    where: str | None
    route: str
    evidence: Evidence
    size: int
    candidates: Annotated[list[Candidate], add]
    drawn: Annotated[int, add]
    stopped: str
    chosen: list[Candidate]
    exact: int
    answer: Answer
    trace: Annotated[list[Step], add]


@dataclass(frozen=True, slots=True)
class Stages:
    """The steps with what they need: one generation of an index, an expert, and what may be drawn.

    `reward` chooses where the aggregator is best-of-n. `told` hears of every step as it ends.
    """

    retriever: Retriever
    expert: Expert
    search: HopSettings
    share: Share
    threshold: float
    hop_model: HopModel | None = None
    reward: Reward = UNFITTED
    told: Callable[[Step], None] = field(default=lambda step: None)

    def route(self, state: State) -> State:
        """Who answers."""
        return {"route": self.expert.name, "trace": [], "stopped": ""}

    def retrieve(self, state: State) -> State:
        """The evidence. Raises what the search raises."""
        started = time.perf_counter()
        evidence = self.evidence(state["question"], state.get("where"))
        hops = sorted({hit.hop for hit in (*evidence.sentences, *evidence.passages)})
        return self._with(
            {"evidence": evidence},
            {
                "step": "retrieve",
                "seconds": time.perf_counter() - started,
                "passages": [hit.id for hit in evidence.passages],
                "sentences": len(evidence.sentences),
                "hops": hops,
                "bridges": list(evidence.bridges),
            },
        )

    def evidence(self, question: str, where: str | None) -> Evidence:
        """For the expert: scored sentences, or passages over several hops."""
        if self.expert.needs == "sentences":
            return gather(self.retriever, question, hops=self.search.hops, where=where)
        return gather_passages(self.retriever, question, self.search, where=where, model=self.hop_model)

    @property
    def sampled(self) -> bool:
        """Whether the expert may say different things to the same question."""
        return bool(getattr(self.expert, "sampled", False))

    def round(self, state: State) -> int:
        """How many samples the next round draws: few, then as many as there are; 0: no more."""
        if not self.sampled:
            return 0 if state.get("drawn") else 1
        drawn, most = state.get("drawn", 0), self.share.samples
        if drawn and (state.get("stopped") or decided(state.get("candidates", []), drawn, most)):
            return 0
        return min(drawn or FIRST, most - drawn)

    def sample(self, state: State) -> State:
        """Candidates of one round. Raises what `Expert.propose` raises in the first round; a budget that ends
        later ends the drawing."""
        started, size = time.perf_counter(), state["size"]
        try:
            found = self.expert.propose(state["question"], state["evidence"], n=size)
        except BudgetExceededError:
            if not state.get("drawn"):
                raise
            return {"stopped": "budget"}
        return self._sampled(found, size, started)

    async def asample(self, state: State) -> State:
        """`sample` without blocking the event loop."""
        started, size = time.perf_counter(), state["size"]
        try:
            found = await self.expert.apropose(state["question"], state["evidence"], n=size)
        except BudgetExceededError:
            if not state.get("drawn"):
                raise
            return {"stopped": "budget"}
        return self._sampled(found, size, started)

    def _sampled(self, found: Sequence[Candidate], size: int, started: float) -> State:
        step = {
            "step": "sample",
            "samples": size,
            "candidates": len(found),
            "seconds": time.perf_counter() - started,
        }
        return self._with({"candidates": list(found), "drawn": size}, step)

    def aggregate(self, state: State) -> State:
        """One candidate of those whose citations are exact."""
        found = state.get("candidates", [])
        exact = exact_only(self.retriever.snapshot, found)
        drawn = state.get("drawn", 0)
        if self.sampled:
            reward = partial(self.reward, state["question"], drawn=exact)
            best = aggregator(self.share.aggregator, reward)(exact, drawn)
        else:
            best = max(exact, key=lambda c: c.confidence, default=None)
        stopped = state.get("stopped") or ("all drawn" if drawn >= self.share.samples else "decided")
        seconds = sum(step["seconds"] for step in state["trace"] if step["step"] == "sample")
        step = {"step": "propose", "seconds": seconds, "candidates": len(found)}
        if self.sampled:
            step |= {"samples": drawn, "aggregator": self.share.aggregator, "stopped": stopped}
        return self._with({"chosen": [best] if best else [], "exact": len(exact)}, step)

    def verify(self, state: State) -> State:
        """The answer, or a refusal below the threshold."""
        found, exact = len(state.get("candidates", [])), state["exact"]
        step = {"step": "verify", "exact": exact, "dropped": found - exact}
        ledger = current_ledger()
        trace = [*state["trace"], step]
        if ledger.overshoot:
            trace.append({"step": "budget", "overshoot": ledger.overshoot})
        answer = Answer(state["question"], "", (), 0.0, True, state["route"], ledger.spent, tuple(trace))
        if state["chosen"]:
            best = state["chosen"][0]
            abstained = best.confidence < self.threshold
            answer = replace(
                answer, text="" if abstained else best.text, citations=best.citations,
                confidence=best.confidence, abstained=abstained, route=best.expert,
            )  # fmt: skip
        return self._with({"answer": answer}, step)

    def _with(self, update: State, step: Step) -> State:
        self.told(step)
        return {**update, "trace": [step]}


def run(stages: Stages, question: str, where: str | None = None) -> State:
    """All steps in turn, in this thread: the same as the graph gives, without LangGraph."""
    state: State = {"question": question, "where": where, "trace": [], "candidates": [], "drawn": 0}
    _add(state, stages.route(state))
    _add(state, stages.retrieve(state))
    while size := stages.round(state):
        _add(state, stages.sample({**state, "size": size}))
    _add(state, stages.aggregate(state))
    _add(state, stages.verify(state))
    return state


def _add(state: State, update: State) -> None:
    """As the graph does: lists and counts add up, other values take the old ones' place."""
    for name, value in update.items():
        if name in ("candidates", "drawn", "trace"):
            state[name] += value  # type: ignore[literal-required]
        else:
            state[name] = value  # type: ignore[literal-required]
