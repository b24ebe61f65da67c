"""How the labelled examples of each task are encoded, where the encoder has a head for them: by the head,
under the task's instruction if it was trained so, or by the trunk, where its vectors predict them better.

An index keeps that with the task's card, under `EXAMPLES`: {"by": "head" or "trunk", …}. Cards without it are
of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.index.manifest import IndexSettings
from agentmtl.schema import Document
from agentmtl.tasks import under

Cards = Mapping[str, Mapping[str, Any]]  # by the task's name, as plain JSON

EXAMPLES = "examples"
HEAD, TRUNK = "head", "trunk"


def by_trunk(card: Mapping[str, Any]) -> bool:
    """Whether the examples of a task with this card are encoded by the trunk, though there is a head."""
    return bool(card.get(EXAMPLES, {}).get("by") == TRUNK)


def tasks_of_trunk(cards: Cards) -> list[str]:
    """The tasks whose examples the trunk encodes, though there is a head."""
    return [name for name, card in cards.items() if by_trunk(card)]


def told_by_head(settings: IndexSettings, cards: Cards, document: Document) -> str:
    """What a head encodes of a labelled example; "" where the trunk encodes it, and for other documents."""
    if not settings.encoder.demonstrations or not document.is_demonstration:
        return ""
    card = cards.get(str(document.metadata.get("task", "")), {})
    if by_trunk(card):
        return ""
    return under(str(card.get("instruction", "")) if settings.encoder.instructs else "", document.text)


def settled(settings: IndexSettings, known: Cards, name: str, card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The card that is kept: examples that are there settle how further ones are encoded.

    Raises UsageError for another instruction, or another encoder, than the one of those examples.
    """
    before = known.get(name)
    if before is None or not settings.encoder.demonstrations:
        return card
    reader = TRUNK if by_trunk(before) else HEAD
    if card.get(EXAMPLES, {}).get("by", reader) != reader:
        raise UsageError(
            f"The examples of {name} were encoded by the {reader}.",
            "Encode them anew: agentmtl index rebuild DIR --examples-by auto|head|trunk",
        )
    told = settings.encoder.instructs and reader == HEAD
    if told and before.get("instruction") != card.get("instruction"):
        raise UsageError(
            f"The examples of {name} were encoded under another instruction.",
            "Give the card another name, or build the index anew.",
        )
    return {**card, EXAMPLES: before[EXAMPLES]} if EXAMPLES in before else card
