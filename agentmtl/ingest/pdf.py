"""PDF files."""

from __future__ import annotations

import io
import logging
import re
import zlib
from typing import TYPE_CHECKING

from agentmtl.ingest.limits import InflationMeter, Limits, Refused
from agentmtl.ingest.plain import Parsed, lone_first_line

if TYPE_CHECKING:
    from pypdf import PdfReader

_STREAM = re.compile(rb"(?<!end)stream\r?\n")
_NESTED = re.compile(rb"/(?:FlateDecode|Fl)\b\s*/(?:FlateDecode|Fl)\b")
_CHUNK = 65_536
_DICTIONARY = 2_048  # bytes before a stream in which its dictionary is looked for
_BROKEN_WORD = re.compile(r"(?<=[a-z])-\n(?=[a-z])")


def check_streams(data: bytes, limits: Limits) -> None:
    """Inflates every deflated stream of the file in pieces, without keeping it; raises Refused.

    Image streams are passed over: text extraction does not decode them, and scans are large. What this
    scan cannot see (other filters, encrypted files, a stream mislabelled as an image) is bounded for each
    stream by the parser's own limits, which `read_pdf` sets.
    """
    meter = InflationMeter(limits, len(data))
    view = memoryview(data)
    for match in _STREAM.finditer(data):
        dictionary = data[max(0, match.start() - _DICTIONARY) : match.start()].rpartition(b"obj")[2]
        if _NESTED.search(dictionary):
            raise Refused("holds a stream that is compressed twice")
        if b"/Image" not in dictionary and _is_zlib(data, match.end()):
            _inflate(view[match.end() :], meter)


def _is_zlib(data: bytes, at: int) -> bool:
    """RFC 1950: method 8, and the first two bytes are a multiple of 31."""
    header = data[at : at + 2]
    return len(header) == 2 and header[0] & 15 == 8 and int.from_bytes(header, "big") % 31 == 0


def _inflate(view: memoryview, meter: InflationMeter) -> None:
    inflater = zlib.decompressobj()
    for at in range(0, len(view), _CHUNK):
        piece: bytes | memoryview = view[at : at + _CHUNK]
        while piece:
            try:
                meter.add(len(inflater.decompress(piece, 16 * _CHUNK)))
            except zlib.error:
                return  # the parser will meet the same fault, and says it better
            piece = inflater.unconsumed_tail
        if inflater.eof:
            return


def read_pdf(data: bytes, limits: Limits) -> Parsed:
    """A .pdf file that `check_streams` has passed: the text layer, pages apart by a blank line.

    A word broken by a hyphen at the end of a line is joined. The title is the one in its properties, else
    a first line that stands alone. Raises Refused for an encrypted file (unless its password is empty)
    and for one without text, such as a scan.
    """
    import pypdf

    logging.getLogger("pypdf").addHandler(logging.NullHandler())  # its remarks are not for stderr
    cap = limits.inflated_bytes
    with pypdf.apply_configuration(
        zlib_maximum_output_length=cap,
        lzw_maximum_output_length=cap,
        run_length_maximum_output_length=cap,
        brotli_maximum_output_length=cap,
        array_based_stream_maximum_output_length=cap,
        stream_filters_maximum_length=3,
        jbig2dec_binary=None,  # starts no other program
    ):
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("is encrypted; save it without a password")
        text = _BROKEN_WORD.sub("", _pages(reader, limits))
        title = reader.metadata.title if reader.metadata else ""
    if not text.strip():
        raise Refused("holds no text (a scan needs character recognition first)")
    return Parsed(text, title or lone_first_line(text))


def _pages(reader: PdfReader, limits: Limits) -> str:
    count = len(reader.pages)
    if count > limits.pdf_pages:
        raise Refused(f"has {count} pages, more than {limits.pdf_pages}")
    texts: list[str] = []
    total = 0
    for page in reader.pages:
        text = page.extract_text().strip()
        total += len(text)
        if total > limits.text_chars:
            raise Refused(f"holds more than {limits.text_chars} characters of text")
        texts.append(text)
    return "\n\n".join(text for text in texts if text)
