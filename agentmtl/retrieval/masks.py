"""From a `where` expression to the units it admits: a pre-filter, exact at any selectivity.

The expression is run as SQL once a generation; its result is kept as one boolean array a segment and
level, and as a FAISS selector, so that a filter seen before costs nothing more.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.filters import parse, to_sql
from agentmtl.index.live import DOCUMENTS, LevelView, bitmap_selector
from agentmtl.index.snapshot import Snapshot
from agentmtl.schema import Level

Mask = NDArray[np.bool_]
KEPT_FILTERS = 64  # expressions remembered a generation


@dataclass(frozen=True)
class Allowed:
    """The live units of one view that a filter admits. `mask` is (units,) bool, True for admitted."""

    mask: Mask

    @cached_property
    def count(self) -> int:
        return int(self.mask.sum())

    @cached_property
    def parameters(self) -> Any:
        """FAISS search parameters; the selector is kept alive with them."""
        import faiss

        return faiss.SearchParameters(sel=bitmap_selector(self.mask))


class Masks:
    """Filters of one generation, remembered. Safe to use from several threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._lock = Lock()
        self._found: OrderedDict[tuple[str, Level], dict[int, Allowed]] = OrderedDict()

    def allowed(self, where: str, level: Level) -> dict[int, Allowed]:
        """Segment number → admitted units of `level`. Raises FilterError."""
        key = (where, level)
        with self._lock:
            if key not in self._found:
                self._found[key] = self._evaluate(where, level)
                while len(self._found) > KEPT_FILTERS:
                    self._found.popitem(last=False)
            self._found.move_to_end(key)
            return self._found[key]

    def _evaluate(self, where: str, level: Level) -> dict[int, Allowed]:
        documents = self._documents(where)
        views = self._snapshot.views(level)
        if level == "entity":
            names = self._entities_in(documents)
            return {v.number: Allowed(_entity_mask(v, names)) for v in views}
        return {v.number: Allowed(documents[v.number][v.files.docs] & v.alive) for v in views}

    def _documents(self, where: str) -> list[Mask]:
        """For every segment, which document rows are live and admitted."""
        condition, values = to_sql(parse(where))
        masks = []
        for segment in self._snapshot.segments:
            mask = np.zeros(segment.manifest.documents, np.bool_)
            rows = segment.rows.query(f"SELECT row FROM documents WHERE {condition}", values)
            mask[[row for (row,) in rows]] = True
            mask[self._snapshot.dead_in(segment).at(DOCUMENTS)] = False
            masks.append(mask)
        return masks

    def _entities_in(self, documents: list[Mask]) -> set[bytes]:
        """The entities that an admitted document mentions."""
        names: set[bytes] = set()
        for view in self._snapshot.views("passage"):
            admitted = documents[view.number][view.files.docs] & view.alive
            rows = view.segment.rows.query("SELECT entity, passage FROM mentions")
            names |= {entity for entity, passage in rows if admitted[passage]}
        return names


def _entity_mask(view: LevelView, names: set[bytes]) -> Mask:
    ids = view.files.ids
    found = np.fromiter((ids[p].tobytes() in names for p in range(len(ids))), np.bool_, len(ids))
    return found & view.alive
