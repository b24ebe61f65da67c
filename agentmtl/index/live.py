"""Which units of a segment are deleted. Segments never change; tombstones say what to leave out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import IndexDamagedError
from agentmtl.index.files import FileEntry
from agentmtl.index.manifest import canonical_json
from agentmtl.index.segment import LevelFiles, Segment
from agentmtl.index.trust import Trust

DOCUMENTS = "documents"  # the key of deleted document rows, beside the levels
Positions = NDArray[np.int64]
NONE: Positions = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Dead:
    """Deleted positions of a segment by level, and under "documents" the deleted rows; all ascending."""

    positions: Mapping[str, Positions] = field(default_factory=dict)

    def at(self, level: str) -> Positions:
        return self.positions.get(level, NONE)

    def has(self, level: str, position: int) -> bool:
        dead = self.at(level)
        i = int(np.searchsorted(dead, position))
        return i < len(dead) and int(dead[i]) == position

    def union(self, more: Mapping[str, Iterable[int]]) -> Dead:
        merged = dict(self.positions)
        for level, positions in more.items():
            merged[level] = np.union1d(self.at(level), np.fromiter(positions, np.int64))
        return Dead(merged)

    def alive(self, level: str, units: int) -> Positions:
        """The positions that are left, of `units` in all."""
        return np.setdiff1d(np.arange(units, dtype=np.int64), self.at(level), assume_unique=True)


NOBODY = Dead()


def tombstone_bytes(dead: Mapping[str, Mapping[str, Iterable[int]]]) -> bytes:
    """A tombstone file: {segment: {level: [positions]}}."""
    return canonical_json(
        {s: {level: sorted(map(int, p)) for level, p in d.items()} for s, d in dead.items()}
    )


def read_tombstones(folder: Path, files: Mapping[str, FileEntry], trust: Trust) -> dict[str, Dead]:
    """The deleted units of every segment, from all tombstone files of a generation."""
    found: dict[str, Dead] = {}
    for name, entry in files.items():
        trust.check(folder / name, entry)
        try:
            raw = (folder / name).read_bytes()
        except OSError as error:  # gone between the check and now
            raise IndexDamagedError.of_file(name, f"cannot be read ({error.strerror})") from error
        for segment, dead in json.loads(raw).items():
            found[segment] = found.get(segment, NOBODY).union(dead)
    return found


class LevelView:
    """A level of a segment as one generation sees it. `number` is the segment's place in the snapshot."""

    def __init__(self, number: int, segment: Segment, files: LevelFiles, dead: Positions) -> None:
        self.number = number
        self.segment = segment
        self.files = files
        self.dead = dead
        self.units = files.units - len(dead)  # live ones

    @cached_property
    def words(self) -> int:
        """Words of the live units."""
        return self.files.words - int(self.files.postings.lengths[self.dead].sum())

    @cached_property
    def alive(self) -> NDArray[np.bool_]:
        """(units,) bool, False for deleted ones."""
        mask = np.ones(self.files.units, np.bool_)
        mask[self.dead] = False
        return mask

    @cached_property
    def alive_selector(self) -> Any:
        """A FAISS selector of the live units."""
        return bitmap_selector(self.alive)


def bitmap_selector(mask: NDArray[np.bool_]) -> Any:
    """FAISS search parameters that admit exactly the positions where `mask` is True."""
    import faiss

    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
