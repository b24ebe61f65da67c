"""What an expert is: a name, a card and `propose`.

The embedded sentence answerer is the first; trained readers, chat models and adapters on a server
implement the same method.
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
        """What evidence it works from: scored sentences, or the passages of the hop search."""
        ...

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """Up to `n` answers, best first; [] where the evidence holds nothing to say.

        Citations point into `evidence` only, and their markers, 1, 2 …, are those in the text.
        """
        ...

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` without blocking the event loop."""
        ...
