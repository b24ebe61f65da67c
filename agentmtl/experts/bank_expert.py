"""The voter as an expert, with a bank of other tasks for a task that has few examples.

While the evidence holds all examples of its task and they are few, the bank reads them
(`agentmtl.experts.bank`); where there are more, it votes as `VoterExpert` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from agentmtl.experts.bank import FEW, BankVoter, Encode, LearnedBank
from agentmtl.experts.demonstrations import VoterSettings
from agentmtl.experts.voter import VoterExpert, options_of
from agentmtl.retrieval.demonstrations import Selection
from agentmtl.schema import Demonstration, Hit
from agentmtl.tasks import Task


class BankExpert(VoterExpert):
    """See the top of this module."""

    def __init__(
        self,
        task: Task,
        learned: LearnedBank,
        encode: Encode,
        settings: VoterSettings | None = None,
        *,
        name: str = "",
        card: str = "",
    ) -> None:
        """`encode`: the trunk's, with whose vectors the bank was made."""
        super().__init__(task, settings, encode=encode, name=name, card=card)
        self._learned, self._trunk = learned, encode
        self._reader = lru_cache(maxsize=4)(self._read)

    @property
    def selection(self) -> Selection:
        """All examples, as long as they are few."""
        return replace(self._settings.selection, k=max(FEW + 1, self._settings.selection.k))

    def _read(self, examples: tuple[Demonstration, ...]) -> BankVoter:
        return BankVoter(self._learned, self._trunk, self._task, examples)

    def _votes(self, question: str, voting: Sequence[Hit]) -> dict[str, float]:
        if len(voting) > FEW:
            return super()._votes(question, voting[: self._settings.selection.k])
        examples = sorted((Demonstration.from_unit(hit.unit) for hit in voting), key=lambda e: e.source_id)
        options = options_of(question) if self._task.kind == "multiple_choice" else []
        if self._task.kind == "multiple_choice" and not options:
            return {}
        (judged,) = self._reader(tuple(examples)).predict([question], [options])
        return dict(judged.probabilities)
