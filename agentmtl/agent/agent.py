"""`Agent`: a question in, a cited answer or an honest refusal out.

agent = Agent(index)
answer = agent.ask("Where was the clockmaker who built the H4 marine timekeeper born?")
print(answer.text, answer.citations)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentmtl.agent.citations import exact_only
from agentmtl.agent.journal import Journal
from agentmtl.agent.sampling import Drawn, draw
from agentmtl.errors import UsageError
from agentmtl.experts.default import AUTO, NONE, embedded_expert, embedded_judge
from agentmtl.experts.expert import Expert
from agentmtl.retrieval.evidence import gather
from agentmtl.retrieval.hops.beam import Judge
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.retrieval.hops.model import HopModel
from agentmtl.retrieval.hops.search import MAX_HOPS, HopSettings
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Answer, Budget, Candidate, Evidence, Share, Usage
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
        self._journal = Journal() if log else None

    def ask(self, question: str, *, where: str | None = None) -> Answer:
        """Answer a question; `where` keeps to documents that a filter admits.

        Raises UsageError for an empty question, what `Index.retrieve` raises, ModelError where a chat model
        fails, and BudgetExceededError where the budget does not allow even one sample.
        """
        question = question.strip()
        if not question or len(question) > MAX_QUESTION:
            raise UsageError(f"A question has 1 to {MAX_QUESTION:,} characters.", 'agentmtl ask "Who …?"')
        start = time.perf_counter()
        retriever = self._index.retriever  # one generation for the whole answer
        calls: list[Call] = []
        with Ledger(self._budget, on_call=calls.append).active() as ledger:
            evidence = self._gather(retriever, question, where)
            gathered = time.perf_counter()
            drawn = draw(self.expert, question, evidence, self._share)
            candidates = exact_only(retriever.snapshot, drawn.candidates)
            trace = _trace(evidence, drawn, candidates, gathered - start, time.perf_counter() - gathered)
            usage, over = ledger.spent, ledger.overshoot
        if over:
            trace = (*trace, {"step": "budget", "overshoot": over})
        answer = self._decide(question, candidates, drawn, usage, trace)
        if self._journal is not None:
            self._journal.add(self._index.folder, answer, evidence, calls)
        return answer

    def messages(self, question: str, *, where: str | None = None) -> list[tuple[str, str]]:
        """What a chat model would be sent for a question, as (role, text); [] for the embedded experts."""
        shows = getattr(self.expert, "messages", None)
        if shows is None:
            return []
        evidence = self._gather(self._index.retriever, question.strip(), where)
        return [(message.type, str(message.text)) for message in shows(question.strip(), evidence)]

    async def aask(self, question: str, *, where: str | None = None) -> Answer:
        """`ask` in a worker thread: the event loop stays free."""
        return await asyncio.to_thread(self.ask, question, where=where)

    def _gather(self, retriever: Retriever, question: str, where: str | None) -> Evidence:
        if self.expert.needs == "sentences":
            return gather(retriever, question, hops=self._search.hops, where=where)
        return gather_passages(retriever, question, self._search, where=where, model=self._hop_model)

    def _decide(
        self,
        question: str,
        candidates: Sequence[Candidate],
        drawn: Drawn,
        usage: Usage,
        trace: tuple[Mapping[str, Any], ...],
    ) -> Answer:
        if not candidates:
            return Answer(question, "", (), 0.0, True, self.expert.name, usage, trace)
        best = max(candidates, key=lambda c: c.confidence)
        if drawn.samples:
            best = drawn.chosen_from(candidates) or best
        abstained = best.confidence < self.threshold
        text = "" if abstained else best.text
        return Answer(question, text, best.citations, best.confidence, abstained, best.expert, usage, trace)


def _trace(
    evidence: Evidence,
    drawn: Drawn,
    exact: Sequence[Candidate],
    gathering: float,
    proposing: float,
) -> tuple[Mapping[str, Any], ...]:
    hops = sorted({hit.hop for hit in (*evidence.sentences, *evidence.passages)})
    return (
        {
            "step": "retrieve",
            "seconds": gathering,
            "passages": [hit.id for hit in evidence.passages],
            "sentences": len(evidence.sentences),
            "hops": hops,
            "bridges": list(evidence.bridges),
        },
        {"step": "propose", "seconds": proposing, "candidates": len(drawn.candidates), **drawn.told()},
        {"step": "verify", "exact": len(exact), "dropped": len(drawn.candidates) - len(exact)},
    )
