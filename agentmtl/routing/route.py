"""What a router decides, and how cost, habit and curiosity weigh in.

A router gives every live expert a probability of answering well. Chosen is the one with the highest utility,
p − λ · cost; within a conversation the one that answered last keeps the word unless another is clearly
better, for a server's prefix cache is per adapter (vllm-project/vllm issue 23301). Where it is asked for, a
small share goes to other experts, so that what is learned from the log is not only about the favourite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

Floats = NDArray[np.float64]
STICKY = 0.05  # of utility, that another expert must be better by to take over a conversation
_BELIEF = 10.0  # observations that a probability counts as where experts are explored


@dataclass(frozen=True, slots=True)
class Span:
    """An exact place: the question (`unit` "") reads `text` at [start, end), or the document of a unit of the
    evidence does, in its own offsets, as a citation's."""

    unit: str
    start: int
    end: int
    text: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Route:
    """The whole decision: the expert chosen, the probability that it answers well, and every expert's.

    `spans` are the places that it rests on, checked; `args` what the expert's own schema asks for.
    `abstained`: none is sure enough, and a dearer router or a person should choose; `expert` is then the best
    guess, "" where there is none. `explored`: chosen to learn about it. `dropped`: what was given and not
    used, in words. `tier`: which router decided.
    """

    expert: str
    confidence: float
    scores: Mapping[str, float]
    reason: str
    abstained: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    tier: str = ""
    explored: bool = False
    dropped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl route --json`)."""
        return {
            "schema": SCHEMA_VERSION, "expert": self.expert, "confidence": self.confidence,
            "scores": dict(self.scores), "spans": [span.to_json() for span in self.spans],
            "args": dict(self.args), "reason": self.reason, "abstained": self.abstained,
            "costs": dict(self.costs), "tier": self.tier, "explored": self.explored,
            "dropped": list(self.dropped),
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
    which the router abstains. `live`: the experts that are well; None: all.

    `explore`: the share of free choices that go to another expert than the best, drawn with `seed` and the
    question, so that the same inputs give the same route; 0: none. A conversation that stays with its expert
    is no free choice.
    """

    cost_weight: float = 0.0
    threshold: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)
    live: frozenset[str] | None = None
    explore: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.explore < 1.0:
            raise UsageError(f"explore is {self.explore}.", "Give a share from 0 to less than 1.")

    def allowed(self, names: Sequence[str]) -> list[str]:
        """Those that are live. Raises UsageError where none is."""
        live = [name for name in names if self.live is None or name in self.live]
        if not live:
            raise UsageError("No expert is well.", "See why: agentmtl experts list --check")
        return live


def choose(
    router: Router, vector: Floats, text: str, policy: Policy | None = None, last: str | None = None
) -> Route:
    """The route of a query with the unit vector (d,). `last`: who answered before in the conversation.

    Raises UsageError where no expert is live.
    """
    chances = router.probabilities(vector[None], [text])[0].tolist()
    return settle(dict(zip(router.experts, chances, strict=True)), text, policy or Policy(), last)


def settle(chances: Mapping[str, float], text: str, policy: Policy, last: str | None = None) -> Route:
    """The route that a policy makes of every expert's probability. Raises UsageError where none is live."""
    live = policy.allowed(tuple(chances))
    worth = {name: chances[name] - policy.cost_weight * policy.costs.get(name, 0.0) for name in live}
    best = max(live, key=lambda name: (worth[name], name))
    reason = "the most likely to answer well" if not policy.cost_weight else "the most likely for its cost"
    kept = last in worth and worth[last] >= worth[best] - STICKY
    if kept and last != best:
        best, reason = str(last), "answered before, and none is clearly better"
    if chances[best] < policy.threshold:
        reason = f"nobody is sure enough ({chances[best]:.2f} < {policy.threshold:.2f})"
        return Route(best, chances[best], chances, reason, True, policy.costs)
    other = None if kept else _explored(worth, best, text, policy)
    if other is not None:
        reason = f"explored, to learn about it; {best} is {reason}"
    found = other or best
    return Route(found, chances[found], chances, reason, False, policy.costs, explored=other is not None)


def _explored(worth: Mapping[str, float], best: str, text: str, policy: Policy) -> str | None:
    """Another expert than the best, with the probability `explore`; else None.

    Which one: the highest of draws from what is believed about each, a Beta distribution around its utility
    (Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 25, 1933).
    """
    others = sorted(name for name in worth if name != best)
    if not policy.explore or not others:
        return None
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    rng = np.random.default_rng([policy.seed, int.from_bytes(digest, "little")])
    if rng.random() >= policy.explore:
        return None
    means = np.clip([worth[name] for name in others], 0.02, 0.98)
    draws = rng.beta(_BELIEF * means, _BELIEF * (1.0 - means))
    return others[int(draws.argmax())]
