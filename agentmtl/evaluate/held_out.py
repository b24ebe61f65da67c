"""Heads that have each not seen one fold of a set's questions, so that what was trained on a set can be
measured on it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from agentmtl.errors import UsageError
from agentmtl.retrieval.hops.model import fold_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Folds(Generic[T]):
    """`parts[f]` has not seen fold f of the questions."""

    parts: Sequence[T]

    def of(self, question_id: str) -> T:
        """The one that has not seen this question."""
        return self.parts[fold_of(question_id, len(self.parts))]


def open_folds(folder: Path, opened: Callable[[Path], T]) -> Folds[T]:
    """The heads fold-0, fold-1 … of a folder. Raises UsageError where there are none."""
    found = sorted(folder.glob("fold-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if not found:
        raise UsageError(f"{folder} holds no heads fold-0, fold-1 ….", "Train them: agentmtl train --help")
    return Folds([opened(path) for path in found])
