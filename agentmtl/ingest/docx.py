"""Word documents. The archive is inflated and measured in full before a parser sees it."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentmtl.ingest.limits import InflationMeter, Limits, Refused
from agentmtl.ingest.plain import Parsed

if TYPE_CHECKING:
    from docx.document import Document as WordDocument
    from docx.table import Table

_CHUNK = 65_536
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_DOCTYPE = b"<!DOCTYPE"


def check_archive(data: bytes, limits: Limits) -> None:
    """Inflates every member of the archive in pieces; raises Refused at the first limit passed.

    Only stored and deflated members are let in: the standard library inflates the other methods without
    a bound on the output of one call. Word's format forbids document type declarations, so one found in
    any member is an attempt at entity expansion.
    """
    if data.startswith(_OLE):
        raise Refused("is encrypted, or an old .doc file; save it as .docx without a password")
    meter = InflationMeter(limits, len(data))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > limits.entries:
                raise Refused(f"holds more than {limits.entries} members")
            for member in members:
                _check_member(archive, member, meter)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise Refused(f"is damaged or not a .docx file: {error}") from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, meter: InflationMeter) -> None:
    if member.flag_bits & 1:
        raise Refused("holds an encrypted member")
    if member.compress_type not in _METHODS:
        raise Refused("holds a member that is neither stored nor deflated")
    tail = b""
    with archive.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            meter.add(len(chunk))
            window = tail + chunk.replace(b"\0", b"")  # the same test serves UTF-16
            if _DOCTYPE in window and _is_xml(member.filename):
                raise Refused("holds an XML document type declaration")
            tail = window[-len(_DOCTYPE) :]


def _is_xml(name: str) -> bool:
    return name.lower().endswith((".xml", ".rels", ".vml"))


def read_docx(data: bytes) -> Parsed:
    """A .docx file that `check_archive` has passed: paragraphs apart by blank lines, table rows as lines.

    Its title is the one in its properties, else the first paragraph of a title or heading style.
    """
    import docx

    document = docx.Document(io.BytesIO(data))
    blocks = [block for block in _blocks(document) if block.strip()]
    return Parsed("\n\n".join(blocks), _title(document))


def _blocks(document: WordDocument) -> Iterator[str]:
    from docx.table import Table

    for block in document.iter_inner_content():
        yield "\n".join(_rows(block)) if isinstance(block, Table) else block.text


def _rows(table: Table) -> Iterator[str]:
    for row in table.rows:
        cells: dict[int, str] = {}  # a merged cell is given once for each column it spans
        for cell in row.cells:
            cells.setdefault(id(cell._tc), " ".join(cell.text.split()))
        yield " | ".join(text for text in cells.values() if text)


def _title(document: WordDocument) -> str:
    if title := str(document.core_properties.title or ""):
        return title
    for paragraph in document.paragraphs[:50]:
        style = (paragraph.style.name if paragraph.style else "") or ""
        if style.startswith(("Title", "Heading")) and paragraph.text.strip():
            return paragraph.text
    return ""
