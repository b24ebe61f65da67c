"""What a router decides, and how cost and habit weigh in.

A router gives every live expert a probability of answering well. Chosen is the one with the highest utility,
p − λ · cost; within a conversation the one that answered last keeps the word unless another is clearly
better, for a server's prefix cache is per adapter (vllm-project/vllm issue 23301).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

Floats = NDArray[np.float64]
STICKY = 0.05  # of utility, that another expert must be better by to take over a conversation


@dataclass(frozen=True, slots=True)
class Route:
    """The expert chosen, the probability that it answers well, and every expert's; `abstained`: none is sure
    enough, and a dearer router or a person should choose."""

    expert: str
    confidence: float
    scores: Mapping[str, float]
    reason: str
    abstained: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl route --json`)."""
        return {
            "schema": SCHEMA_VERSION, "expert": self.expert, "confidence": self.confidence,
            "scores": dict(self.scores), "spans": [], "reason": self.reason, "abstained": self.abstained,
            "costs": dict(self.costs),
        }  # fmt: skip


class Router(Protocol):
    """Gives probabilities; `experts` are the names it knows."""

    @property
    def experts(self) -> tuple[str, ...]: ...

    def probabilities(self, vectors: Floats, texts: Sequence[str]) -> Floats:
        """(n, experts) that each expert answers well, for queries with unit vectors (n, d)."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """`cost_weight`: λ, what a unit of cost is worth in probability. `threshold`: of the probability, below
    which the router abstains. `live`: the experts that are well; None: all."""

    cost_weight: float = 0.0
    threshold: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)
    live: frozenset[str] | None = None


def choose(
    router: Router, vector: Floats, text: str, policy: Policy | None = None, last: str | None = None
) -> Route:
    """The route of a query with the unit vector (d,). `last`: who answered before in the conversation.

    Raises UsageError where no expert is live.
    """
    policy = policy or Policy()
    chances = dict(zip(router.experts, router.probabilities(vector[None], [text])[0].tolist(), strict=True))
    live = [name for name in router.experts if policy.live is None or name in policy.live]
    if not live:
        raise UsageError("No expert is well.", "See why: agentmtl experts list --check")
    worth = {name: chances[name] - policy.cost_weight * policy.costs.get(name, 0.0) for name in live}
    best = max(live, key=lambda name: (worth[name], name))
    reason = "the most likely to answer well" if not policy.cost_weight else "the most likely for its cost"
    if last in worth and worth[last] >= worth[best] - STICKY and last != best:
        best, reason = str(last), "answered before, and none is clearly better"
    abstained = chances[best] < policy.threshold
    if abstained:
        reason = f"nobody is sure enough ({chances[best]:.2f} < {policy.threshold:.2f})"
    return Route(best, chances[best], chances, reason, abstained, policy.costs)
