"""A chat model as an expert: it answers from numbered documents and cites them; what it cites is checked.

A reply that cites nothing, or what is not there, is sent back once. What still cannot be used is dropped: a
mark that names no document, a document that shares no word of content with the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from typing import TYPE_CHECKING, Literal, TypeAlias

from agentmtl.experts.calling import Caller, Sample
from agentmtl.experts.expert import Needs
from agentmtl.experts.prompting import PASSAGES, Prompts, answer_messages
from agentmtl.experts.quoting import unmarked
from agentmtl.experts.support_words import FUNCTION
from agentmtl.index.tokens import words
from agentmtl.ingest.sentences import split_sentences
from agentmtl.schema import Candidate, Citation, Evidence, Hit
from agentmtl.tasks import Task
from agentmtl.work import Work, later, now

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Revision: TypeAlias = Literal["fuse", "refine"]

NO_ANSWER = "no answer"
_UNSURE = 0.5  # of a sample whose model gives no probabilities
_LEAD = re.compile(r".*^\s*(?:\*\*)?answer(?:\*\*)?\s*:", re.I | re.S | re.M)
_MARKS = re.compile(r"\s*\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]")
_YES_OR_NO = frozenset({"yes", "no"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said: the answer without marks, "" where it says that there is none; the documents that it
    cites, in order; and what is wrong with it, "" where it can be used."""

    answer: str
    cited: tuple[int, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    question: str
    hits: tuple[Hit, ...]
    messages: tuple[BaseMessage, ...] = field(repr=False)


class ChatExpert:
    """Answers with a chat model. Safe to use from several threads, as the model is."""

    needs: Needs = "passages"
    sampled = True  # the same question may give different answers

    def __init__(
        self,
        caller: Caller,
        *,
        card: str = "Answers questions in its own words, from documents.",
        prompts: Prompts | None = None,
        task: Task | None = None,
        passages: int = PASSAGES,
    ) -> None:
        self.name, self.card = caller.name, card
        self.caller, self._prompts = caller, prompts or Prompts()
        self._task, self._passages = task, passages

    @property
    def many(self) -> bool:
        """Whether one request draws several samples."""
        return self.caller.many

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """A candidate for each of `n` samples that says something which can be cited.

        Raises what `Caller.call` raises. A repair that the budget does not allow is left out.
        """
        return now(self._proposed(question, evidence, demonstrations, n))

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` without blocking the event loop."""
        return await later(self._proposed(question, evidence, demonstrations, n))

    def _proposed(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit], n: int
    ) -> Work[list[Candidate]]:
        asked = self._asked(question, evidence, demonstrations)
        if asked is None:
            return []
        found = []
        for sample in (yield self.caller.wait(asked.messages, "sample", n)):
            found.append((yield from self._read(asked, sample)))
        return [candidate for candidate in found if candidate is not None]

    def revised(
        self, question: str, evidence: Evidence, drafts: Sequence[str], purpose: Revision
    ) -> Work[Candidate | None]:
        """A candidate made of others: with "fuse" of several `drafts`, with "refine" of one. None where the
        model says nothing that can be cited. Raises what `Caller.call` raises."""
        asked = self._asked(question, evidence, (), purpose, drafts)
        if asked is None:
            return None
        (sample,) = yield self.caller.wait(asked.messages, purpose)
        return (yield from self._read(asked, sample))

    def room(self, question: str, evidence: Evidence, drafts: Sequence[str]) -> int:
        """How many of the drafts, from the first, a prompt to fuse them has room for; at least one."""
        for count in range(len(drafts), 1, -1):
            asked = self._asked(question, evidence, (), "fuse", drafts[:count])
            if asked is None or self.caller.fits(asked.messages):
                return count
        return min(1, len(drafts))

    def _read(self, asked: _Asked, sample: Sample) -> Work[Candidate | None]:
        """What a sample says; sent back once where it cannot be used and the budget allows it."""
        reply = parse(sample.text, len(asked.hits))
        again = self._again(asked, sample, reply) if reply.problem else []
        if again and self.caller.affords(again):
            (sample,) = yield self.caller.wait(again, "repair")
            reply = parse(sample.text, len(asked.hits))
        return self._candidate(asked, sample, reply)

    def messages(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = ()
    ) -> list[BaseMessage]:
        """What the model is sent; [] where there is no evidence."""
        asked = self._asked(question, evidence, demonstrations)
        return list(asked.messages) if asked else []

    def _asked(
        self,
        question: str,
        evidence: Evidence,
        demonstrations: Sequence[Hit],
        purpose: Literal["answer"] | Revision = "answer",
        drafts: Sequence[str] = (),
    ) -> _Asked | None:
        hits = evidence.passages[: self._passages]
        if not hits:
            return None
        messages = answer_messages(
            self._prompts, question, evidence, demonstrations, task=self._task, passages=self._passages,
            form=f"{purpose}-user", drafts=drafts,
        )  # fmt: skip
        return _Asked(question, hits, messages)

    def _again(self, asked: _Asked, sample: Sample, reply: Reply) -> list[BaseMessage]:
        from langchain_core.messages import AIMessage, HumanMessage

        text = self._prompts.render("repair-user", problem=reply.problem, count=len(asked.hits))
        return [*asked.messages, AIMessage(sample.text), HumanMessage(text)]

    def _candidate(self, asked: _Asked, sample: Sample, reply: Reply) -> Candidate | None:
        if not reply.answer:
            return None
        citations = cited(asked.question, reply, asked.hits)
        if not citations:
            return None
        text = f"{reply.answer} " + "".join(f"[{citation.marker}]" for citation in citations)
        sure = _UNSURE if sample.logprob is None else min(1.0, exp(sample.logprob))
        return Candidate(text, citations, sure, self.name)


def parse(text: str, documents: int) -> Reply:
    """What a model's text says, where documents 1 to `documents` were shown."""
    said = _LEAD.sub("", text).strip() or text.strip()
    marks = [int(number) for found in _MARKS.findall(said) for number in found.split(",")]
    answer = unmarked(" ".join(_MARKS.sub("", said).split()))
    known = tuple(dict.fromkeys(mark for mark in marks if 1 <= mark <= documents))
    if answer.lower().strip(" .") == NO_ANSWER:
        return Reply("", ())
    if not re.search(r"\w", answer):
        return Reply("", (), "it is empty")
    unknown = sorted(set(marks) - set(known))
    if unknown:
        return Reply(answer, known, f"there is no document {unknown[0]}")
    return Reply(answer, known, "" if known else "it names no document")


def cited(question: str, reply: Reply, hits: Sequence[Hit]) -> tuple[Citation, ...]:
    """For each document named, its sentence that says most of the answer: of what the answer adds to the
    question, then of its other words of content. A document that says nothing of what is added is not cited.
    Where the answer has no such word, as "yes", the question's decide alone.

    A name or number that only another document has is cited from there: an answer shows all its sources.
    """
    asked = frozenset(words(question)) - FUNCTION
    said = frozenset(words(reply.answer)) - FUNCTION - _YES_OR_NO or asked
    added = said - asked or said
    numbers = [number for number in reply.cited if added & _held(hits[number - 1])]
    if numbers:
        names = [word for word in re.findall(r"\w+", reply.answer) if not word[0].islower()]
        numbers += _others(frozenset(words(" ".join(names))) & added, numbers, hits)
    return tuple(
        _citation(marker, hits[number - 1], added, said, asked) for marker, number in enumerate(numbers, 1)
    )


def _held(hit: Hit) -> frozenset[str]:
    return frozenset(words(hit.unit.text))


def _others(names: frozenset[str], numbers: Sequence[int], hits: Sequence[Hit]) -> list[int]:
    """The documents that hold names which those of `numbers` lack, best ranked first."""
    lacking, found = names - frozenset[str]().union(*(_held(hits[n - 1]) for n in numbers)), []
    for number, hit in enumerate(hits, 1):
        if lacking & _held(hit):
            found.append(number)
            lacking -= _held(hit)
    return found


def _citation(
    marker: int, hit: Hit, added: frozenset[str], said: frozenset[str], asked: frozenset[str]
) -> Citation:
    """Of the sentence that holds most of what is added, then of what is said, then of what is asked."""
    unit = hit.unit
    spans = split_sentences(unit.text) or [(0, len(unit.text))]
    held = [frozenset(words(unit.text[start:end])) for start, end in spans]
    best = max(
        range(len(spans)),
        key=lambda at: (len(held[at] & added), len(held[at] & said), len(held[at] & asked), -at),
    )
    start, end = spans[best]
    return Citation(
        marker, unit.id, unit.source_id, unit.start + start, unit.start + end, unit.text[start:end],
        unit.title, unit.file, hit.hop,
    )  # fmt: skip
