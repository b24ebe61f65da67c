"""`ToolExpert`: a LangChain tool as an expert: its result is the answer.

    expert = ToolExpert(weather)                            # the question is its one text argument
    expert.given({"city": "Oslo", "day": "today"})          # or the arguments that a route names

A tool is called with the user's question or a route's arguments alone, never with anything that was
retrieved. Its result is text: quoted, on one line. It rests on no document, so it cites none, unless a
sentence of the evidence has the same words; an agent lets it through without a citation because it says so
(`uncited`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool, Tool

from agentmtl.errors import UsageError
from agentmtl.experts.chat import Reply, cited
from agentmtl.experts.expert import Needs
from agentmtl.experts.quoting import quoted
from agentmtl.experts.support_words import FUNCTION
from agentmtl.index.tokens import words
from agentmtl.integrations.runnables import Cost, RunnableCaller
from agentmtl.schema import Candidate, Citation, Evidence, Hit

LONGEST = 2000  # characters of a result that are kept
CONFIDENCE = 0.5  # where nobody has said how often it is right


class ToolExpert:
    """See the top of this module. Safe to use from several threads, as the tool is.

    `name` and `card`: the tool's own by default. `args`: what it is called with, in place of the question.
    `confidence`: the share of its answers that is right, as far as is known.
    """

    needs: Needs = "passages"
    sampled = False
    uncited = True

    def __init__(
        self,
        tool: BaseTool,
        *,
        name: str = "",
        card: str = "",
        cost: Cost | None = None,
        args: Mapping[str, Any] | None = None,
        confidence: float = CONFIDENCE,
    ) -> None:
        """Raises UsageError for what is no tool."""
        if not isinstance(tool, BaseTool):
            raise UsageError(
                f"{name or 'That'} is no tool but a {type(tool).__name__}.", "Use @tool on a function."
            )
        self.name, self.card = name or tool.name, card or " ".join(tool.description.split())
        self._tool, self._args, self._confidence = tool, args, confidence
        self._caller = RunnableCaller(tool, self.name, cost)

    def given(self, args: Mapping[str, Any]) -> ToolExpert:
        """The same with these arguments, as a route names them.

        Raises UsageError for an argument that the tool does not take.
        """
        unknown = sorted(set(args) - set(self.schema.get("properties", {})))
        if unknown:
            raise UsageError(f"The tool {self.name} takes no {unknown[0]!r}.", f"It takes {self._takes()}.")
        return ToolExpert(
            self._tool, name=self.name, card=self.card, cost=self._caller.cost, args=dict(args),
            confidence=self._confidence,
        )  # fmt: skip

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """The tool's result, [] where it is empty: one, whatever `n`.

        Raises UsageError where the tool takes more than one text and was given no arguments,
        BudgetExceededError before a call that is not allowed, ModelError where the tool fails.
        """
        args = self._arguments(question)
        text = self._caller.call(args, "tool", _shown(args), text_of)
        return self._candidates(question, evidence, text)

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` without blocking the event loop."""
        args = self._arguments(question)
        text = await self._caller.acall(args, "tool", _shown(args), text_of)
        return self._candidates(question, evidence, text)

    def _arguments(self, question: str) -> dict[str, Any]:
        if self._args is not None:
            return dict(self._args)
        schema = self.schema
        texts = [n for n, one in schema.get("properties", {}).items() if one.get("type") == "string"]
        required = schema.get("required", [])
        chosen = [name for name in texts if name in required] or texts
        if len(chosen) != 1 or set(required) - set(chosen):
            raise UsageError(
                f"The tool {self.name} takes {self._takes()}: not one text.",
                "Give it arguments: ToolExpert.given({…}), or a router that names them.",
            )
        return {chosen[0]: question}

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments, for a router that names them."""
        if isinstance(self._tool, Tool):  # of one text, whatever its function says
            return {"properties": self._tool.args, "required": list(self._tool.args)}
        shape: Any = self._tool.tool_call_schema
        return dict(shape) if isinstance(shape, Mapping) else dict(shape.model_json_schema())

    def _takes(self) -> str:
        return ", ".join(self.schema.get("properties", {})) or "nothing"

    def _candidates(self, question: str, evidence: Evidence, text: str) -> list[Candidate]:
        if not text:
            return []
        citations = agreeing(question, text, evidence.passages)
        marks = "".join(f" [{citation.marker}]" for citation in citations)
        return [Candidate(text + marks, citations, self._confidence, self.name)]


def text_of(result: Any) -> str:
    """A result as quoted text: on one line, without citation marks and tags, cut off where it is long."""
    if isinstance(result, str):
        raw = result
    elif isinstance(result, list) and all(isinstance(one, dict) and "text" in one for one in result):
        raw = " ".join(str(one["text"]) for one in result)  # blocks of content
    else:
        raw = "" if result is None else json.dumps(result, ensure_ascii=False, default=str)
    text = quoted(raw)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def agreeing(question: str, text: str, hits: Sequence[Hit]) -> tuple[Citation, ...]:
    """The first sentence of the evidence that has all words of content of the text and one of the question's;
    none where there is none."""
    asked, told = frozenset(words(question)) - FUNCTION, frozenset(words(text)) - FUNCTION
    for number in range(1, len(hits) + 1) if told else ():
        for citation in cited(question, Reply(text, (number,)), hits):
            held = frozenset(words(citation.text))
            if citation.unit_id == hits[number - 1].id and told <= held and asked & held:
                return (citation,)
    return ()


def _shown(args: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("arguments", json.dumps(args, ensure_ascii=False, default=str))]
