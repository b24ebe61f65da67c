"""Vectors of one level of one segment, in FAISS.

`<level>.faiss` is always a Flat inner-product index: exact, mapped from disk, and the source of vectors
for merging. A factory string adds `<level>.ann.faiss` beside it; filtered searches and those with many
tombstones go to the flat file, so they stay exact.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import IndexDamagedError, UsageError
from agentmtl.index.files import FileEntry, new_file, write_file
from agentmtl.trunk.encoder import Vectors

MIN_ANN_UNITS = 5_000  # below it a flat scan is as fast, and IVF training has too little to go by
BLAS_QUERIES = 6  # queries in a batch from which on BLAS is faster, measured at 1k to 200k units
_FAISS_DEFAULT_THRESHOLD = 128_000
_BLOCK = 8_192  # vectors added at a time
_NTOTAL_AT = 8  # byte offset of ntotal in FAISS's header: fourcc (4), d (4), ntotal (8), …


def write_flat(path: Path, dimension: int, units: int, blocks: Iterable[Vectors]) -> FileEntry:
    """Write a FAISS IndexFlatIP file of `units` vectors, given in blocks (n, dimension), streamed.

    FAISS writes such a file as the header of an empty one, with two counts patched, and then the raw
    vectors; doing so here keeps the memory to one block. `open_index` cross-checks the result.
    """
    import faiss

    header = bytearray(faiss.serialize_index(faiss.IndexFlatIP(dimension)).tobytes())
    struct.pack_into("<q", header, _NTOTAL_AT, units)
    struct.pack_into("<Q", header, len(header) - 8, units * dimension)
    with new_file(path) as writer:
        writer.write(bytes(header))
        written = 0
        for block in blocks:
            writer.write(np.ascontiguousarray(block, np.float32).data.cast("B"))
            written += len(block)
        if written != units:
            raise ValueError(f"{written} vectors given, {units} promised")
        return writer.finish()


def ann_index(factory: str, flat: Any) -> Any:
    """A trained index by FAISS's factory string over the vectors of `flat`."""
    import faiss

    vectors = vectors_of(flat)
    try:
        index = faiss.index_factory(flat.d, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UsageError(
            f"FAISS does not know the factory string {factory!r}.", "Try Flat, HNSW32 or IVF256,Flat."
        ) from error
    if not index.is_trained:
        index.train(vectors)
    for start in range(0, len(vectors), _BLOCK):
        index.add(vectors[start : start + _BLOCK])
    return index


def write_index(path: Path, index: Any) -> FileEntry:
    """Write any FAISS index through our own writer, so that it is hashed and forced to disk."""
    import faiss

    return write_file(path, [faiss.serialize_index(index).data])


def open_index(path: Path, entry: FileEntry, dimension: int, units: int) -> Any:
    """Map a FAISS file whose hash was checked; cross-check what it says of itself."""
    import faiss

    # FAISS allocates what a file's header claims: never more than the file holds
    faiss.set_deserialization_vector_byte_limit(max(entry.size, 1 << 16))
    _set_blas_threshold(dimension)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexDamagedError(
            f"FAISS cannot read {path}.", "See which files: agentmtl index verify DIR", (str(path),)
        ) from error
    if (index.d, index.ntotal, index.metric_type) != (dimension, units, faiss.METRIC_INNER_PRODUCT):
        raise IndexDamagedError(
            f"{path} holds {index.ntotal} vectors of {index.d}; the manifest says {units} of {dimension}.",
            "See which files: agentmtl index verify DIR",
            (str(path),),
        )
    return index


def _set_blas_threshold(dimension: int) -> None:
    """Tell FAISS from how many queries on BLAS is faster than one query after the other.

    The threshold is compared with queries × dimension. Its default, 128,000, keeps batches of 300 queries
    from BLAS (six times slower); a small one sends single queries there (three to six times slower, and with
    last digits that depend on the size of the index). It is global, so the largest dimension counts.
    """
    import faiss

    wanted = BLAS_QUERIES * dimension
    ours = faiss.cvar.distance_compute_blas_threshold != _FAISS_DEFAULT_THRESHOLD
    if not ours or faiss.cvar.distance_compute_blas_threshold < wanted:
        faiss.cvar.distance_compute_blas_threshold = wanted


def vectors_of(flat: Any) -> Vectors:
    """A read-only view (n, d) of a flat index's vectors; nothing is copied. Keep `flat` alive."""
    import faiss

    if flat.ntotal == 0:
        return np.empty((0, flat.d), np.float32)
    view: Vectors = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    view.flags.writeable = False
    return view
