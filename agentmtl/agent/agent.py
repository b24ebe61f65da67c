"""`Agent`: a question in, a cited answer or an honest refusal out.

agent = Agent(index)
answer = agent.ask("Where was the clockmaker who built the H4 marine timekeeper born?")
print(answer.text, answer.citations)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from agentmtl.agent.aggregate import aggregator
from agentmtl.agent.compose import COMPOSED
from agentmtl.agent.conversation import Session, turn_of
from agentmtl.agent.flow import flow
from agentmtl.agent.journal import Journal
from agentmtl.agent.looking import Leveled, Plan, check_models, looking, reading
from agentmtl.agent.reward import Reward, shipped_reward
from agentmtl.agent.runs import Runs
from agentmtl.agent.stages import Escalates, Stages
from agentmtl.agent.state import State, Step, begun
from agentmtl.agent.streaming import Event, Listener, astreamed, streamed
from agentmtl.errors import UsageError
from agentmtl.experts.default import AUTO, NONE, embedded_expert, embedded_judge
from agentmtl.experts.expert import Expert
from agentmtl.experts.prompting import Prompts
from agentmtl.retrieval.hops.beam import Judge
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.hops.search import MAX_HOPS, HopSettings
from agentmtl.retrieval.index import Index
from agentmtl.routing.decider import Decider
from agentmtl.schema import Allocation, Answer, Budget, Usage
from agentmtl.spending import Call, Ledger
from agentmtl.work import later, now

MAX_QUESTION = 10_000  # characters


class Agent:
    """Answers questions from one index. Safe to use from several threads and on event loops.

    `hops` retrieval steps at most (1 to 4). Answers below `threshold` are not given (-1: the expert's
    calibrated one). `log` keeps questions and answers for `agentmtl log`. `budget`: what a question may cost.

    `expert`: an expert, or the name of an embedded one (`agentmtl.experts.default`); `experts`: others, among
    whom the `decider` chooses, and to whom a `cascade` passes a question on. `allocation`: which expert and
    how many samples each stage gets (`agentmtl.agent.pipeline.PIPELINE`): `Allocation({"sample":
    Share(samples=8, aggregator="weighted")})`, or several by difficulty (`read_by_difficulty`), of which each
    question gets that of its level. With a chat model, queries of later hops are its own, unless
    the stage "hop" is given to "embedded".

    `judge` reads the chains of the hop search: one, "none", "auto" (the head that comes with the package) or
    the folder of a head. `hop_model`: other weights of that search than the index's own. `demonstrations` of
    `task`, a task of the index, are shown to the expert. `runs`: the file of `ask(run=…)`.
    """

    def __init__(
        self,
        index: Index,
        *,
        hops: int = 2,
        threshold: float = -1.0,
        log: bool = False,
        budget: Budget | None = None,
        expert: Expert | str = AUTO,
        experts: Sequence[Expert] = (),
        decider: Decider | None = None,
        cascade: Escalates | None = None,
        allocation: Allocation | Leveled | None = None,
        judge: Judge | str = NONE,
        hop_model: HopModel | None = None,
        reward: Reward | None = None,
        prompts: Prompts | None = None,
        task: str = "",
        demonstrations: int = 0,
        runs: Path | None = None,
        backend: str = "auto",
    ) -> None:
        if not 1 <= hops <= MAX_HOPS:
            raise UsageError(
                f"hops must be 1 to {MAX_HOPS}, not {hops}.", "Leave it out for the default of 2."
            )
        self._index, self._budget = index, budget or Budget()
        if isinstance(expert, str):
            expert = embedded_expert(expert, index.settings.encoder, backend)
        if allocation is None or isinstance(allocation, Allocation):
            self._leveled, allocations = None, [allocation or Allocation()]
        else:
            self._leveled, allocations = allocation, list(allocation.allocations)
            if allocation.encoder != index.settings.encoder.space:
                raise UsageError(
                    "The allocation guesses difficulty from vectors of another encoder than the index's.",
                    "Tune over an index of this encoder, or leave --average out.",
                )
        asked, search = [expert, *experts], HopSettings(hops=hops)
        self._plans = _plans(
            [_plan(one, asked, search, backend) for one in allocations], judge, index, backend
        )
        self.experts = self._plans[0].experts
        self.expert = self.experts[expert.name]
        self._hop_model, self._prompts = hop_model, prompts or Prompts()
        self._reward = reward or shipped_reward()
        self._decider, self._cascade = decider, cascade
        self._task, self._demonstrations = task, demonstrations
        self._threshold = threshold
        self._journal = Journal() if log else None
        self._runs = Runs(runs)

    @property
    def threshold(self) -> float:
        """The confidence below which the agent's own expert abstains."""
        return self.threshold_of(self.expert)

    def threshold_of(self, expert: Expert) -> float:
        """The confidence below which an answer of `expert` is refused."""
        return self._threshold if self._threshold >= 0 else float(getattr(expert, "threshold", 0.5))

    def ask(
        self, question: str, *, where: str | None = None, session: Session | None = None, run: str = ""
    ) -> Answer:
        """Answer a question; `where` keeps to documents that a filter admits.

        `session`: the conversation that it belongs to (or `Session.ask`). `run`: a name under which every
        step is kept on disk; asked again with it, a run that was killed goes on where it was, and one that
        ended gives its answer.

        Raises UsageError for an empty question, what `Index.retrieve` raises, ModelError where a chat model
        fails, and BudgetExceededError where the budget does not allow even one sample.
        """
        return self._ask(question, where, session, run, None)

    async def aask(
        self, question: str, *, where: str | None = None, session: Session | None = None, run: str = ""
    ) -> Answer:
        """`ask` without blocking the event loop; a cancelled task cancels its calls of models."""
        return await self._aask(question, where, session, run, None)

    def stream(
        self, question: str, *, where: str | None = None, session: Session | None = None
    ) -> Iterator[Event]:
        """`ask` as it comes about: a mapping for every step as it ends and every piece of a single output as
        it is written ({"step": "token", …}), and at last the Answer. Who stops reading ends the run."""
        return streamed(lambda listener: self._ask(question, where, session, "", listener))

    def astream(
        self, question: str, *, where: str | None = None, session: Session | None = None
    ) -> AsyncIterator[Event]:
        """`stream` on an event loop; who stops reading cancels the run."""
        return astreamed(lambda listener: self._aask(question, where, session, "", listener))

    def session(self, name: str = "") -> Session:
        """A conversation. With a `name` it is kept in the log and goes on where it was; the agent must log.

        Raises UsageError for a name where the agent does not log.
        """
        if not name:
            return Session(self)
        if self._journal is None:
            raise UsageError(
                "A conversation with a name is kept in the log, which is off.",
                "Make the agent with log=True.",
            )
        return Session(self, name, [turn_of(answer) for answer in self._journal.answers_of(name)])

    def stages(self, told: Callable[[Step], None] = lambda step: None, question: str = "") -> Stages:
        """The steps of an answer over one generation of the index, for `flow.flow` or
        `graph.compile_graph`; as the allocation for the level of the `question` has them, where there are
        several."""
        level = self._level(question)
        plan = self._plans[level or 0]
        return Stages(
            self._index.retriever, plan.experts, self.expert.name, plan.looking, plan.allocation, level,
            self.threshold_of, self._decider, self._cascade, self._hop_model, self._reward, self._prompts,
            self._task, self._demonstrations, told,
        )  # fmt: skip

    def messages(self, question: str, *, where: str | None = None) -> list[tuple[str, str]]:
        """What a chat model would be sent for a question, as (role, text), before any hop of its own; [] for
        the embedded experts."""
        shows = getattr(self.expert, "messages", None)
        if shows is None:
            return []
        evidence = self.stages(question=question).evidence(question.strip(), where, self.expert)
        return [(message.type, str(message.text)) for message in shows(question.strip(), evidence)]

    def _ask(
        self, question: str, where: str | None, session: Session | None, run: str, listener: Listener | None
    ) -> Answer:
        first, calls = _first(question, where, session), list[Call]()
        stages = self.stages(listener.step if listener else _unheard, question)
        opened = self._opener(calls, listener)
        if run:
            state = self._runs.run(stages, run, first, opened)
        else:
            with opened(None).active():
                state = now(flow(stages, first))
        self._note(state, calls, session)
        return state["answer"]

    async def _aask(
        self, question: str, where: str | None, session: Session | None, run: str, listener: Listener | None
    ) -> Answer:
        first, calls = _first(question, where, session), list[Call]()
        stages = self.stages(listener.step if listener else _unheard, question)
        opened = self._opener(calls, listener)
        if run:
            state = await self._runs.arun(stages, run, first, opened)
        else:
            with opened(None).active():
                state = await later(flow(stages, first))
        if self._journal is not None:
            await asyncio.to_thread(self._note, state, calls, session)
        return state["answer"]

    def _opener(self, calls: list[Call], listener: Listener | None) -> Callable[[Usage | None], Ledger]:
        """Opens the ledger of a question."""
        tell = listener.token if listener else None
        return lambda spent: Ledger(self._budget, on_call=calls.append, on_token=tell, spent=spent)

    def _note(self, state: State, calls: Sequence[Call], session: Session | None) -> None:
        if self._journal is not None:
            name = session.name if session else ""
            self._journal.add(self._index.folder, state["answer"], state["evidence"], calls, name)

    def _level(self, question: str) -> int | None:
        """Of a question's difficulty; None where one allocation serves all."""
        if self._leveled is None:
            return None
        return self._leveled.level(self._index.retriever.encode_queries([question.strip()])[0])


