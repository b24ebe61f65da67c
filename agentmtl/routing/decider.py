"""Tiers of deciding behind one interface, tried in the order of their price.

    router = DescriptionRouter(experts, encoder)
    cheap = RouterDecider(router, encoder, Policy(threshold=0.5), experts=experts)
    tiers = Tiers([cheap, LLMRouter(caller, experts)])
    route = tiers.decide("Who owns ticket 12?", last="tickets")

A dearer tier is asked only where the one before it abstains. Evidence, where it is given, tells where a
decision's words stand; no tier chooses by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from agentmtl.errors import ModelError, UsageError
from agentmtl.routing.arguments import without_model
from agentmtl.routing.description import Described
from agentmtl.routing.grounding import grounded
from agentmtl.routing.route import Floats, Policy, Route, Router, choose
from agentmtl.schema import Evidence
from agentmtl.trunk.encoder import Encoder


@runtime_checkable
class Decider(Protocol):
    """Must be safe to call from several threads. `last`: who answered before in the conversation."""

    def decide(
        self, question: str, *, last: str | None = None, evidence: Evidence | None = None
    ) -> Route: ...

    async def adecide(
        self, question: str, *, last: str | None = None, evidence: Evidence | None = None
    ) -> Route:
        """`decide` without blocking the event loop."""
        ...


class RouterDecider:
    """A router over the question's vector, with a policy: no model is called but the encoder.

    `experts` say what the cards speak of and which arguments are wanted; without them there are neither spans
    nor arguments. An expert whose arguments only a model can tell is not decided on here.
    """

    def __init__(
        self,
        router: Router,
        encoder: Encoder,
        policy: Policy | None = None,
        *,
        experts: Sequence[Described] = (),
        tier: str = "router",
    ) -> None:
        self._router, self._encoder, self._tier = router, encoder, tier
        self.policy = policy or Policy()
        self._experts = {one.name: one for one in experts}

    def decide(
        self,
        question: str,
        *,
        last: str | None = None,
        evidence: Evidence | None = None,
        vector: Floats | None = None,
    ) -> Route:
        """`vector` (d,): the question's, where it is known, as the search's is.

        Raises UsageError where no expert is live, EncoderError where the question cannot be encoded.
        """
        if vector is None:
            vector = np.asarray(self._encoder.encode([question], "query")[0], np.float64)
        route = replace(choose(self._router, vector, question, self.policy, last), tier=self._tier)
        expert = self._experts.get(route.expert)
        if expert is None:
            return route
        spans = grounded(question, (expert.card, *expert.examples), evidence)
        args = without_model(question, expert.schema)
        if args is None:
            reason = f"{route.expert} wants arguments that only a model can tell"
            return replace(route, spans=spans, abstained=True, reason=reason, explored=False)
        return replace(route, spans=spans, args=args)

    async def adecide(
        self,
        question: str,
        *,
        last: str | None = None,
        evidence: Evidence | None = None,
        vector: Floats | None = None,
    ) -> Route:
        return await asyncio.to_thread(self.decide, question, last=last, evidence=evidence, vector=vector)


class Tiers:
    """Deciders in the order of their price: the first that does not abstain decides.

    Where all abstain the route is the first tier's guess, abstained, with every tier's reason. A tier whose
    model fails counts as one that abstains, unless it is the first.
    """

    def __init__(self, tiers: Sequence[Decider]) -> None:
        """Raises UsageError without tiers."""
        if not tiers:
            raise UsageError("There is no tier to decide.", "Give RouterDecider(…), LLMRouter(…) or both.")
        self._tiers = tuple(tiers)

    def decide(self, question: str, *, last: str | None = None, evidence: Evidence | None = None) -> Route:
        """Raises what the tiers raise, but ModelError of the first alone."""
        found: list[Route] = []
        for tier in self._tiers:
            try:
                found.append(tier.decide(question, last=last, evidence=evidence))
            except ModelError as error:
                found.append(_failed(found, error))
            if not found[-1].abstained:
                break
        return _final(found)

    async def adecide(
        self, question: str, *, last: str | None = None, evidence: Evidence | None = None
    ) -> Route:
        found: list[Route] = []
        for tier in self._tiers:
            try:
                found.append(await tier.adecide(question, last=last, evidence=evidence))
            except ModelError as error:
                found.append(_failed(found, error))
            if not found[-1].abstained:
                break
        return _final(found)


def _failed(before: Sequence[Route], error: ModelError) -> Route:
    """The abstention that a failing model is; raises the error where nobody has said anything yet."""
    if not before:
        raise error
    return Route("", 0.0, {}, error.message, abstained=True)


def _final(found: Sequence[Route]) -> Route:
    if not found[-1].abstained or len(found) == 1:
        return found[-1]
    guess = next((route for route in found if route.expert), found[-1])
    reasons = [f"{route.tier}: {route.reason}" if route.tier else route.reason for route in found]
    return replace(guess, reason="; ".join(reasons))
