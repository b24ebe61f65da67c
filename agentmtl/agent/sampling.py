"""Drawing samples: as many as a share allows, and no more than the vote needs.

An embedded expert answers once: the same question gives the same answer. A chat model is sampled in rounds;
after each the rule of `aggregate.decided` says whether another could change the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentmtl.agent.aggregate import aggregator, decided
from agentmtl.errors import BudgetExceededError
from agentmtl.experts.expert import Expert
from agentmtl.schema import Candidate, Evidence, Share

FIRST = 3  # samples of the first round: fewer cannot decide a vote


@dataclass(frozen=True, slots=True)
class Drawn:
    """`samples`: outputs drawn, those that said nothing usable included; 0 for an expert that is not sampled.
    `stopped`: why no more were."""

    candidates: tuple[Candidate, ...]
    samples: int = 0
    aggregator: str = ""
    stopped: str = ""

    def chosen_from(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """What the aggregator makes of those of them that passed a check."""
        return aggregator(self.aggregator)(candidates, self.samples)

    def told(self) -> dict[str, Any]:
        """For the trace."""
        if not self.samples:
            return {}
        return {"samples": self.samples, "aggregator": self.aggregator, "stopped": self.stopped}


def draw(expert: Expert, question: str, evidence: Evidence, share: Share) -> Drawn:
    """The candidates of an expert.

    Raises what `Expert.propose` raises; a budget that ends after the first round ends the drawing instead.
    UsageError for an aggregator that there is not.
    """
    if not getattr(expert, "sampled", False):
        return Drawn(tuple(expert.propose(question, evidence)))
    aggregator(share.aggregator)
    found, samples, stopped = list[Candidate](), 0, "all drawn"
    if not evidence.passages:
        return Drawn(())
    while samples < share.samples:
        size = min(samples or FIRST, share.samples - samples)
        try:
            found += expert.propose(question, evidence, n=size)
        except BudgetExceededError:
            if not samples:
                raise
            stopped = "budget"
            break
        samples += size
        if samples < share.samples and decided(found, samples, share.samples):
            stopped = "decided"
            break
    return Drawn(tuple(found), samples, share.aggregator, stopped)
