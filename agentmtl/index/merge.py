"""Making one segment of several, without their deleted units and without encoding anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.files import FileEntry
from agentmtl.index.live import DOCUMENTS, Dead, Positions
from agentmtl.index.manifest import IndexSettings
from agentmtl.index.postings import merge_postings
from agentmtl.index.rows import LEVEL_NUMBER, DocumentRow, FileNote, RowsBuilder, UnitRow
from agentmtl.index.segment import LevelParts, Segment, write_segment
from agentmtl.index.vectors import vectors_of
from agentmtl.schema import Level
from agentmtl.trunk.encoder import Vectors

MERGED_UNITS = 131_072  # units of a merged segment, over all levels (200 MB of vectors at 384 dimensions)
MAX_SMALL = 8  # segments well below that size a generation may have before they are merged
_ROWS_AT_ONCE = 1_000
_VECTORS_AT_ONCE = 4_096

DeadIn = Callable[[Segment], Dead]
KeepsNote = Callable[[str, FileNote], bool]  # a file's name and note


@dataclass(frozen=True, slots=True)
class _Source:
    segment: Segment
    dead: Dead
    document_rows: Positions  # live ones, ascending


def live_units(segment: Segment, dead: Dead) -> int:
    return sum(counts.units - len(dead.at(level)) for level, counts in segment.manifest.levels.items())


def groups(segments: Sequence[Segment], dead_in: DeadIn) -> list[list[Segment]]:
    """Neighbouring segments packed so that each group has at most `MERGED_UNITS` live units."""
    packed: list[list[Segment]] = []
    room = 0
    for segment in segments:
        units = live_units(segment, dead_in(segment))
        if not packed or units > room:
            packed.append([])
            room = MERGED_UNITS
        packed[-1].append(segment)
        room -= units
    return packed


def merge_segments(
    folder: Path,
    base: str,
    settings: IndexSettings,
    segments: Sequence[Segment],
    dead_in: DeadIn,
    keeps_note: KeepsNote,
) -> FileEntry | None:
    """Write what is live in `segments` as the new segment `folder`; None when nothing is.

    An entity may outlive the documents of its segment: it stays while another segment mentions it.
    Memory: one block of vectors and of rows at a time, beside the merged postings and database.
    """
    sources = [_source(s, dead_in(s)) for s in segments]
    notes = {f: n for s in segments for f, n in s.rows.file_notes().items() if keeps_note(f, n)}
    if not notes and not any(live_units(s.segment, s.dead) for s in sources):
        return None
    builder = RowsBuilder()
    _copy_documents(builder, sources)
    builder.add_files(notes)
    levels: dict[Level, LevelParts] = {}
    for level in settings.stored_levels:
        parts = _merge_level(builder, level, sources)
        if parts is not None:
            levels[level] = parts
    _copy_mentions(builder, sources)
    documents = sum(len(s.document_rows) for s in sources)
    return write_segment(folder, base, settings, builder.finish(), documents, levels)


def _source(segment: Segment, dead: Dead) -> _Source:
    return _Source(segment, dead, dead.alive(DOCUMENTS, segment.manifest.documents))


def _copy_documents(builder: RowsBuilder, sources: Sequence[_Source]) -> None:
    new = 0
    for source in sources:
        for chunk in _chunks(source.document_rows, _ROWS_AT_ONCE):
            columns = ",".join(DocumentRow.__slots__)
            sql = f"SELECT {columns} FROM documents WHERE row IN ({{}}) ORDER BY row"
            rows = source.segment.rows.in_chunks(sql, [], [int(r) for r in chunk])
            builder.add_documents(DocumentRow(new + i, *row[1:]) for i, row in enumerate(rows))
            new += len(rows)


def _merge_level(builder: RowsBuilder, level: Level, sources: Sequence[_Source]) -> LevelParts | None:
    have = [s for s in sources if level in s.segment.levels]
    keep = [s.dead.alive(level, s.segment.levels[level].units) for s in have]
    if not sum(map(len, keep)):
        return None
    docs, new = [], 0
    renumbered = _document_renumbering(sources)
    for source, kept in zip(have, keep, strict=True):
        files = source.segment.levels[level]
        mine = np.append(renumbered[source.segment.name], -1)  # row -1 (an entity) stays -1
        docs.append(mine[files.docs[kept]].astype(np.int32))
        _copy_units(builder, level, source, kept, docs[-1], new)
        new += len(kept)
    files_kept = [(s.segment.levels[level], k) for s, k in zip(have, keep, strict=True)]
    return LevelParts(
        ids=np.concatenate([files.ids[kept] for files, kept in files_kept]),
        docs=np.concatenate(docs),
        postings=merge_postings([(files.postings, kept.astype(np.int32)) for files, kept in files_kept]),
        vectors=_vector_blocks([(files.flat, kept) for files, kept in files_kept]),
    )


def _document_renumbering(sources: Sequence[_Source]) -> dict[str, NDArray[np.int64]]:
    """Per segment: old document row → new one."""
    found, base = {}, 0
    for source in sources:
        renumber = np.full(source.segment.manifest.documents, -1, np.int64)
        renumber[source.document_rows] = np.arange(base, base + len(source.document_rows))
        found[source.segment.name] = renumber
        base += len(source.document_rows)
    return found


def _copy_units(
    builder: RowsBuilder, level: Level, source: _Source, kept: Positions, docs: NDArray[np.int32], base: int
) -> None:
    columns = ",".join(UnitRow.__slots__)
    sql = f"SELECT {columns} FROM units WHERE level = ? AND pos IN ({{}}) ORDER BY pos"
    done = 0
    for chunk in _chunks(kept, _ROWS_AT_ONCE):
        rows = source.segment.rows.in_chunks(sql, [LEVEL_NUMBER[level]], [int(p) for p in chunk])
        builder.add_units(
            level,
            (UnitRow(base + done + i, row[1], int(docs[done + i]), *row[3:]) for i, row in enumerate(rows)),
        )
        done += len(rows)


def _copy_mentions(builder: RowsBuilder, sources: Sequence[_Source]) -> None:
    base = 0
    for source in sources:
        if "passage" not in source.segment.levels:
            continue
        kept = source.dead.alive("passage", source.segment.levels["passage"].units)
        renumber = dict(zip(kept.tolist(), range(base, base + len(kept)), strict=True))
        sql = "SELECT entity, passage, start, end FROM mentions WHERE passage IN ({})"
        for chunk in _chunks(kept, _ROWS_AT_ONCE):
            rows = source.segment.rows.in_chunks(sql, [], [int(p) for p in chunk])
            builder.add_mentions((e, renumber[p], start, end) for e, p, start, end in rows)
        base += len(kept)


def _vector_blocks(sources: Sequence[tuple[object, Positions]]) -> Iterator[Vectors]:
    for flat, kept in sources:
        vectors = vectors_of(flat)
        for chunk in _chunks(kept, _VECTORS_AT_ONCE):
            yield vectors[chunk]


def _chunks(positions: Positions, size: int) -> Iterator[Positions]:
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def small(segments: Sequence[Segment], dead: Mapping[str, Dead]) -> list[Segment]:
    """The segments well below the size of a merged one."""
    return [s for s in segments if live_units(s, dead.get(s.name, Dead())) < MERGED_UNITS // 4]
