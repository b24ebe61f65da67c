"""The instructions of the tasks that an index has examples of, under which a head may have encoded them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.index.manifest import IndexSettings

Cards = Mapping[str, Mapping[str, Any]]  # by the task's name, as plain JSON


def instructions_of(cards: Cards) -> dict[str, str]:
    """By the task's name; "" where the card has none."""
    return {name: str(card.get("instruction", "")) for name, card in cards.items()}


def check_instruction(settings: IndexSettings, known: Cards, name: str, card: Mapping[str, Any]) -> None:
    """Raises UsageError for another instruction than the one that examples were encoded under."""
    if settings.encoder.instructs and known.get(name, card).get("instruction") != card.get("instruction"):
        raise UsageError(
            f"The examples of {name} were encoded under another instruction.",
            "Give the card another name, or build the index anew.",
        )
