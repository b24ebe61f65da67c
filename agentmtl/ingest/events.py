"""What reading a set of paths reports, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentmtl.schema import Document


@dataclass(frozen=True, slots=True)
class Skipped:
    """One row of the build report. `record` is "" where the whole file was skipped."""

    file: str
    reason: str
    record: str = ""


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file was read to its end; follows its last Document. A file skipped whole has no FileRead.

    `documents` counts those emitted (0 for an unchanged file, whose records were not looked at).
    """

    file: str
    sha256: str
    unchanged: bool
    documents: int


Event: TypeAlias = Document | Skipped | FileRead
