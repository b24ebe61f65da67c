"""`Agent`: a question in, a cited answer or an honest refusal out.

agent = Agent(index)
answer = agent.ask("Where was the clockmaker who built the H4 marine timekeeper born?")
print(answer.text, answer.citations)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentmtl.agent.aggregate import aggregator
from agentmtl.agent.journal import Journal
from agentmtl.agent.stages import Stages, Step, run
from agentmtl.errors import UsageError
from agentmtl.experts.default import AUTO, NONE, embedded_expert, embedded_judge
from agentmtl.experts.expert import Expert
from agentmtl.retrieval.hops.beam import Judge
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.hops.search import MAX_HOPS, HopSettings
from agentmtl.retrieval.index import Index
from agentmtl.schema import Answer, Budget, Share
from agentmtl.spending import Call, Ledger

MAX_QUESTION = 10_000  # characters


class Agent:
    """Answers questions from one index. Safe to use from several threads.

    `hops` retrieval steps at most (1 to 4). Answers below `threshold` are not given (-1: the expert's
    calibrated one). `log` keeps questions and answers for `agentmtl log`. `expert`: an expert, or the name of
    an embedded one (`agentmtl.experts.default`). `judge` reads the chains of the hop search: one, "none",
    "auto" (the head that comes with the package) or the folder of a head. `hop_model`: other weights of that
    search than the index's own. `share`: how many samples of a chat model are drawn at most, and how they
    become one answer; `budget`: what one question may cost.
    """

    def __init__(
        self,
        index: Index,
        *,
        hops: int = 2,
        threshold: float = -1.0,
        log: bool = False,
        expert: Expert | str = AUTO,
        judge: Judge | str = NONE,
        hop_model: HopModel | None = None,
        share: Share | None = None,
        budget: Budget | None = None,
        backend: str = "auto",
    ) -> None:
        if not 1 <= hops <= MAX_HOPS:
            raise UsageError(
                f"hops must be 1 to {MAX_HOPS}, not {hops}.", "Leave it out for the default of 2."
            )
        self._index = index
        if isinstance(expert, str):
            expert = embedded_expert(expert, index.settings.encoder, backend)
        self.expert = expert
        follows = hops > 1 and expert.needs == "passages"
        read_by: Judge | None
        if isinstance(judge, str):
            read_by = embedded_judge(judge, index.settings.encoder, backend) if follows else None
        else:
            read_by = judge
        self._search = HopSettings(hops=hops, judge=read_by)
        self._hop_model = hop_model
        self.threshold = threshold if threshold >= 0 else getattr(self.expert, "threshold", 0.5)
        self._share, self._budget = share or Share(), budget or Budget()
        # An unknown aggregator is refused now, rather than after the samples were paid for.
        aggregator(self._share.aggregator, lambda candidate: 0.0)
        self._journal = Journal() if log else None

    def ask(self, question: str, *, where: str | None = None) -> Answer:
        """Answer a question; `where` keeps to documents that a filter admits.

        Raises UsageError for an empty question, what `Index.retrieve` raises, ModelError where a chat model
        fails, and BudgetExceededError where the budget does not allow even one sample.
        """
        question = question.strip()
        if not question or len(question) > MAX_QUESTION:
            raise UsageError(f"A question has 1 to {MAX_QUESTION:,} characters.", 'agentmtl ask "Who …?"')
        calls: list[Call] = []
        stages = self.stages()
        with Ledger(self._budget, on_call=calls.append).active():
            state = run(stages, question, where)
        answer = state["answer"]
        if self._journal is not None:
            self._journal.add(self._index.folder, answer, state["evidence"], calls)
        return answer

    def stages(self, told: Callable[[Step], None] = lambda step: None) -> Stages:
        """The steps of an answer over one generation of the index, for `run` or `graph.compile_graph`."""
        return Stages(
            self._index.retriever,
            self.expert,
            self._search,
            self._share,
            self.threshold,
            self._hop_model,
            told=told,
        )

    def messages(self, question: str, *, where: str | None = None) -> list[tuple[str, str]]:
        """What a chat model would be sent for a question, as (role, text); [] for the embedded experts."""
        shows = getattr(self.expert, "messages", None)
        if shows is None:
            return []
        evidence = self.stages().evidence(question.strip(), where)
        return [(message.type, str(message.text)) for message in shows(question.strip(), evidence)]

    async def aask(self, question: str, *, where: str | None = None) -> Answer:
        """`ask` in a worker thread: the event loop stays free."""
        return await asyncio.to_thread(self.ask, question, where=where)
