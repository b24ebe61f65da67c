"""What the agent asks a chat model for besides answers: a standalone question, what to look up next, a
verdict.

What was retrieved or said before is quoted data in all of them; what comes back is used as text to search
for, never as an instruction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import exp
from typing import TYPE_CHECKING

from agentmtl.experts.answers import without_marks
from agentmtl.experts.calling import Caller
from agentmtl.experts.prompting import Prompts, blocks_of, nonce_for
from agentmtl.experts.quoting import quoted
from agentmtl.schema import Candidate, Evidence, Turn
from agentmtl.work import Work

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

TURNS = 6  # of a conversation that a prompt shows
PASSAGES = 6  # that a prompt shows
LONGEST = 300  # characters of a query that a model wrote
ENOUGH = "enough"
_LEAD = re.compile(r"^\s*(?:search|alone|question|query)\s*:\s*", re.I)
_PRONOUN = re.compile(r"\b(he|she|it|they|him|her|them|his|hers|its|their|there|that|this)\b", re.I)
_DEFINES = re.compile(r"\s*\w+\s+(?:is|was|are|were)\s+[A-Z][^?]*\?*\s*$")  # "Who was John Harrison?"
_WHO = frozenset({"who", "whom", "whose", "which", "what"})
_THING = frozenset({"what", "which"})
_ASKED = {  # a question's first word, by which its answer is what the pronoun stands for
    **dict.fromkeys(("it", "its", "this", "that"), _THING),
    "there": frozenset({"where", "which", "what", "in"}),
    "": frozenset({"who", "whom", "whose", "which", "what", "where", "when"}),
}
_OWNED = frozenset({"his", "its", "their"})
_NAME = re.compile(r"[A-Z0-9][\w'’.-]*(?:\s+(?:(?:of|the|de|van|von)\s+)?[A-Z0-9][\w'’.-]*)*")


def rewritten(caller: Caller, prompts: Prompts, question: str, turns: Sequence[Turn]) -> Work[str]:
    """The question as it can be understood without the conversation; as it is where the model says nothing.
    Raises what `Caller.call` raises."""
    shown = [Turn(quoted(turn.question), quoted(turn.answer)) for turn in turns[-TURNS:]]
    nonce = nonce_for([question, *(text for turn in shown for text in (turn.question, turn.answer))])
    messages = _messages(
        prompts.render("rewrite-system", nonce=nonce),
        prompts.render("rewrite-user", turns=shown, question=question, nonce=nonce),
    )
    (sample,) = yield caller.wait(messages, "rewrite")
    return _line(sample.text) or question


def standalone(question: str, turns: Sequence[Turn]) -> str:
    """`rewritten` without a model, for English: the first pronoun becomes what the conversation is about, and
    a question that names nothing has it added.

    That is a name in the answer before, where its question asked for a person ("he"), a thing ("it") or a
    place ("there"), else the last name that it asked about.
    """
    found = _PRONOUN.search(question)
    about = _topic(turns[-1], found[0].lower() if found else "") if turns else ""
    if not about or about.lower() in question.lower():
        return question
    if found is not None:
        name = f"{about}'s" if _owns(found[0], question[found.end() :]) else about
        return question[: found.start()] + name + question[found.end() :]
    if _NAME.search(question[1:]):
        return question
    return f"{question} ({about})"


def _owns(pronoun: str, after: str) -> bool:
    """Whether the pronoun says whose something is: "her boats", but "her?"."""
    word = pronoun.lower()
    return word in _OWNED or (word == "her" and bool(re.match(r"\s+\w", after)))


def _topic(turn: Turn, pronoun: str) -> str:
    """A name of the answer where the question asked for what the pronoun stands for, else one that it asked
    about."""
    answer = without_marks(turn.answer).strip()
    # The first word of a sentence is a capital for another reason, but for an answer that is a name.
    whole = _NAME.fullmatch(answer) is not None
    said = [answer] if whole else _NAME.findall(answer[1:])
    said = [name.strip("'’.-") for name in said if not name[0].isdigit()]
    asked = [name.strip("'’.-") for name in _NAME.findall(turn.question[1:])]
    new = [name for name in said if name not in turn.question]
    first = turn.question.split(maxsplit=1)[0].lower() if turn.question.strip() else ""
    wanted = first in _ASKED.get(pronoun, _WHO) and not _DEFINES.match(turn.question)
    found = [*new[:1], *asked[-1:]] if wanted else [*asked[-1:], *new[:1]]
    return found[0] if found else ""


def next_query(
    caller: Caller, prompts: Prompts, question: str, evidence: Evidence, searched: Sequence[str]
) -> Work[str]:
    """What to look up next, "" where the documents answer the question or the model repeats itself. Raises
    what `Caller.call` raises."""
    (sample,) = yield caller.wait(hop_messages(prompts, question, evidence, searched), "hop")
    said = _line(sample.text)
    before = {question.lower(), *(query.lower() for query in searched)}
    return "" if said.lower().strip(" .") == ENOUGH or said.lower() in before else said


def hop_messages(
    prompts: Prompts, question: str, evidence: Evidence, searched: Sequence[str]
) -> list[BaseMessage]:
    """What a model is sent for `next_query`."""
    blocks = blocks_of(list(evidence.passages[:PASSAGES]))
    nonce = nonce_for([question, *(block.text for block in blocks)])
    return _messages(
        prompts.render("hop-system", nonce=nonce),
        prompts.render("hop-user", blocks=blocks, question=question, searched=list(searched), nonce=nonce),
    )


def judged(
    caller: Caller, prompts: Prompts, question: str, candidate: Candidate, evidence: Evidence
) -> Work[float | None]:
    """The probability that the documents say the answer is right, as a model judges: of its yes where it
    tells probabilities, else 1 or 0; None where it says neither. Raises what `Caller.call` raises."""
    blocks = blocks_of(list(evidence.passages[:PASSAGES]))
    answer = quoted(without_marks(candidate.text))
    nonce = nonce_for([question, answer, *(block.text for block in blocks)])
    messages = _messages(
        prompts.render("judge-system", nonce=nonce),
        prompts.render("judge-user", blocks=blocks, question=question, answer=answer, nonce=nonce),
    )
    (sample,) = yield caller.wait(messages, "judge")
    verdict = sample.text.strip().lower().strip(" .")
    if verdict not in ("yes", "no"):
        return None
    sure = 1.0 if sample.logprob is None else min(1.0, exp(sample.logprob))
    return sure if verdict == "yes" else 1.0 - sure


def _messages(system: str, user: str) -> list[BaseMessage]:
    from langchain_core.messages import HumanMessage, SystemMessage

    return [SystemMessage(system), HumanMessage(user)]


def _line(text: str) -> str:
    """The first line that says something, without a lead such as "Search:", cut to a query's length."""
    lines = (_LEAD.sub("", line).strip().strip('"') for line in text.splitlines())
    return next(filter(None, lines), "")[:LONGEST]
