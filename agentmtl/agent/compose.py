"""One answer made of several by a model: fused from all drafts, or refined round by round.

    fuse      one call over the different answers, the most frequent first     LLM-Blender, arXiv 2306.02561
    refine    the vote's winner written again until it no longer changes       Self-Refine, arXiv 2303.17651

Where the model says nothing usable, or the budget ends, the vote's winner stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

from agentmtl.agent.aggregate import majority, votes_of
from agentmtl.errors import BudgetExceededError
from agentmtl.experts.answers import normalise_answer, without_marks
from agentmtl.experts.chat import Revision
from agentmtl.schema import Candidate, Evidence
from agentmtl.work import Work

COMPOSED: tuple[Revision, ...] = ("fuse", "refine")
Told: TypeAlias = dict[str, Any]  # for the trace


@runtime_checkable
class Composer(Protocol):
    """An expert that writes an answer from drafts, as `ChatExpert` does."""

    def room(self, question: str, evidence: Evidence, drafts: Sequence[str]) -> int: ...

    def revised(
        self, question: str, evidence: Evidence, drafts: Sequence[str], purpose: Revision
    ) -> Work[Candidate | None]: ...


def fused(
    composer: Composer, question: str, evidence: Evidence, candidates: Sequence[Candidate], drawn: int
) -> Work[tuple[Candidate | None, Told]]:
    """(the candidate, what to tell of it). A model is called only where there are two answers and more;
    drafts that its window has no room for are left out and counted."""
    votes = votes_of(candidates)
    if len(votes) < 2:
        return majority(candidates, drawn), {"drafts": len(votes), "used": 0}
    drafts = [without_marks(vote.candidates[0].text) for vote in votes]
    used = composer.room(question, evidence, drafts)
    told: Told = {"drafts": len(drafts), "used": used}
    try:
        found = yield from composer.revised(question, evidence, drafts[:used], "fuse")
    except BudgetExceededError:
        return majority(candidates, drawn), {**told, "used": 0, "left_out": "budget"}
    if found is None:
        return majority(candidates, drawn), told
    return _counted(found, candidates, drawn), told


def refined(
    composer: Composer,
    question: str,
    evidence: Evidence,
    candidates: Sequence[Candidate],
    drawn: int,
    rounds: int,
) -> Work[tuple[Candidate | None, Told]]:
    """(the candidate, what to tell of it) after at most `rounds`, fewer where a round changes nothing."""
    draft = majority(candidates, drawn)
    told: Told = {"rounds": 0, "agreed": False}
    while draft is not None and told["rounds"] < rounds and not told["agreed"]:
        try:
            found = yield from composer.revised(question, evidence, [without_marks(draft.text)], "refine")
        except BudgetExceededError:
            return draft, {**told, "left_out": "budget"}
        told["rounds"] += 1
        told["agreed"] = found is not None and _answer(found) == _answer(draft)
        if found is not None and not told["agreed"]:
            draft = _counted(found, candidates, drawn)
    return draft, told


def _counted(found: Candidate, candidates: Sequence[Candidate], drawn: int) -> Candidate:
    """With the share of those drawn that say the same, itself counted as one of them."""
    same = sum(_answer(candidate) == _answer(found) for candidate in candidates)
    return replace(found, confidence=(same + 1) / (drawn + 1))


def _answer(candidate: Candidate) -> str:
    return normalise_answer(without_marks(candidate.text))
