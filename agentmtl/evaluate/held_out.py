"""Heads that have each not seen one fold of a set's questions, so that what was trained on a set can be
measured on it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from agentmtl.errors import UsageError
from agentmtl.retrieval.hops.model import fold_of
from agentmtl.trunk.heads import CARD, load_head

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Folds(Generic[T]):
    """`parts[f]` has not seen fold f of the questions."""

    parts: Sequence[T]

    def of(self, question_id: str) -> T:
        """The one that has not seen this question."""
        return self.parts[fold_of(question_id, len(self.parts))]


def open_folds(folder: Path, opened: Callable[[Path], T]) -> Folds[T]:
    """The heads fold-0, fold-1 … of a folder.

    Raises UsageError where there are none, or not all that they were trained with.
    """
    found = [path for path in folder.glob("fold-*") if (path / CARD).is_file()]
    parts = [folder / f"fold-{fold}" for fold in range(len(found))]
    if not found:
        raise UsageError(f"{folder} holds no heads fold-0, fold-1 ….", "Train them: agentmtl train --help")
    if set(found) != set(parts) or any(load_head(p).card.recipe.get("folds") != len(parts) for p in parts):
        raise UsageError(f"{folder} does not hold all folds of its heads.", "Train those that are missing.")
    return Folds([opened(path) for path in parts])