def _unheard(step: Step) -> None:
    """Nobody listens."""


def _plan(allocation: Allocation, experts: Sequence[Expert], search: HopSettings, backend: str) -> Plan:
    """Raises UsageError for what would be refused only after samples were paid for."""
    name = allocation.of("sample").aggregator
    if name not in COMPOSED:
        aggregator(name, lambda candidates: [0.0] * len(candidates))
    asked = {one.name: reading(one, allocation) for one in experts}
    check_models(allocation, asked)
    return Plan(allocation, looking(search, allocation, backend), asked)


def _plans(plans: Sequence[Plan], judge: Judge | str, index: Index, backend: str) -> tuple[Plan, ...]:
    """With the judge of their chains; an embedded one is loaded once, where any of them follows chains for
    experts that read passages."""
    follows = [
        p.looking.search.hops > 1 and any(one.needs == "passages" for one in p.experts.values())
        for p in plans
    ]
    judges: list[Judge | None]
    if isinstance(judge, str):
        loaded = embedded_judge(judge, index.settings.encoder, backend) if any(follows) else None
        judges = [loaded if follow else None for follow in follows]
    else:
        judges = [judge for _ in plans]
    return tuple(
        replace(p, looking=replace(p.looking, search=replace(p.looking.search, judge=one)))
        for p, one in zip(plans, judges, strict=True)
    )


def _first(text: str, where: str | None, session: Session | None) -> State:
    """The state of a question before its first step. Raises UsageError for what is none."""
    question = text.strip()
    if not question or len(question) > MAX_QUESTION:
        raise UsageError(f"A question has 1 to {MAX_QUESTION:,} characters.", 'agentmtl ask "Who …?"')
    return begun(question, where, session.turns if session else (), session.name if session else "")
