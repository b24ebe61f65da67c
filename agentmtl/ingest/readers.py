"""From paths to documents: finds files, checks what each may cost, and hands it to the reader of its kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from agentmtl.ingest.clean import clean_line, clean_metadata, clean_text
from agentmtl.ingest.docx import check_archive, read_docx
from agentmtl.ingest.events import Event, FileRead, Skipped
from agentmtl.ingest.html import read_html
from agentmtl.ingest.limits import Limits, Refused, size_text
from agentmtl.ingest.pdf import check_streams, read_pdf
from agentmtl.ingest.plain import Parsed, read_markdown, read_plain
from agentmtl.ingest.tables import Record, document_of, read_csv, read_json, read_jsonl
from agentmtl.ingest.walk import Found, find, opened
from agentmtl.schema import Document

IsUnchanged = Callable[[str, str], bool]
_HASH_PIECE = 1024 * 1024
_MARKUP = frozenset({".md", ".html", ".htm"})
_STREAMED: Mapping[str, Callable[[BinaryIO, Limits], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
}


def _docx(data: bytes, limits: Limits) -> Parsed:
    check_archive(data, limits)
    return _parsed(lambda: read_docx(data))


def _pdf(data: bytes, limits: Limits) -> Parsed:
    check_streams(data, limits)
    return _parsed(lambda: read_pdf(data, limits))


def _parsed(parse: Callable[[], Parsed]) -> Parsed:
    """The result of a third-party parser, with whatever it raises turned into a reason."""
    try:
        return parse()
    except Refused:
        raise
    except Exception as error:
        # Parsers of foreign files raise anything at all, and one broken file must not end the build of the
        # others: the reason keeps the kind of error and its message.
        first = next(iter(str(error).splitlines()), "")
        raise Refused(f"cannot be parsed: {type(error).__name__}: {first[:200]}".rstrip(": ")) from error


_WHOLE: Mapping[str, Callable[[bytes, Limits], Parsed]] = {
    ".txt": lambda data, limits: read_plain(data),
    ".md": lambda data, limits: _parsed(lambda: read_markdown(data)),
    ".html": lambda data, limits: _parsed(lambda: read_html(data)),
    ".htm": lambda data, limits: _parsed(lambda: read_html(data)),
    ".docx": _docx,
    ".pdf": _pdf,
}
SUFFIXES = frozenset({*_WHOLE, *_STREAMED, ".json"})


def read_paths(
    paths: Sequence[str | Path],
    *,
    limits: Limits | None = None,
    is_unchanged: IsUnchanged | None = None,
) -> Iterator[Event]:
    """Documents of every readable file under `paths` (folders, files, glob patterns), in a fixed order.

    A stream: memory is bounded by one record of a .jsonl or .csv file, or by one file of another kind,
    plus eight bytes or so a record to notice a name that comes twice. Whatever cannot be read is a
    `Skipped` event; nothing but a missing path raises. `is_unchanged(file, sha256)` answering True means
    the file's records are known: its FileRead then says so and no Document comes.

    Raises IngestError, at the call, where a path does not exist or a pattern matches nothing.
    """
    return _read_all(find(paths, limits or Limits()), limits or Limits(), is_unchanged)


def _read_all(
    found: Iterator[Found | Skipped], limits: Limits, is_unchanged: IsUnchanged | None
) -> Iterator[Event]:
    seen = _Seen()
    for item in found:
        if isinstance(item, Skipped):
            yield item
        elif not seen.add(item.file):
            yield Skipped(item.file, "duplicate: another file of that name was read in this run")
        else:
            yield from _read_file(item, limits, is_unchanged, seen)


class _Seen:
    """Names met in this run, eight bytes each. Two names share a hash once in some 10^19 pairs."""

    def __init__(self) -> None:
        self._names: set[int] = set()

    def add(self, name: str) -> bool:
        """False when `name` was there before."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        before = len(self._names)
        self._names.add(int.from_bytes(digest, "big"))
        return len(self._names) > before


def _read_file(
    found: Found, limits: Limits, is_unchanged: IsUnchanged | None, seen: _Seen
) -> Iterator[Event]:
    try:
        suffix = _suffix(found.file)
        with opened(found) as stream:
            yield from _read_stream(stream, found.file, suffix, limits, is_unchanged, seen)
    except Refused as refusal:
        yield Skipped(found.file, refusal.reason)
    except OSError as error:  # the disk, not the content: reading stopped part-way, so no FileRead
        yield Skipped(found.file, f"cannot be read: {error.strerror or error}")


def _suffix(file: str) -> str:
    suffix = PurePosixPath(file).suffix.lower()
    if suffix not in SUFFIXES:
        raise Refused(f"unknown suffix {suffix!r}; known: {' '.join(sorted(SUFFIXES))}")
    return suffix


def _read_stream(
    stream: BinaryIO,
    file: str,
    suffix: str,
    limits: Limits,
    is_unchanged: IsUnchanged | None,
    seen: _Seen,
) -> Iterator[Event]:
    data = b"" if suffix in _STREAMED else _whole(stream, suffix, limits)
    sha256, size = _hash(stream)
    if size == 0:
        raise Refused("empty")
    if is_unchanged is not None and is_unchanged(file, sha256):
        yield FileRead(file, sha256, unchanged=True, documents=0)
        return
    documents = 0
    for event in _events(stream, data, file, suffix, sha256, limits):
        if isinstance(event, Document):
            if event.origin != file and not seen.add(event.origin):
                event = Skipped(
                    file, "duplicate: another record of that id was read in this run", event.origin
                )
            else:
                documents += 1
        yield event
    yield FileRead(file, sha256, unchanged=False, documents=documents)


def _whole(stream: BinaryIO, suffix: str, limits: Limits) -> bytes:
    limit = limits.markup_bytes if suffix in _MARKUP else limits.file_bytes
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise Refused(f"is larger than {size_text(limit)}")
    stream.seek(0)
    return data


def _hash(stream: BinaryIO) -> tuple[str, int]:
    digest = hashlib.sha256()
    while piece := stream.read(_HASH_PIECE):
        digest.update(piece)
    size = stream.tell()
    stream.seek(0)
    return digest.hexdigest(), size


def _events(
    stream: BinaryIO, data: bytes, file: str, suffix: str, sha256: str, limits: Limits
) -> Iterator[Document | Skipped]:
    if suffix in _WHOLE:
        yield _document(_WHOLE[suffix](data, limits), file, sha256, limits)
        return
    records = read_json(data, limits) if suffix == ".json" else _STREAMED[suffix](stream, limits)
    for record in records:
        yield document_of(record, file, sha256, limits)


def _document(parsed: Parsed, file: str, sha256: str, limits: Limits) -> Document:
    if len(parsed.text) > limits.text_chars:
        raise Refused(f"holds more than {limits.text_chars} characters of text")
    if not (text := clean_text(parsed.text)):
        raise Refused("empty")
    metadata = clean_metadata(parsed.metadata, limits)
    title = clean_line(parsed.title[:1_000])
    return Document(file, text, title, metadata, origin=file, file=file, file_sha256=sha256)
