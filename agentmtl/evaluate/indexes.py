"""The index of an evaluation set: built once, found again by the hash of the data and of the settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentmtl.errors import IndexMissingError, UsageError
from agentmtl.evaluate.datasets import DataSet, without_titles
from agentmtl.index.batch import Progress
from agentmtl.index.manifest import DEFAULT_LEVELS, IndexSettings
from agentmtl.index.snapshot import Snapshot
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.schema import Document, Level
from agentmtl.trunk import load_encoder

DEFAULT_ROOT = Path("indexes") / "eval"


def silent(units: int) -> None:
    """Progress that nobody watches."""


def index_for(
    data: DataSet,
    root: Path = DEFAULT_ROOT,
    *,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    levels: Sequence[Level] = DEFAULT_LEVELS,
    titles: bool | None = None,
    progress: Progress = silent,
) -> Index:
    """The index of a set's documents under `root`, built where it is not there yet.

    `titles` None leaves them out where only some documents have one. An index that holds more levels
    than asked for serves too, since levels do not influence each other. A build that was broken off is
    taken up again. Raises what `Index.create` and `Index.add` raise.
    """
    loaded = load_encoder(encoder, backend=backend)
    titled = with_titles(data, titles)
    wanted = IndexSettings(encoder=loaded.identity, levels=tuple(levels))
    every = replace(wanted, levels=DEFAULT_LEVELS)
    documents = data.documents if titled else without_titles(data.documents)
    if set(levels) <= set(DEFAULT_LEVELS):
        found = _complete(root / folder_name(data, every, titled), loaded, backend, documents)
        if found is not None:
            return found
    folder = root / folder_name(data, wanted, titled)
    return _complete(folder, loaded, backend, documents) or _build(
        folder, loaded, backend, documents, wanted, progress
    )


def with_titles(data: DataSet, titles: bool | None) -> bool:
    """Whether titles are indexed: as asked, else only where all documents or none have one."""
    return not data.uneven_titles if titles is None else titles


def folder_name(data: DataSet, settings: IndexSettings, titled: bool) -> str:
    """`<name>-<12 digits of the corpus hash>-<8 digits of the settings' hash>`."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", data.name).strip(".") or "set"
    made_by = hashlib.sha256(f"{settings.fingerprint} titles={titled}".encode()).hexdigest()
    return f"{name}-{data.corpus_sha256[:12]}-{made_by[:8]}"


def _complete(
    folder: Path, encoder: EncoderSpec, backend: str, documents: Sequence[Document]
) -> Index | None:
    """The index in a folder, None where there is none or it lacks documents."""
    try:
        index = Index.open(folder, encoder=encoder, backend=backend)
    except IndexMissingError:
        return None
    return index if _document_count(index.snapshot) == _indexable(documents) else None


def _build(
    folder: Path,
    encoder: EncoderSpec,
    backend: str,
    documents: Sequence[Document],
    settings: IndexSettings,
    progress: Progress,
) -> Index:
    try:
        index = Index.open(folder, encoder=encoder, backend=backend)
    except IndexMissingError:
        index = Index.create(folder, encoder=encoder, backend=backend, levels=settings.levels)
    index.add(documents, progress=progress)
    if not _document_count(index.snapshot):
        raise UsageError("Every document of the set is empty.", "Give a corpus with texts.")
    return index


def _document_count(snapshot: Snapshot) -> int:
    return sum(1 for _ in snapshot.live_rows("SELECT row FROM documents"))


def _indexable(documents: Sequence[Document]) -> int:
    """Documents that an index takes: those with a text."""
    return sum(bool(document.text.strip()) for document in documents)
