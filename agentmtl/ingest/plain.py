"""Plain text and Markdown files."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentmtl.ingest.limits import Refused
from agentmtl.schema import Metadata, MetadataValue, Scalar

if TYPE_CHECKING:
    from markdown_it.token import Token

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?", re.ASCII)
_FRONT_MATTER = re.compile(r"---[ \t]*\n((?:[^\n]*\n){0,200}?)---[ \t]*(?:\n|\Z)")
_FRONT_LINE = re.compile(r"([\w-]+)[ \t]*:[ \t]*(.*?)[ \t]*")
_MAX_TITLE_WORDS = 12


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a reader of whole files returns; not yet cleaned."""

    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)


def decode(data: bytes) -> str:
    """Text of `data`: UTF-8, or UTF-16 where a byte order mark says so. No encoding is ever guessed.

    Raises Refused, naming the offset in bytes of the first fault.
    """
    bom, encoding = next((pair for pair in _BOMS if data.startswith(pair[0])), (b"", "utf-8"))
    try:
        return data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8" else "UTF-16"
        raise Refused(f"is not valid {name} at byte {error.start + len(bom)}") from error


def number_or_text(text: str) -> Scalar:
    """A plain decimal number as a number, all else as it is: "1995" and "-0.5", but not "007" or "1e3"."""
    match = _NUMBER.fullmatch(text) if len(text) <= 18 else None
    if match is None:
        return text
    return float(text) if match[1] else int(text)


def read_plain(data: bytes) -> Parsed:
    """A .txt file. Its title is the first line where that stands alone and is short, else ""."""
    text = decode(data)
    return Parsed(text, lone_first_line(text))


def lone_first_line(text: str) -> str:
    """The first line if a blank line follows and it reads like a heading, else ""."""
    first, _, rest = text.strip()[:10_000].replace("\r\n", "\n").partition("\n")
    lone = bool(rest) and not rest.split("\n", 1)[0].strip()
    short = 0 < len(first.split()) <= _MAX_TITLE_WORDS and first.rstrip()[-1:] not in ".,;:"
    return first.strip() if lone and short else ""


def read_markdown(data: bytes) -> Parsed:
    """A .md file rendered to plain text (CommonMark and tables); its title is the first heading.

    Front matter is read where it is nothing but `key: value` lines between `---` lines: `title` sets the
    title, the rest becomes metadata (true, false and plain numbers typed, all else text). Any other form
    is left in the text.
    """
    text = decode(data).replace("\r\n", "\n").replace("\r", "\n")
    metadata, body = _front_matter(text)
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    title = metadata.pop("title", "") or _first_heading(tokens)
    return Parsed(_render(tokens), str(title), metadata)


def _front_matter(text: str) -> tuple[dict[str, MetadataValue], str]:
    match = _FRONT_MATTER.match(text)
    lines = [line for line in match[1].split("\n") if line.strip()] if match else []
    pairs = [_FRONT_LINE.fullmatch(line) for line in lines]
    if match is None or not pairs or None in pairs:
        return {}, text
    return {pair[1]: _front_value(pair[2]) for pair in pairs if pair}, text[match.end() :]


def _front_value(text: str) -> Scalar:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return {"true": True, "false": False}.get(text, number_or_text(text))


def _first_heading(tokens: list[Token]) -> str:
    starts = (i for i, token in enumerate(tokens) if token.type == "heading_open")
    return next((_inline(tokens[i + 1].children or ()) for i in starts), "")


def _render(tokens: list[Token]) -> str:
    """Blocks apart by a blank line; list items and table rows on lines of their own."""
    parts: list[str] = []
    for token in tokens:
        if token.type == "inline":
            parts.append(_inline(token.children or ()))
        elif token.type in ("fence", "code_block"):
            parts.append(token.content + "\n")
        elif token.type == "html_block":
            parts.append(_html_text(token.content) + "\n\n")
        else:
            parts.append(_BREAKS.get(token.type, ""))
    return re.sub(r"\n{3,}", "\n\n", "".join(parts))


_BREAKS = {
    "paragraph_close": "\n\n",
    "heading_close": "\n\n",
    "list_item_open": "- ",
    "th_close": " | ",
    "td_close": " | ",
    "tr_close": "\n",
    "table_close": "\n",
}


def _inline(children: Iterable[Token]) -> str:
    parts: list[str] = []
    for child in children:
        if child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif child.type in ("text", "code_inline", "image", "text_special"):
            parts.append(child.content)
    return "".join(parts)


def _html_text(markup: str) -> str:
    from agentmtl.ingest.html import text_of

    return text_of(markup).text
