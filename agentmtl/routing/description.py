"""A router that needs no data: the query against what each expert's card says, and against its examples.

A new expert works on arrival. The chance of each is a softmax over the likeness of its nearest text, with a
temperature that was fitted once (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.routing.arguments import check_schema
from agentmtl.routing.route import Floats
from agentmtl.trunk.encoder import Encoder

TEMPERATURE = 0.05  # of cosines
NEAREST = 3  # texts of an expert that count


@dataclass(frozen=True, slots=True)
class Described:
    """An expert as a router sees it: its card and example queries. `schema`: JSON schema of the arguments
    that it wants, where it wants any. Raises UsageError for one that cannot be checked."""

    name: str
    card: str
    examples: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.schema:
            check_schema(self.schema)


class DescriptionRouter:
    """Over unit vectors of the same encoder as the queries'."""

    def __init__(
        self, experts: Sequence[Described], encoder: Encoder, temperature: float = TEMPERATURE
    ) -> None:
        """Raises UsageError without experts, EncoderError where the cards cannot be encoded."""
        if not experts:
            raise UsageError("There is no expert to choose.", "Register one: agentmtl experts add")
        self._experts = tuple(experts)
        texts = [text for one in experts for text in (one.card, *one.examples)]
        self._owners = np.repeat(np.arange(len(experts)), [1 + len(one.examples) for one in experts])
        self._vectors = np.asarray(encoder.encode(texts, "document"), np.float64)
        self._temperature = temperature

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(one.name for one in self._experts)

    def likeness(self, vectors: Floats) -> Floats:
        """(n, experts): the mean cosine of each expert's nearest texts."""
        cosines = np.asarray(vectors, np.float64) @ self._vectors.T
        columns = []
        for owner in range(len(self._experts)):
            mine = np.sort(cosines[:, self._owners == owner], axis=1)[:, -NEAREST:]
            columns.append(mine.mean(axis=1))
        return np.stack(columns, axis=1)

    def probabilities(self, vectors: Floats, texts: Sequence[str] = ()) -> Floats:
        """(n, experts), rows of sum 1."""
        logits = self.likeness(vectors) / self._temperature
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        return np.asarray(chances / chances.sum(axis=1, keepdims=True))


def described(cards: Mapping[str, str]) -> list[Described]:
    """Experts by name and card alone."""
    return [Described(name, card) for name, card in cards.items()]
