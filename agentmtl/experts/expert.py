"""What an expert is: a name, a card and `propose`.

Embedded heads, the demonstration voter, chat models, adapters on a server, LangChain's Runnables and tools
all implement the same method. What else an expert may say of itself, and what holds where it does not:

    sampled      False   the same question may give different answers: draw several
    many         True    one call of `propose` draws several samples at the cost of one request
    threshold    0.5     the confidence below which its answers are not given
    uncited      False   its answers may stand without a citation, as a tool's do: they rest on no document
    task         ""      the task whose demonstrations it votes by (needs = "demonstrations")
    selection    …       and how those are chosen (`retrieval.demonstrations.Selection`)
    given(args)  …       the same with the arguments that a route names
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from agentmtl.schema import Candidate, Evidence, Hit

Needs: TypeAlias = Literal["sentences", "passages", "demonstrations"]


@runtime_checkable
class Expert(Protocol):
    """Must be safe to call from several threads."""

    @property
    def name(self) -> str:
        """Short and unique: it becomes the route of an answer."""
        ...

    @property
    def card(self) -> str:
        """One sentence that says what it is good at (the router reads it)."""
        ...

    @property
    def needs(self) -> Needs:
        """What evidence it works from: scored sentences, the passages of the hop search, or labelled examples
        of its task, which then are the evidence's passages (`experts.voter.voting_evidence`)."""
        ...

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """Up to `n` answers, best first; [] where the evidence holds nothing to say.

        Citations point into `evidence` only, and their markers, 1, 2 …, are those in the text. Raises
        BudgetExceededError before a call that the context's ledger (`agentmtl.spending`) does not allow, and
        ModelError where what answers fails.
        """
        ...

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` without blocking the event loop."""
        ...
