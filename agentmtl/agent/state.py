"""What is known of a question on its way to an answer. Plain nouns only, so that a checkpoint can be read
again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias, TypedDict

from agentmtl.schema import Answer, Candidate, Evidence, Hit, Turn, Usage

Step: TypeAlias = Mapping[str, Any]


def listed(old: list[Any], new: list[Any] | None) -> list[Any]:
    """What is there and what is new; None begins again."""
    return [] if new is None else [*old, *new]


def latest(old: str, new: str) -> str:
    """The new one: samples that run at the same time may both say it."""
    return new


def counted(old: int, new: int | None) -> int:
    """The sum; None begins again."""
    return 0 if new is None else old + new


def grown(old: Usage, new: Usage) -> Usage:
    """The one that knows of more: what was spent only grows."""
    return max(old, new, key=lambda usage: (usage.calls, usage.seconds))


class State(TypedDict, total=False):
    """`question` stands alone: `asked` is how the user put it after `turns` of a conversation. `args`: what
    the route gives the expert, in its own schema. `searched`:
    queries of a model, "" for "enough". `drawn`: samples of the expert on whom the `route` fell, those that
    said nothing usable included; `size`: of this round; `stopped`: why no more are drawn; `refused`: what the
    budget said; `tried`: experts that gave way to a dearer one.
    """

    asked: str
    question: str
    where: str | None
    turns: list[Turn]
    conversation: str
    route: str
    args: dict[str, Any]
    tried: list[str]
    evidence: Evidence
    searched: list[str]
    demonstrations: list[Hit]
    size: int
    candidates: Annotated[list[Candidate], listed]
    drawn: Annotated[int, counted]
    stopped: Annotated[str, latest]
    refused: Annotated[str, latest]
    chosen: list[Candidate]
    exact: int
    answer: Answer
    trace: Annotated[list[Step], listed]
    spent: Annotated[Usage, grown]


_REDUCED = {"candidates": listed, "drawn": counted, "trace": listed, "spent": grown}
_EMPTY: Mapping[str, Any] = {"candidates": [], "drawn": 0, "trace": [], "spent": Usage()}


def begun(
    question: str, where: str | None = None, turns: Sequence[Turn] = (), conversation: str = ""
) -> State:
    """The state before the first step. `conversation`: its name, which the trace tells."""
    return {"question": question, "where": where, "turns": list(turns), "conversation": conversation}


def add(state: State, update: State) -> None:
    """Take an update in, as the graph does."""
    for name, value in update.items():
        if name in _REDUCED:
            value = _REDUCED[name](state.get(name, _EMPTY[name]), value)  # type: ignore[operator]
        state[name] = value  # type: ignore[literal-required]
