"""The dense channel: exact inner products over FAISS, segment by segment.

Two traps are avoided. A cut at k inside a group of equal scores would make the result depend on the order
in which units were added: one more than k is asked for, and a tie at the cut is followed to its end. A
selector makes FAISS leave its BLAS path for batches: with few deleted units, more candidates are fetched
and the deleted ones dropped; only where that leaves too few does the selector come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agentmtl.index.live import LevelView
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.vectors import vectors_of
from agentmtl.retrieval.masks import Allowed
from agentmtl.retrieval.ranking import EMPTY, Floats, Numbers, Ranking, best, is_tied
from agentmtl.schema import Level
from agentmtl.trunk.encoder import Vectors

SPARE = 16  # more than k fetched where units are deleted
ANN_DEPTH = 4  # times k fetched from an approximate index, then scored exactly

_Found = tuple[Floats, Numbers]  # scores descending, positions


def search(
    snapshot: Snapshot, level: Level, queries: Vectors, k: int, allowed: Mapping[int, Allowed] | None = None
) -> list[Ranking]:
    """The k best units of `level` for each row of `queries` (n, d): one `Ranking` a row."""
    views = snapshot.views(level)
    if len(views) == 1:  # the common case, with no merging
        view = views[0]
        number = view.number
        rows = _search_view(view, queries, k, allowed[number] if allowed is not None else None)
        return [_one_view(snapshot, level, number, found, k) for found in rows]
    if not views:
        return [EMPTY] * len(queries)
    per_view = [
        (v.number, _search_view(v, queries, k, allowed[v.number] if allowed is not None else None))
        for v in views
    ]
    return [_merged(snapshot, level, [(n, rows[q]) for n, rows in per_view], k) for q in range(len(queries))]


def _one_view(snapshot: Snapshot, level: Level, number: int, found: _Found, k: int) -> Ranking:
    scores, positions = found
    if is_tied(scores):
        return _merged(snapshot, level, [(number, found)], k)
    positions = positions[:k]
    return Ranking(scores[:k], np.full(len(positions), number, np.int64), positions)


def _merged(snapshot: Snapshot, level: Level, found: list[tuple[int, _Found]], k: int) -> Ranking:
    scores = np.concatenate([s for _, (s, _) in found])
    positions = np.concatenate([p for _, (_, p) in found])
    segments = np.repeat([n for n, _ in found], [len(s) for _, (s, _) in found]).astype(np.int64)
    return best(scores, segments, positions, k, lambda n, p: snapshot.id_of(level, (n, p)))


def _search_view(view: LevelView, queries: Vectors, k: int, allowed: Allowed | None) -> list[_Found]:
    """At least the k best of the view for each query, and all that tie with the k-th."""
    if allowed is not None:
        return _selected(view, queries, k, allowed)
    if view.files.ann is not None and len(view.dead) < view.files.units // 4:
        return [_approximate(view, query, k) for query in queries]
    spare = SPARE if len(view.dead) else 0
    fetch = min(view.files.units, k + 1 + spare)
    scores, positions = view.files.flat.search(queries, fetch)
    rows = []
    for q in range(len(queries)):
        found = _live(view, scores[q], positions[q])
        complete = fetch == view.files.units or (len(found[0]) > k and found[0][k] < found[0][k - 1])
        rows.append(found if complete else _deeper(view, queries[q : q + 1], k, None))
    return rows


def _live(view: LevelView, scores: Floats, positions: Numbers) -> _Found:
    if not len(view.dead):
        return scores, positions
    keep = view.alive[positions]
    return scores[keep], positions[keep]


def _selected(view: LevelView, queries: Vectors, k: int, allowed: Allowed) -> list[_Found]:
    count = allowed.count
    fetch = min(count, k + 1)
    if fetch == 0:
        return [(EMPTY.scores, EMPTY.positions)] * len(queries)
    scores, positions = view.files.flat.search(queries, fetch, params=allowed.parameters)
    return [
        (scores[q], positions[q])
        if fetch == count or scores[q][k] < scores[q][k - 1]
        else _deeper(view, queries[q : q + 1], k, allowed)
        for q in range(len(queries))
    ]


def _deeper(view: LevelView, query: Vectors, k: int, allowed: Allowed | None) -> _Found:
    """Search again, deeper each time, until the k-th score is past its ties."""
    admitted = allowed or Allowed(view.alive)
    fetch = k + 1
    while True:
        fetch = min(admitted.count, fetch * 4)
        if fetch == 0:
            return EMPTY.scores, EMPTY.positions
        scores, positions = view.files.flat.search(query, fetch, params=admitted.parameters)
        if fetch == admitted.count or scores[0][k - 1] > scores[0][-1]:
            return scores[0], positions[0]


def _approximate(view: LevelView, query: Vectors, k: int) -> _Found:
    """Candidates of the approximate index, scored exactly."""
    fetch = min(view.files.units, k * ANN_DEPTH + SPARE)
    _, found = view.files.ann.search(query[None], fetch, params=_ann_parameters(view.files.ann, fetch))
    positions = found[0][found[0] >= 0]
    positions = np.sort(positions[view.alive[positions]])
    scores = score_positions(view, query, positions)
    order = np.argsort(-scores, kind="stable")
    return scores[order], positions[order]


def _ann_parameters(index: Any, fetch: int) -> Any:
    """A search effort that finds most neighbours; FAISS's own defaults (efSearch 16, nprobe 1) do not."""
    import faiss

    kind = faiss.downcast_index(index)
    if isinstance(kind, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=max(64, fetch))
    if isinstance(kind, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=max(1, kind.nlist // 8))
    return None


def score_positions(view: LevelView, query: Vectors, positions: Numbers) -> Floats:
    """Inner products of `query` (d,) with the stored vectors at `positions`, as FAISS computes them."""
    import faiss

    scores = np.empty(len(positions), np.float32)
    wanted = np.ascontiguousarray(positions, np.int64)
    query = np.ascontiguousarray(query, np.float32)
    flat = view.files.flat
    vectors = vectors_of(flat)
    if len(wanted):
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(scores),
            faiss.swig_ptr(query),
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(wanted),
            flat.d,
            1,
            len(wanted),
        )
    return scores
