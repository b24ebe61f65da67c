"""A conversation: questions that lean on what was said before, each answered under the agent's budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentmtl.schema import Answer, Turn

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent

KEPT = 20  # turns, the newest


class Session:
    """Ask within it as of the agent; made by `Agent.session`. Not for several threads at once: a question
    needs the answer of the one before.

    `turns`: what was asked, as it stands alone, and answered. With a name and an agent that logs, they are
    read from the log, so that a conversation goes on in another process.
    """

    def __init__(self, agent: Agent, name: str = "", turns: Sequence[Turn] = ()) -> None:
        self._agent, self.name = agent, name
        self.turns = list(turns)[-KEPT:]

    def ask(self, question: str, *, where: str | None = None) -> Answer:
        """Raises what `Agent.ask` raises; the conversation then stays as it was."""
        return self._kept(self._agent.ask(question, where=where, session=self))

    async def aask(self, question: str, *, where: str | None = None) -> Answer:
        """`ask` without blocking the event loop."""
        return self._kept(await self._agent.aask(question, where=where, session=self))

    def _kept(self, answer: Answer) -> Answer:
        self.turns = [*self.turns, turn_of(answer)][-KEPT:]
        return answer


def turn_of(answer: Answer) -> Turn:
    """What later questions may lean on."""
    alone = next((s["question"] for s in answer.trace if s["step"] == "rewrite"), answer.question)
    return Turn(str(alone), answer.text, answer.route)
