"""A chat model as a router: one call, one letter.

The model is shown the live experts as letters and the question, never what was retrieved. Where it can be
held to the letters and tells log-probabilities, those of the letters, made to sum to 1, are every expert's
score; else exactly one letter is read. Anything else is a failed decision. Arguments are asked for in a
second call, and only where the chosen expert has a schema.

Source of the idea: UnifiedMLLM (arXiv 2408.02503), whose task and grounding tokens are a constrained decision
here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from agentmtl.errors import UsageError
from agentmtl.experts.calling import Caller, Sample
from agentmtl.experts.prompting import Prompts
from agentmtl.experts.quoting import quoted
from agentmtl.routing.arguments import Schema, read_arguments
from agentmtl.routing.description import Described
from agentmtl.routing.grounding import checked, grounded
from agentmtl.routing.route import Policy, Route, Span, settle
from agentmtl.schema import Evidence

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

MOST = 20  # experts, and alternatives of a token: what servers tell at most
LETTER_TOKENS = 8  # more than a letter needs, so that a letter with an explanation is seen as one
UNTOLD = 0.5  # confidence of a letter without a probability
_QUOTES = 4


@dataclass(frozen=True, slots=True)
class _Asked:
    """`letters`: of the live experts, by name."""

    letters: Mapping[str, str]
    messages: tuple[BaseMessage, ...]
    options: Mapping[str, Any]


class LLMRouter:
    """A `Decider`. `policy` weighs the model's probabilities as it does a router's. Safe in many threads."""

    def __init__(
        self,
        caller: Caller,
        experts: Sequence[Described],
        policy: Policy | None = None,
        *,
        prompts: Prompts | None = None,
        tier: str = "llm",
    ) -> None:
        """`caller`: the model, and how long arguments may be. Raises UsageError without experts, or with more
        than 20."""
        if not 1 <= len(experts) <= MOST:
            raise UsageError(
                f"A model chooses among 1 to {MOST} experts, not {len(experts)}.",
                "Leave the model out, or give it the experts that matter.",
            )
        self._experts = {one.name: one for one in experts}
        self.policy, self._tier, self._prompts = policy or Policy(), tier, prompts or Prompts()
        self._caller = caller
        self._chooser = Caller(caller.model, caller.name, price=caller.price, max_tokens=LETTER_TOKENS)

    def decide(self, question: str, *, last: str | None = None, evidence: Evidence | None = None) -> Route:
        """Abstains where the model says anything but a letter or the budget does not allow the call.

        Raises UsageError where no expert is live, and what `Caller.call` raises.
        """
        asked = self._asked(question)
        route = self._unasked(asked)
        if route is None:
            sample = self._chooser.call(asked.messages, "route", **asked.options)[0]
            route = self._chosen(asked, sample, question, last)
        wanted = self._wanted(route, question)
        if wanted is None:
            return self._whole(route, question, evidence, None)
        if not self._caller.affords(wanted.messages):
            return self._unaffordable(route)
        reply = self._caller.call(wanted.messages, "arguments", **wanted.options)[0]
        return self._whole(route, question, evidence, reply.text)

    async def adecide(
        self, question: str, *, last: str | None = None, evidence: Evidence | None = None
    ) -> Route:
        """`decide` without blocking the event loop."""
        asked = self._asked(question)
        route = self._unasked(asked)
        if route is None:
            sample = (await self._chooser.acall(asked.messages, "route", **asked.options))[0]
            route = self._chosen(asked, sample, question, last)
        wanted = self._wanted(route, question)
        if wanted is None:
            return self._whole(route, question, evidence, None)
        if not self._caller.affords(wanted.messages):
            return self._unaffordable(route)
        reply = (await self._caller.acall(wanted.messages, "arguments", **wanted.options))[0]
        return self._whole(route, question, evidence, reply.text)

    # --- which expert

    def _asked(self, question: str) -> _Asked:
        names = self.policy.allowed(tuple(self._experts))
        letters = dict(zip(names, ascii_uppercase, strict=False))
        shown = [
            {"letter": letter, "name": quoted(name), "card": quoted(self._experts[name].card)}
            for name, letter in letters.items()
        ]
        options: dict[str, Any] = {}
        if self._caller.constrains:
            options = {
                "structured_outputs": {"choice": list(letters.values())}, "temperature": 0.0,
                "logprobs": True, "top_logprobs": MOST,
            }  # fmt: skip
        messages = self._messages("route", {"experts": shown}, {"question": quoted(question)})
        return _Asked(letters, messages, options)

    def _unasked(self, asked: _Asked) -> Route | None:
        """The route where there is nothing to ask, or no means to."""
        if len(asked.letters) == 1:
            (only,) = asked.letters
            return self._route(only, 1.0, {only: 1.0}, "the only expert")
        if not self._chooser.affords(asked.messages):
            return self._failure("the budget does not allow asking the model")
        return None

    def _chosen(self, asked: _Asked, sample: Sample, question: str, last: str | None) -> Route:
        said = sample.text.strip()
        if said not in asked.letters.values():
            return self._failure(f"the model said {quoted(said)[:40]!r}, which is no letter of an expert")
        name = next(name for name, letter in asked.letters.items() if letter == said)
        shares = letter_shares(sample.first, tuple(asked.letters.values()))
        if said not in shares:
            return self._route(name, UNTOLD, {name: UNTOLD}, "the model's choice, without probabilities")
        chances = {name: shares[letter] for name, letter in asked.letters.items()}
        return replace(settle(chances, question, self.policy, last), tier=self._tier)

    def _route(self, name: str, confidence: float, scores: Mapping[str, float], reason: str) -> Route:
        return Route(name, confidence, scores, reason, costs=self.policy.costs, tier=self._tier)

    def _failure(self, reason: str) -> Route:
        return replace(self._route("", 0.0, {}, reason), abstained=True)

    # --- its arguments

    def _wanted(self, route: Route, question: str) -> _Asked | None:
        """What to ask for the arguments; None where there are none to ask for."""
        expert = self._experts.get(route.expert)
        if route.abstained or expert is None or not expert.schema:
            return None
        schema = _with_quotes(expert.schema)
        options: dict[str, Any] = {}
        if self._caller.constrains:
            options = {"structured_outputs": {"json": schema}, "temperature": 0.0}
        system = {"expert": quoted(expert.name), "schema": json.dumps(schema, ensure_ascii=False)}
        return _Asked({}, self._messages("arguments", system, {"question": quoted(question)}), options)

    def _whole(self, route: Route, question: str, evidence: Evidence | None, reply: str | None) -> Route:
        """The route with its arguments and spans."""
        expert = self._experts.get(route.expert)
        if expert is None:
            return route
        about = (expert.card, *expert.examples)
        if reply is None or expert.schema is None:
            return replace(route, spans=grounded(question, about, evidence))
        found, wrong = read_arguments(reply, _with_quotes(expert.schema))
        if wrong:
            reason = f"the arguments for {route.expert} cannot be used: {wrong}"
            return replace(route, abstained=True, reason=reason, explored=False)
        quotes = checked([_place(quote, question) for quote in found.get("quotes", ())], question)
        spans = dict.fromkeys((*quotes.spans, *grounded(question, about, evidence)))
        return replace(route, args=found["args"], spans=tuple(spans), dropped=quotes.dropped)

    def _unaffordable(self, route: Route) -> Route:
        reason = f"the budget does not allow asking for the arguments of {route.expert}"
        return replace(route, abstained=True, reason=reason, explored=False)

    def _messages(
        self, name: str, system: Mapping[str, Any], user: Mapping[str, Any]
    ) -> tuple[BaseMessage, ...]:
        from langchain_core.messages import HumanMessage, SystemMessage

        return (
            SystemMessage(self._prompts.render(f"{name}-system", **system)),
            HumanMessage(self._prompts.render(f"{name}-user", **user)),
        )


def letter_shares(first: Mapping[str, float], letters: Sequence[str]) -> dict[str, float]:
    """The probability of each letter among all letters, from the log-probabilities of a first token and its
    alternatives; {} where none of them is a letter.

    A letter that was not told counts as the most that it can have: no more than the least that was told, nor
    than what all that was told leaves. So a score is never too high for what a server left out.
    """
    told = dict.fromkeys(letters, 0.0)
    for token, logprob in first.items():
        if token.strip() in told:
            told[token.strip()] += exp(min(logprob, 0.0))
    if not any(told.values()):
        return {}
    left = max(0.0, 1.0 - sum(exp(min(logprob, 0.0)) for logprob in first.values()))
    most = min(left, exp(min(0.0, *first.values())) if len(first) > 1 else left)
    shares = {letter: chance or most for letter, chance in told.items()}
    total = sum(shares.values())
    return {letter: share / total for letter, share in shares.items()}


def _with_quotes(schema: Schema) -> dict[str, Any]:
    """The schema of the reply: the arguments, and the parts of the request that they come from."""
    held = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    quotes = {"type": "array", "items": {"type": "string"}, "maxItems": _QUOTES}
    return {
        "type": "object",
        "properties": {"args": {n: v for n, v in schema.items() if n not in held}, "quotes": quotes},
        "required": ["args"],
        "additionalProperties": False,
        **held,
    }


def _place(quote: str, question: str) -> Span:
    """Where a quote stands first; outside the question where it does not."""
    at = question.find(quote) if quote else -1
    return Span("", at, at + len(quote), quote)
