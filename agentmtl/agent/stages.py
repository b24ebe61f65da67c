"""The steps of an answer, as functions of the state: what each reads and what it adds.

    rewrite → route → plan → retrieve ⟲ hop → demonstrate → sample ⟲ gather → aggregate → verify ⟲ escalate

`agentmtl.agent.flow` runs them one after the other; `agentmtl.agent.graph` makes a LangGraph of the same
functions. A step that waits for a model is written once for threads and event loops (`agentmtl.work`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, cast

from agentmtl.agent.aggregate import aggregator, decided, votes_of
from agentmtl.agent.citations import exact_only
from agentmtl.agent.compose import COMPOSED, Composer, fused, refined
from agentmtl.agent.evidence import evidence_for, in_turn
from agentmtl.agent.looking import EMBEDDED, Looking
from agentmtl.agent.prompted import hop_messages, judged, next_query, rewritten, standalone
from agentmtl.agent.reward import Reward, shipped_reward
from agentmtl.agent.state import State, Step
from agentmtl.errors import BudgetExceededError, UsageError
from agentmtl.experts.calling import Caller, estimate_tokens
from agentmtl.experts.expert import Expert
from agentmtl.experts.prompting import Prompts
from agentmtl.retrieval.demonstrations import Selection, select
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.retriever import Retriever
from agentmtl.routing.decider import Decider
from agentmtl.routing.route import Route
from agentmtl.schema import Allocation, Answer, Candidate, Evidence, Hit
from agentmtl.spending import HINT, current_ledger
from agentmtl.work import Wait, Work, in_thread

FIRST = 3  # samples of the first round: fewer cannot decide a vote
ROUNDS = 2  # of refining, unless the stage "aggregate" has samples


class Escalates(Protocol):
    """Says which expert a question goes on to after an answer; None: to none."""

    def next(self, expert: str, answer: Answer) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Stages:
    """The steps with what they need: one generation of an index, experts by name, what may be drawn (of the
    question's `level` of difficulty, where that counts).

    `expert`: who answers where no `decider` chooses. `threshold` of an expert's confidence below which the
    answer is refused. `task` with `demonstrations` of it are shown to the expert. `told` hears of every step
    as it ends.
    """

    retriever: Retriever
    experts: Mapping[str, Expert]
    expert: str
    looking: Looking
    allocation: Allocation
    level: int | None
    threshold: Callable[[Expert], float]
    decider: Decider | None = None
    cascade: Escalates | None = None
    hop_model: HopModel | None = None
    reward: Reward = field(default_factory=shipped_reward)
    prompts: Prompts = field(default_factory=Prompts)
    task: str = ""
    demonstrations: int = 0
    told: Callable[[Step], None] = field(default=lambda step: None)

    # --- before the search ------------------------------------------------------------------------------

    def rewrite(self, state: State) -> Work[State]:
        """In a conversation, the question as it stands alone: by a model, or by rules."""
        asked, turns = state["question"], state.get("turns", [])
        if not turns:
            return {"asked": asked, "question": asked}
        caller = self._caller("rewrite", self.experts[self.expert])
        if caller is not None:
            alone = yield from rewritten(caller, self.prompts, asked, turns)
        else:
            alone = standalone(asked, turns)
        step = {"step": "rewrite", "question": alone, "model": caller.name if caller else ""}
        return self._with({"asked": asked, "question": alone}, step)

    def route(self, state: State) -> Work[State]:
        """Who answers: whom the allocation names, else whom the router chooses, else the only one."""
        named = self.allocation.of("sample").model
        if named or self.decider is None:
            chosen = named or self.expert
            reason = "named by the allocation" if named else "the only one asked"
            step = {"step": "route", "expert": chosen, "reason": reason, **_of_talk(state)}
            return self._with({"route": chosen}, step)
        decide, turns = self.decider, state.get("turns", [])
        last = turns[-1].expert if turns else None
        question = state["question"]
        route: Route = yield Wait(
            partial(decide.decide, question, last=last), partial(decide.adecide, question, last=last)
        )
        chosen = self.expert if route.abstained else route.expert
        if chosen not in self.experts:
            raise UsageError(
                f"The router chose {chosen}, whom this agent does not have.", "Give it the same experts."
            )
        step = {
            "step": "route", "expert": chosen, "confidence": route.confidence, "reason": route.reason,
            "scores": dict(route.scores), "tier": route.tier, "abstained": route.abstained,
            "explored": route.explored, "args": dict(route.args),
            "spans": [span.to_json() for span in route.spans], **_of_talk(state),
        }  # fmt: skip
        return self._with({"route": chosen, "args": {} if route.abstained else dict(route.args)}, step)

    def plan(self, state: State) -> State:
        """What will be done; nothing is spent yet."""
        expert, share = self.experts[state["route"]], self.allocation.of("sample")
        hop = self._caller("hop", expert)
        step = {
            "step": "plan", "expert": expert.name, "needs": expert.needs, "hops": self.looking.search.hops,
            "updater": hop.name if hop and self._queries(expert) else EMBEDDED,
            "samples": share.samples if self.sampled(expert) else 1, "aggregator": share.aggregator,
            "budget": current_ledger().budget.to_json(),
            **({} if self.level is None else {"level": self.level}),
        }  # fmt: skip
        return self._with({}, step)

    # --- evidence ---------------------------------------------------------------------------------------

    def retrieve(self, state: State) -> Work[State]:
        """The evidence. Raises what the search raises."""
        started, expert = time.perf_counter(), self.experts[state["route"]]
        search = partial(self.evidence, state["question"], state.get("where"), expert)
        evidence: Evidence = yield in_thread(search)
        hops = sorted({hit.hop for hit in (*evidence.sentences, *evidence.passages)})
        return self._with(
            {"evidence": evidence, "searched": []},
            {
                "step": "retrieve",
                "seconds": time.perf_counter() - started,
                "passages": [hit.id for hit in evidence.passages],
                "sentences": len(evidence.sentences),
                "hops": hops,
                "bridges": list(evidence.bridges),
            },
        )

    def evidence(self, question: str, where: str | None, expert: Expert) -> Evidence:
        """What the expert needs. Raises what the search raises."""
        return evidence_for(expert, self.retriever, question, self.looking, where, self.hop_model)

    def hops_left(self, state: State) -> bool:
        """Whether a model is asked for a query more: it may be within the budget, what it leaves suffices
        for an answer, and it did not say "enough"."""
        expert = self.experts[state["route"]]
        caller, searched = self._caller("hop", expert), state.get("searched", [])
        if caller is None or len(searched) >= self._queries(expert) or "" in searched:
            return False
        evidence = state["evidence"]
        if not evidence.passages:
            return False
        prompt = estimate_tokens(hop_messages(self.prompts, state["question"], evidence, searched))
        most = prompt + caller.max_tokens
        return current_ledger().affords(
            calls=2, tokens=2 * most, usd=2 * caller.price.usd(prompt, caller.max_tokens)
        )

    def hop(self, state: State) -> Work[State]:
        """One query of a model, and what it finds beside what is there."""
        started, expert = time.perf_counter(), self.experts[state["route"]]
        caller, searched = self._caller("hop", expert), state.get("searched", [])
        assert caller is not None  # `hops_left` said so
        old = state["evidence"]
        query = yield from next_query(caller, self.prompts, state["question"], old, searched)
        update: State = {"searched": [*searched, query]}
        new: tuple[Hit, ...] = ()
        if query:
            search = replace(self.looking.search, hops=1)
            found: Evidence = yield in_thread(
                partial(gather_passages, self.retriever, query, search, where=state.get("where"))
            )
            hop = max((hit.hop for hit in old.passages), default=1) + 1
            known = {hit.id for hit in old.passages}
            new = tuple(replace(hit, hop=hop) for hit in found.passages if hit.id not in known)
            update["evidence"] = replace(old, passages=in_turn(old.passages, new)[: self.looking.passages])
        step = {
            "step": "hop", "query": query, "model": caller.name, "seconds": time.perf_counter() - started,
            "passages": [hit.id for hit in new],
        }  # fmt: skip
        return self._with(update, step)

    def demonstrate(self, state: State) -> Work[State]:
        """Labelled examples of the task, nearest last."""
        if not self.task or not self.demonstrations:
            return {"demonstrations": []}
        chosen = yield in_thread(
            partial(select, self.retriever, state["question"], self.task, Selection(k=self.demonstrations))
        )
        step = {"step": "demonstrate", "task": self.task, "examples": [hit.id for hit in chosen.hits]}
        return self._with({"demonstrations": list(chosen.hits)}, step)

    # --- answers ----------------------------------------------------------------------------------------

    def sampled(self, expert: Expert) -> bool:
        """Whether the expert may say different things to the same question."""
        return bool(getattr(expert, "sampled", False))

    def round(self, state: State) -> int:
        """How many samples the next round draws: few, then as many as there are; 0: no more."""
        drawn, most = state.get("drawn", 0), self.allocation.of("sample").samples
        if state.get("stopped"):
            return 0
        if not self.sampled(self.experts[state["route"]]):
            return 0 if drawn else 1
        if drawn and (decided(state.get("candidates", []), drawn, most)):
            return 0
        return min(drawn or FIRST, most - drawn)

    def sample(self, state: State) -> Work[State]:
        """Candidates of one round; a budget that has ended ends the drawing. Raises what else
        `Expert.propose` raises."""
        started, ledger = time.perf_counter(), current_ledger()
        size = state.get("size") or self.round(state)
        expert, before = self._given(state), ledger.outputs("sample")
        given = (state["question"], state["evidence"], state.get("demonstrations", []), size)
        try:
            found = yield Wait(partial(expert.propose, *given), partial(expert.apropose, *given))
        except BudgetExceededError as error:
            return {"stopped": "budget", "refused": error.message}
        # Fewer than asked for where the budget was short. Samples of one run side by side: their sum is no
        # one's own.
        made = ledger.outputs("sample") - before if size > 1 else 1
        drawn = min(size, made or size)
        step = {
            "step": "sample", "samples": drawn, "candidates": len(found),
            "seconds": time.perf_counter() - started,
        }  # fmt: skip
        return self._with({"candidates": list(found), "drawn": drawn}, step)

    def _given(self, state: State) -> Expert:
        """The expert, with the arguments that the route names where it takes any."""
        expert, args = self.experts[state["route"]], state.get("args", {})
        take = getattr(expert, "given", None)
        return cast(Expert, take(args)) if args and take is not None else expert

    def aggregate(self, state: State) -> Work[State]:
        """One candidate of those whose citations are exact. Raises BudgetExceededError where the budget did
        not allow even one sample."""
        if state.get("refused") and not state.get("drawn"):
            raise BudgetExceededError(state["refused"], HINT)
        found, drawn = state.get("candidates", []), state.get("drawn", 0)
        expert = self.experts[state["route"]]
        exact = self._exact(found, expert)
        share = self.allocation.of("sample")
        seconds = sum(step["seconds"] for step in state["trace"] if step["step"] == "sample")
        step: dict[str, Any] = {"step": "propose", "seconds": seconds, "candidates": len(found)}
        if not self.sampled(expert):
            best = max(exact, key=lambda c: c.confidence, default=None)
        else:
            stopped = state.get("stopped") or ("all drawn" if drawn >= share.samples else "decided")
            step |= {"samples": drawn, "aggregator": share.aggregator, "stopped": stopped}
            if share.aggregator in COMPOSED:
                best, told = yield from self._composed(state, exact, drawn)
                step |= told
            else:
                verdicts = yield from self._verdicts(state, exact)
                encode = self.retriever.encode_queries
                reward = partial(self.reward, state["question"], encode=encode, judged=verdicts)
                best = aggregator(
                    share.aggregator, lambda found: reward(found), expert.name in self.reward.weights
                )(exact, drawn)
        return self._with({"chosen": [best] if best else [], "exact": len(exact)}, step)

    def _exact(self, found: Sequence[Candidate], expert: Expert) -> list[Candidate]:
        """Those with exact citations, and of an expert that answers from elsewhere, a tool, those without."""
        bare = [c for c in found if not c.citations] if getattr(expert, "uncited", False) else []
        return [*exact_only(self.retriever.snapshot, found), *bare]

    def _verdicts(self, state: State, exact: Sequence[Candidate]) -> Work[dict[str, float]]:
        """Of the judge, where there is one and it helps to choose: by the normalised answer."""
        caller, found = self._named("judge"), dict[str, float]()
        if caller is None or self.allocation.of("sample").aggregator != "best-of-n":
            return found
        for vote in votes_of(exact):
            right = yield from self._judged(caller, state, vote.candidates[0])
            if right is not None:
                found[vote.answer] = right
        return found

    def _composed(
        self, state: State, exact: Sequence[Candidate], drawn: int
    ) -> Work[tuple[Candidate | None, dict[str, Any]]]:
        """Fused or refined by the expert that the stage "aggregate" names, else by the one that answered."""
        name = self.allocation.of("aggregate").model or state["route"]
        composer = self.experts[name]
        if not isinstance(composer, Composer):
            raise UsageError(
                f"The expert {name} cannot write an answer from drafts.",
                'Name a chat model for the stage "aggregate", or vote: majority.',
            )
        given = (composer, state["question"], state["evidence"], exact, drawn)
        if self.allocation.of("sample").aggregator == "fuse":
            best, told = yield from fused(*given)
        else:
            rounds = (
                self.allocation.of("aggregate").samples if "aggregate" in self.allocation.shares else ROUNDS
            )
            best, told = yield from refined(*given, rounds)
        return next(iter(exact_only(self.retriever.snapshot, [best] if best else [])), None), told

    def verify(self, state: State) -> Work[State]:
        """The answer, or a refusal below the threshold; a judge's verdict can only lower the confidence."""
        found, exact = len(state.get("candidates", [])), state["exact"]
        step: dict[str, Any] = {"step": "verify", "exact": exact, "dropped": found - exact}
        chosen = list(state["chosen"])
        caller = self._named("judge")
        if caller is not None and chosen and self.allocation.of("sample").aggregator != "best-of-n":
            right = yield from self._judged(caller, state, chosen[0])
            step["judged"] = right
            if right is not None:
                chosen[0] = replace(chosen[0], confidence=min(chosen[0].confidence, right))
        ledger = current_ledger()
        trace = [*state["trace"], step]
        if ledger.overshoot:
            trace.append({"step": "budget", "overshoot": ledger.overshoot})
        answer = Answer(state["asked"], "", (), 0.0, True, state["route"], ledger.spent, tuple(trace))
        if chosen:
            best = chosen[0]
            abstained = best.confidence < self.threshold(self.experts[state["route"]])
            answer = replace(
                answer, text="" if abstained else best.text, citations=best.citations,
                confidence=best.confidence, abstained=abstained, route=best.expert,
            )  # fmt: skip
        return self._with({"answer": answer}, step)

    def _judged(self, caller: Caller, state: State, chosen: Candidate) -> Work[float | None]:
        try:
            return (yield from judged(caller, self.prompts, state["question"], chosen, state["evidence"]))
        except BudgetExceededError:
            return None  # an answer that could not be judged is still one

    def dearer(self, state: State) -> str | None:
        """The expert that the question goes on to; None where the answer stands."""
        if self.cascade is None:
            return None
        name = self.cascade.next(state["route"], state["answer"])
        return None if name is None or name in state.get("tried", []) else name

    def escalate(self, state: State) -> State:
        """Begin again with the dearer expert, from the evidence that is there where it needs the same."""
        name, tried = str(self.dearer(state)), [*state.get("tried", []), state["route"]]
        step = {"step": "escalate", "from": state["route"], "expert": name}
        fresh: dict[str, Any] = {
            "route": name,
            "args": {},
            "tried": tried,
            "stopped": "",
            "refused": "",
            "candidates": None,
            "drawn": None,
        }
        return self._with(cast(State, fresh), step)  # None begins a list and a count again

    def same_evidence(self, state: State) -> bool:
        """Whether the expert that took over needs what was gathered for the one before."""
        return self.experts[state["tried"][-1]].needs == self.experts[state["route"]].needs

    # --- what stages are given --------------------------------------------------------------------------

    def _named(self, stage: str) -> Caller | None:
        """The model that the allocation names for a stage."""
        name = self.allocation.of(stage).model
        return getattr(self.experts[name], "caller", None) if name in self.experts else None

    def _caller(self, stage: str, expert: Expert) -> Caller | None:
        """The model of a stage: the one named, else the expert's own where it is a chat model."""
        if self.allocation.of(stage).model:
            return self._named(stage)
        caller = getattr(expert, "caller", None)
        return caller if isinstance(caller, Caller) else None

    def _queries(self, expert: Expert) -> int:
        """How many queries a model may write."""
        if expert.needs != "passages":
            return 0
        shares = self.allocation.shares
        return shares["hop"].samples if "hop" in shares else self.looking.search.hops - 1

    def _with(self, update: State, step: Step) -> State:
        self.told(step)
        return {**update, "trace": [step], "spent": current_ledger().spent}


def _of_talk(state: State) -> dict[str, Any]:
    """The conversation's name for the trace, where there is one: routers are judged by their switches."""
    return {"conversation": state["conversation"]} if state.get("conversation") else {}
