"""What kind of answer a question asks for, as far as its first words say, and whether an answer is of it.

By rule and for English: "when" and "what year" want a date, "how many" a number, "who" a name. A question
that says none of these is not judged.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from agentmtl.experts.support_words import COUNTS, DATED
from agentmtl.index.tokens import words

AnswerType: TypeAlias = Literal["date", "number", "name", "any"]

_NUMBER = re.compile(r"\bhow (?:many|much|old|long|tall|high|far|large|big|deep|wide|often)\b", re.I)
_DATE = re.compile(
    r"\bwhen\b|\b(?:what|which|in what|in which) (?:year|date|day|month|century|decade)\b", re.I
)
_NAME = re.compile(
    r"\bwho(?:m|se)?\b|\bwhere\b|\b(?:what|which) (?:city|country|town|state|county|person|actor|actress|"
    r"singer|author|writer|director|company|band|team|river|university)\b",
    re.I,
)


def wanted_type(question: str) -> AnswerType:
    """By the earliest words that say it."""
    found: list[tuple[int, AnswerType]] = []
    for pattern, kind in ((_DATE, "date"), (_NUMBER, "number"), (_NAME, "name")):
        match = pattern.search(question)
        if match:
            found.append((match.start(), kind))  # type: ignore[arg-type]
    return min(found)[1] if found else "any"


def type_match(question: str, answer: str) -> float:
    """1 where the answer is of the kind asked for, −1 where it is not, 0 where the question does not say."""
    wanted = wanted_type(question)
    if wanted == "any":
        return 0.0
    spelt = frozenset(words(answer))
    digits, capital = any(c.isdigit() for c in answer), any(c.isupper() for c in answer)
    fits = {
        "date": digits or bool(spelt & DATED),
        "number": digits or bool(spelt & COUNTS),
        "name": capital and not (spelt and all(word.isdigit() for word in spelt)),
    }[wanted]
    return 1.0 if fits else -1.0
