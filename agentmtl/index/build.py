"""From documents or files to an index: what was added, changed, left alone, dropped and skipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from agentmtl.errors import EncoderMismatchError, IngestError, UsageError
from agentmtl.index.batch import Progress
from agentmtl.index.instructions import Cards
from agentmtl.index.live import DOCUMENTS
from agentmtl.index.manifest import IndexSettings
from agentmtl.index.rows import FileNote, content_hash, content_of_file, metadata_json
from agentmtl.index.snapshot import Snapshot, is_unicode, read_current_settled
from agentmtl.index.store import Store
from agentmtl.index.transaction import Transaction
from agentmtl.ingest import FileRead, Limits, Skipped, covers, read_paths
from agentmtl.schema import Document
from agentmtl.trunk.encoder import Encoder, describe_mismatch


@dataclass
class BuildReport:
    """Counts of documents and files, and every file or record that was skipped with the reason."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    files: int = 0
    unchanged_files: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def count(self, outcome: str) -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)


def add_documents(
    transaction: Transaction, documents: Iterable[Document], *, only_known: bool = False
) -> BuildReport:
    """Put every document. `only_known` raises UsageError for a key that is not in the index."""
    report = BuildReport()
    for document in documents:
        if reason := unusable(document):
            report.skipped.append(Skipped(document.file, reason, document.key))
            continue
        if only_known and not transaction.has(document.key):
            raise UsageError(f"No document is called {document.key!r}.", "Use add for new documents.")
        report.count(transaction.put(document))
    return report


_HALF_A_PAIR = "holds half of a surrogate pair, which is not valid Unicode"


def unusable(document: Document) -> str:
    """Why an index cannot hold a document, "" where it can."""
    if not document.key or not document.text.strip():
        return "empty text or id"
    texts = (document.key, document.source_id, document.file, document.title, document.text)
    if not all(map(is_unicode, texts)):
        return _HALF_A_PAIR
    if any("\0" in text for text in texts):
        return "holds a NUL character"  # at which SQLite would cut a unit's text off
    try:
        metadata = metadata_json(document.metadata)
    except (TypeError, ValueError) as error:
        return f"metadata cannot be stored as JSON: {error}"
    return "" if is_unicode(metadata) else _HALF_A_PAIR


def add_paths(
    transaction: Transaction,
    paths: Sequence[str | Path],
    *,
    prune: bool = False,
    only_known: bool = False,
    limits: Limits | None = None,
    on_document: Callable[[Document], None] = lambda document: None,
) -> BuildReport:
    """Read files and put their documents; `on_document` sees each before it is put.

    `prune` deletes documents under `paths` whose file or record is gone; those of a file that is there but
    could not be read stay. `only_known` leaves new ones out.
    Raises IngestError when the paths give no document at all and the index has none from them either.
    """
    report = BuildReport()
    seen: set[str] = set()  # keys of the files that were read
    whole: set[str] = set()  # files that need not be read, or could not be to their end
    contents: dict[str, list[bytes]] = {}  # of the documents of the file that is being read
    for event in read_paths(paths, limits=limits or Limits(), is_unchanged=transaction.is_unchanged):
        if isinstance(event, Skipped):
            report.skipped.append(event)
            if not event.record:
                whole.add(event.file)  # it is there, so what came from it stays
            continue
        if isinstance(event, FileRead):
            _count_file(transaction, report, event, contents.pop(event.file, []), whole)
            continue
        contents.setdefault(event.file, []).append(content_hash(event))
        if only_known and not transaction.has(event.key):
            report.skipped.append(Skipped(event.file, "not in the index", event.key))
        else:
            seen.add(event.key)
            on_document(event)
            report.count(transaction.put(event))
    if prune:
        _prune(transaction, paths, seen, whole, report)
    if not report.files and not report.deleted and not report.unchanged_files:
        why = f" ({len(report.skipped)} skipped: {report.skipped[0].reason}, …)" if report.skipped else ""
        raise IngestError(f"Nothing to index in {', '.join(map(str, paths))}{why}.", _SUPPORTED)
    return report


_SUPPORTED = "Give .txt, .md, .html, .pdf, .docx, .csv, .json or .jsonl files, or a folder of them."


def _count_file(
    transaction: Transaction, report: BuildReport, event: FileRead, contents: list[bytes], whole: set[str]
) -> None:
    if event.unchanged:
        report.unchanged_files += 1
        report.unchanged += transaction.count_of_file(event.file)
        whole.add(event.file)
        return
    report.files += 1
    transaction.note_file(event.file, FileNote(event.sha256, content_of_file(contents)))


def _prune(
    transaction: Transaction,
    paths: Sequence[str | Path],
    seen: set[str],
    whole: set[str],
    report: BuildReport,
) -> None:
    doomed = [
        key
        for file, key in transaction.keys_by_file()
        if file not in whole and key not in seen and covers(paths, file)
    ]
    for key in doomed:
        report.deleted += transaction.delete(key)


def stored_documents(snapshot: Snapshot) -> Iterator[Document]:
    """Every live document as it was put, streamed: `_AT_ONCE` of them in memory at a time.

    `file_sha256` is not stored. A document's content hash is the same again.
    """
    for segment in snapshot.segments:
        last = -1
        while rows := segment.rows.query(_DOCUMENTS_SQL, [last, _AT_ONCE]):
            last = rows[-1][0]
            for row, key, source_id, file, title, metadata, text in rows:
                if not snapshot.dead_in(segment).has(DOCUMENTS, row):
                    origin = "" if key == source_id else key
                    yield Document(source_id, text, title, json.loads(metadata), origin=origin, file=file)


_AT_ONCE = 64
Settle: TypeAlias = Callable[[Cards, Iterable[Document], Encoder], Cards]
_DOCUMENTS_SQL = """
SELECT row, key, source_id, file, title, metadata, text FROM documents WHERE row > ? ORDER BY row LIMIT ?
"""


def rebuild(
    store: Store,
    settings: IndexSettings,
    encoder: Encoder,
    progress: Progress = lambda units: None,
    settle: Settle = lambda cards, documents, encoder: cards,
) -> BuildReport:
    """Make the index anew from its stored documents, with other settings or another encoder.

    `settle` gives the task cards to keep, which say how examples are encoded. The old generation answers
    until the new one is published, and stays where anything fails; running the same rebuild again then
    resumes. Raises what `Store.write` raises.
    """
    if not settings.encoder.same_vectors(encoder.identity):
        raise EncoderMismatchError(
            describe_mismatch(settings.encoder, encoder.identity), "Give settings with its identity."
        )
    read_current_settled(store.folder)  # raises where there is no index
    with store.write(settings, encoder, from_scratch=True, progress=progress) as transaction:
        base = store.open()
        for name, card in settle(base.manifest.tasks, stored_documents(base), encoder).items():
            transaction.put_task(name, card)
        report = add_documents(transaction, stored_documents(base))
        for segment in base.segments:
            for file, note in segment.rows.file_notes().items():
                transaction.note_file(file, note)
    return report
