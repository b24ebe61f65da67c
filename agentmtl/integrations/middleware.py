"""Middleware for LangChain's `create_agent`: evidence, routing, samples and budgets, each alone.

    agent = create_agent(model, tools=[], middleware=[
        RetrievalMiddleware(index, k=4),                       # quoted evidence before the model is called
        ExpertRoutingMiddleware(router, models, encoder),      # the expert that is likeliest to answer well
        TestTimeComputeMiddleware(samples=5),                  # several answers, one by vote
        BudgetMiddleware(Budget(calls=10, tokens=8000)),       # innermost: counts every call
    ])

The first is the outermost. All have their async twins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from agentmtl.agent.aggregate import votes_of
from agentmtl.errors import BudgetExceededError, UsageError
from agentmtl.experts.calling import Price, estimate_tokens
from agentmtl.experts.prompting import Prompts, fenced
from agentmtl.retrieval.index import Index
from agentmtl.routing.route import Policy, Route, Router, choose
from agentmtl.schema import Budget, Candidate, Hit
from agentmtl.spending import Ledger
from agentmtl.trunk.encoder import Encoder

Request: TypeAlias = ModelRequest[Any]
Response: TypeAlias = ModelResponse[Any]
Handler: TypeAlias = Callable[[Request], Response]
AsyncHandler: TypeAlias = Callable[[Request], Awaitable[Response]]


REMEMBERED = 10_000  # conversations, whose expert is known; the oldest is forgotten first
SAMPLES = "samples"  # in a message's response_metadata: how many calls it took


class RetrievalMiddleware(AgentMiddleware[Any, Any, Any]):
    """Puts quoted evidence for the last question, and labelled examples of a task, into the system message.

    `hops` 2 to 4 for questions that need several passages. Nothing is kept in the agent's state.
    """

    def __init__(
        self,
        index: Index,
        *,
        k: int = 4,
        hops: int = 1,
        where: str | None = None,
        task: str | None = None,
        demonstrations: int = 0,
        prompts: Prompts | None = None,
    ) -> None:
        self.index, self.k, self.hops, self.where = index, k, hops, where
        self.task, self.demonstrations = task, demonstrations
        self.prompts = prompts or Prompts()

    def wrap_model_call(self, request: Request, handler: Handler) -> Response:
        return handler(self._with_evidence(request))

    async def awrap_model_call(self, request: Request, handler: AsyncHandler) -> Response:
        return await handler(await asyncio.to_thread(self._with_evidence, request))

    def _with_evidence(self, request: Request) -> Request:
        asked = question_of(request)
        if not asked:
            return request
        hits = self.index.retrieve(asked, k=self.k, hops=self.hops, where=self.where)
        shown: Sequence[Hit] = ()
        if self.task and self.demonstrations:
            shown = self.index.retrieve(asked, task=self.task, level="demonstration", k=self.demonstrations)
        told = fenced(self.prompts, "evidence-system", hits, shown)
        before = request.system_message
        text = f"{before.text}\n\n{told}" if before is not None and before.text else told
        return request.override(system_message=SystemMessage(text))


class ExpertRoutingMiddleware(AgentMiddleware[Any, Any, Any]):
    """Calls the model of the expert that a router chooses for the last question.

    `models` by the router's names; where the router abstains, or chooses one without a model, the agent's own
    model is called. Within a conversation (`thread_id`) the choice is sticky. `last` is the newest route.
    """

    def __init__(
        self,
        router: Router,
        models: Mapping[str, BaseChatModel],
        encoder: Encoder,
        policy: Policy | None = None,
    ) -> None:
        """Raises UsageError where no name of the router has a model."""
        if not set(router.experts) & set(models):
            raise UsageError("The router chooses among none of the models.", "Give models by its names.")
        self.router, self.models, self.encoder, self.policy = router, dict(models), encoder, policy
        self.last: Route | None = None
        self._threads: dict[str, str] = {}

    def wrap_model_call(self, request: Request, handler: Handler) -> Response:
        return handler(self._routed(request))

    async def awrap_model_call(self, request: Request, handler: AsyncHandler) -> Response:
        return await handler(await asyncio.to_thread(self._routed, request))

    def _routed(self, request: Request) -> Request:
        asked = question_of(request)
        if not asked:
            return request
        thread = _thread_of(request)
        vector = self.encoder.encode([asked], "query")[0].astype(float)
        route = choose(self.router, vector, asked, self.policy, self._threads.get(thread))
        self.last = route
        if thread:
            self._threads.pop(thread, None)
            self._threads[thread] = route.expert
            if len(self._threads) > REMEMBERED:
                del self._threads[next(iter(self._threads))]
        model = None if route.abstained else self.models.get(route.expert)
        return request if model is None else request.override(model=model)


class TestTimeComputeMiddleware(AgentMiddleware[Any, Any, Any]):
    """Calls the model `samples` times and answers with what most of the outputs say.

    An output that calls a tool is taken at once: there is nothing to vote on yet. The message that is taken
    carries the usage of all samples, and their number as `samples` in its `response_metadata`. A budget that
    does not allow another sample ends the drawing; without the first one there is no answer.
    """

    __test__ = False  # no test class, whatever pytest thinks of its name

    def __init__(self, samples: int = 5) -> None:
        """Raises UsageError for fewer than one sample."""
        if samples < 1:
            raise UsageError(f"{samples} samples are none.", "Give 1 and more.")
        self.samples = samples

    def wrap_model_call(self, request: Request, handler: Handler) -> Response:
        found: list[Response] = []
        for _ in range(self.samples):
            try:
                found.append(handler(request))
            except BudgetExceededError:
                if not found:
                    raise
                break
            if calls_tool(found[-1]):
                return charged(found[-1], found)
        return charged(most_common(found), found)

    async def awrap_model_call(self, request: Request, handler: AsyncHandler) -> Response:
        drawing = (handler(request) for _ in range(self.samples))
        drawn = await asyncio.gather(*drawing, return_exceptions=True)
        found = [one for one in drawn if not isinstance(one, BaseException)]
        failed = [one for one in drawn if isinstance(one, BaseException)]
        for error in failed:
            if not found or not isinstance(error, BudgetExceededError):
                raise error
        calling = next((response for response in found if calls_tool(response)), None)
        return charged(calling or most_common(found), found)


class BudgetMiddleware(AgentMiddleware[Any, Any, Any]):
    """Refuses a call of the model that the budget does not allow, before it is made; `ledger` says what was
    spent. Prompts are counted as the model counts them where it can, else by a generous estimate. One
    middleware is one budget: make a new agent, or call `reset`, for a new one.

    Put it innermost, where it sees every sample before it is drawn. Outside of `TestTimeComputeMiddleware` it
    sees one call: all samples are counted once they were drawn, and what they cost too much is overshoot.
    """

    def __init__(self, budget: Budget, *, max_tokens: int = 256, price: Price | None = None) -> None:
        self.budget, self.max_tokens, self.price = budget, max_tokens, price or Price()
        self.ledger = Ledger(budget)

    def reset(self) -> None:
        """Begin with the whole budget again."""
        self.ledger = Ledger(self.budget)

    def wrap_model_call(self, request: Request, handler: Handler) -> Response:
        limited, tokens = self._limited(request)
        with self.ledger.reserve(tokens=tokens, usd=self._most(tokens)) as reservation:
            response = handler(limited)
            reservation.spend(self.price.usage(_calls(response), *_tokens(response), 0.0))
            return response

    async def awrap_model_call(self, request: Request, handler: AsyncHandler) -> Response:
        limited, tokens = self._limited(request)
        with self.ledger.reserve(tokens=tokens, usd=self._most(tokens)) as reservation:
            response = await asyncio.wait_for(handler(limited), self.ledger.seconds_left)
            reservation.spend(self.price.usage(_calls(response), *_tokens(response), 0.0))
            return response

    def _limited(self, request: Request) -> tuple[Request, int]:
        """The request with a limit on its output, and the most tokens that it can cost."""
        settings = {"max_tokens": self.max_tokens, **request.model_settings}
        messages = [*([request.system_message] if request.system_message else []), *request.messages]
        own = getattr(request.model, "count_prompt_tokens", None)
        prompt = int(own(messages)) if own is not None else estimate_tokens(messages)
        return request.override(model_settings=settings), prompt + int(settings["max_tokens"])

    def _most(self, tokens: int) -> float:
        return max(self.price.usd(tokens, 0), self.price.usd(0, tokens))


def question_of(request: Request) -> str:
    """The text of the last message of the user; "" where there is none."""
    asked = [message for message in request.messages if isinstance(message, HumanMessage)]
    return str(asked[-1].text).strip() if asked else ""


def calls_tool(response: Response) -> bool:
    """Whether the model asked for a tool."""
    return any(isinstance(message, AIMessage) and message.tool_calls for message in response.result)


def most_common(responses: list[Response]) -> Response:
    """The first response whose text, normalised, most of them give."""
    texts = [Candidate(str(response.result[0].text), (), 0.0, str(n)) for n, response in enumerate(responses)]
    return responses[int(votes_of(texts)[0].candidates[0].expert)]


def charged(chosen: Response, drawn: Sequence[Response]) -> Response:
    """The chosen response, its message with the usage of all that were drawn."""
    usage: UsageMetadata | None = None
    for response in drawn:
        for message in response.result:
            if isinstance(message, AIMessage) and message.usage_metadata:
                usage = add_usage(usage, message.usage_metadata)
    messages = [
        message.model_copy(
            update={
                "usage_metadata": usage,
                "response_metadata": {**message.response_metadata, SAMPLES: len(drawn)},
            }
        )
        if isinstance(message, AIMessage)
        else message
        for message in chosen.result
    ]
    return replace(chosen, result=messages)


def _tokens(response: Response) -> tuple[int, int]:
    usages = [getattr(message, "usage_metadata", None) or {} for message in response.result]
    return (
        sum(int(usage.get("input_tokens", 0)) for usage in usages),
        sum(int(usage.get("output_tokens", 0)) for usage in usages),
    )


def _calls(response: Response) -> int:
    """How many calls of the model it took."""
    counts = [message.response_metadata.get(SAMPLES, 1) for message in response.result]
    return max([int(count) for count in counts if isinstance(count, int)], default=1)


def _thread_of(request: Request) -> str:
    """The conversation's id; "" outside one."""
    from langgraph.config import get_config

    try:
        return str(get_config().get("configurable", {}).get("thread_id") or "")
    except RuntimeError:  # outside a graph
        return ""
