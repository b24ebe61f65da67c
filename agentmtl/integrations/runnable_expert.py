"""`RunnableExpert`: a LangChain Runnable (a chain, a graph, a function) as an expert.

    expert = RunnableExpert(prompt | model | parser, name="tickets", card="Answers about support tickets.")
    agent = Agent(index, expert=expert)

It is given the question and quoted evidence, and says an answer with the numbers of the documents that say
it, as text ("Oslo [2]") or as {"answer": "Oslo", "documents": [2]}. What it cites is checked as a chat
model's is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, is_dataclass
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase, RunnableLike, coerce_to_runnable
from pydantic import BaseModel

from agentmtl.errors import BudgetExceededError, ModelError, UsageError
from agentmtl.experts.chat import NO_ANSWER, cited, parse
from agentmtl.experts.expert import Needs
from agentmtl.experts.prompting import PASSAGES, Prompts, answer_messages, blocks_of, fenced
from agentmtl.integrations.runnables import Cost, RunnableCaller, refuse_if_forbidden
from agentmtl.schema import Candidate, Evidence, Hit
from agentmtl.tasks import Task

AT_ONCE = 8  # samples drawn at the same time
UNSURE = 0.5  # of an answer whose maker says nothing about it
_HINT = 'Let it give text such as "Oslo [2]", or {"answer": "Oslo", "documents": [2]}.'


class RunnableExpert:
    """See the top of this module. Safe to use from several threads, as the Runnable is.

    A language model (or what begins with one) is given messages; anything else a dictionary of `question`,
    `evidence` (quoted documents in a fence), `documents` (of number, title and text), and `messages`.
    `sampled`: whether it may say different things to the same question. `confidence`: the share of its
    answers that is right, as far as is known. `harmless`: it calls no model, and may be called in tests.
    """

    needs: Needs = "passages"
    many = False

    def __init__(
        self,
        runnable: RunnableLike[Any, Any],
        *,
        name: str,
        card: str,
        cost: Cost | None = None,
        prompts: Prompts | None = None,
        task: Task | None = None,
        sampled: bool = True,
        confidence: float = UNSURE,
        harmless: bool = False,
    ) -> None:
        """A function will do for a Runnable. Raises UsageError for anything else."""
        try:
            whole: Runnable[Any, Any] = coerce_to_runnable(runnable)
        except TypeError as error:
            kind = type(runnable).__name__
            raise UsageError(f"{name} is a {kind}.", "Give a Runnable, or a function.") from error
        self.name, self.card, self.sampled = name, card, sampled
        self._caller = RunnableCaller(whole, name, cost)
        self._prompts, self._task = prompts or Prompts(), task
        self._confidence, self._harmless = confidence, harmless

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """A candidate for each of `n` calls that says something which can be cited; of fewer calls where the
        budget is short.

        Raises BudgetExceededError before a call that may cost too much, ModelError where the Runnable fails
        or gives what is no answer.
        """
        if not evidence.passages:
            return []
        refuse_if_forbidden(self.name, self._harmless)
        messages, given = self._given(question, evidence, demonstrations)
        shown, times = _shown(messages), n if self.sampled else 1

        def once() -> str:
            return self._caller.call(given, "sample", shown, said)

        if times == 1:
            return self._candidates(question, evidence, [once()])
        with ThreadPoolExecutor(min(times, AT_ONCE)) as pool:
            jobs = [pool.submit(copy_context().run, once) for _ in range(times)]
        return self._candidates(
            question, evidence, _those_made([job.exception() or job.result() for job in jobs])
        )

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` without blocking the event loop."""
        if not evidence.passages:
            return []
        refuse_if_forbidden(self.name, self._harmless)
        messages, given = self._given(question, evidence, demonstrations)
        shown, times = _shown(messages), n if self.sampled else 1
        free = asyncio.Semaphore(AT_ONCE)

        async def once() -> str:
            async with free:
                return await self._caller.acall(given, "sample", shown, said)

        results = await asyncio.gather(*(once() for _ in range(times)), return_exceptions=True)
        return self._candidates(question, evidence, _those_made(results))

    def messages(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = ()
    ) -> list[BaseMessage]:
        """What it is given, as messages; [] where there is no evidence."""
        if not evidence.passages:
            return []
        return list(self._given(question, evidence, demonstrations)[0])

    def _given(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit]
    ) -> tuple[Sequence[BaseMessage], Any]:
        messages = answer_messages(self._prompts, question, evidence, demonstrations, task=self._task)
        if isinstance(_first(self._caller.runnable), BaseLanguageModel):
            return messages, list(messages)
        hits = evidence.passages[:PASSAGES]
        return messages, {
            "question": question,
            "evidence": fenced(self._prompts, "search-result", hits),
            "documents": [{"number": b.number, "title": b.title, "text": b.text} for b in blocks_of(hits)],
            "messages": list(messages),
        }

    def _candidates(self, question: str, evidence: Evidence, texts: Sequence[str]) -> list[Candidate]:
        hits = evidence.passages[:PASSAGES]
        found = []
        for text in texts:
            reply = parse(text, len(hits))
            citations = cited(question, reply, hits) if reply.answer else ()
            if citations:
                marks = "".join(f"[{citation.marker}]" for citation in citations)
                found.append(Candidate(f"{reply.answer} {marks}", citations, self._confidence, self.name))
        return found


def _those_made(results: Sequence[str | BaseException]) -> list[str]:
    """The texts of calls that ran at the same time. Raises what one raised; a budget's refusal only where it
    refused all."""
    made = [result for result in results if isinstance(result, str)]
    for error in results:
        if isinstance(error, BaseException) and not (made and isinstance(error, BudgetExceededError)):
            raise error
    return made


def said(result: Any) -> str:
    """The text of what a Runnable gave, with marks for the documents. Raises ModelError for what is neither
    text, a message, a state with messages, nor an answer with documents."""
    if isinstance(result, str):
        return result
    if isinstance(result, BaseMessage):
        return str(result.text)
    fields = _fields(result)
    if fields.get("structured_response") is not None:
        return said(fields["structured_response"])
    if "answer" in fields:
        numbers = fields.get("documents") or ()
        if isinstance(numbers, Sequence) and all(_is_number(number) for number in numbers):
            return f"{fields['answer'] or NO_ANSWER} " + "".join(f"[{int(number)}]" for number in numbers)
    elif fields.get("messages"):
        return said(fields["messages"][-1])
    raise ModelError(f"A {type(result).__name__} is no answer with documents.", _HINT)


def _fields(result: Any) -> Mapping[str, Any]:
    if isinstance(result, Mapping):
        return result
    if isinstance(result, BaseModel):
        return result.model_dump()
    return asdict(result) if is_dataclass(result) and not isinstance(result, type) else {}


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.strip().isdecimal()
    )


def _shown(messages: Sequence[BaseMessage]) -> list[tuple[str, str]]:
    return [(message.type, str(message.text)) for message in messages]


def _first(runnable: Any) -> Any:
    """What a chain begins with."""
    while isinstance(runnable, RunnableSequence | RunnableBindingBase):
        runnable = runnable.first if isinstance(runnable, RunnableSequence) else runnable.bound
    return runnable
