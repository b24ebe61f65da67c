"""How much one file may cost, and the one exception by which a reader declines it."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on what is read. Reaching one skips the file or the record, with the reason in the report."""

    file_bytes: int = 256 * MIB  # a file that is read whole (all but .jsonl and .csv, which stream)
    markup_bytes: int = 16 * MIB  # a .md or .html file: their parsers are slow and hold many times its size
    inflated_bytes: int = 256 * MIB  # all that a .docx or a .pdf unpacks to, measured while inflating
    ratio: int = 200  # inflated bytes / file bytes, looked at once `ratio_floor_bytes` have come out
    ratio_floor_bytes: int = 16 * MIB  # small files of blanks compress well and do no harm
    entries: int = 10_000  # members of a .docx archive
    line_bytes: int = 64 * MIB  # one line of a .jsonl file, one row of a .csv file
    text_chars: int = 64 * MIB  # characters of text taken from one file or record
    metadata_chars: int = 65_536  # characters of one metadata value; a longer one is left out
    json_depth: int = 64  # nested brackets in one JSON value
    pdf_pages: int = 5_000
    folder_depth: int = 64  # folders within folders


class Refused(Exception):
    """A file or record that is not read. Stays inside this package: it becomes a `Skipped` event."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def size_text(count: int) -> str:
    """`count` bytes for a person to read: "1.5 MiB"."""
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count} bytes"


class InflationMeter:
    """Counts bytes as they come out of a decompressor; raises `Refused` at the first one too many.

    Sizes declared inside an archive are never consulted, since the author of a bomb writes those too.
    """

    def __init__(self, limits: Limits, compressed: int) -> None:
        self._limits = limits
        self._compressed = max(compressed, 1)
        self.total = 0

    def add(self, count: int) -> None:
        self.total += count
        if self.total > self._limits.inflated_bytes:
            raise Refused(f"unpacks to more than {size_text(self._limits.inflated_bytes)}")
        over_floor = self.total > self._limits.ratio_floor_bytes
        if over_floor and self.total > self._limits.ratio * self._compressed:
            raise Refused(f"unpacks to more than {self._limits.ratio} times its size")
