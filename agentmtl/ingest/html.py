"""HTML pages."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentmtl.ingest.limits import Refused
from agentmtl.ingest.plain import Parsed, decode

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_DROPPED = frozenset(
    ("script", "style", "nav", "noscript", "template", "svg", "iframe", "head", "button", "select")
)
_BLOCKS = (
    *("p", "div", "section", "article", "main", "header", "footer", "aside", "blockquote", "figure"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "pre", "address", "form", "hr", "body"),
)
_LINES = ("li", "tr", "br", "dt", "dd", "caption", "figcaption", "option")
# Separators that cannot be taken for text: the white space of the markup itself means nothing.
_BLOCK, _LINE = "\x1e", "\x1f"
_BEFORE = {**dict.fromkeys(_BLOCKS, _BLOCK), **dict.fromkeys(_LINES, _LINE)}
_AFTER = {**_BEFORE, "td": " | ", "th": " | "}
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w:.-]{1,40})", re.IGNORECASE)


def read_html(data: bytes) -> Parsed:
    """A .html file as text: blocks apart by blank lines; scripts, styles and navigation left out.

    Its title is that of the page, else its first h1. Bytes are UTF-8, or what the page declares.
    """
    return text_of(_decode(data))


def _decode(data: bytes) -> str:
    try:
        return decode(data)
    except Refused:
        declared = _CHARSET.search(data[:2048])
        if declared is None:
            raise
        return _declared_text(data, declared[1].decode("ascii", "replace"))


def _declared_text(data: bytes, encoding: str) -> str:
    try:
        return str(data, encoding)
    except (LookupError, UnicodeError, ValueError) as error:
        raise Refused(f"is neither UTF-8 nor {encoding}, which it declares") from error


def text_of(markup: str) -> Parsed:
    """The readable text of `markup` and its title."""
    from bs4 import BeautifulSoup

    # libxml2 takes time linear in the page; the standard library's parser takes hours for 1 MB of "<a ".
    with warnings.catch_warnings():  # its warnings are about likely slips of a programmer
        warnings.simplefilter("ignore")
        soup = BeautifulSoup(markup.replace(_BLOCK, "").replace(_LINE, ""), "lxml")
    return Parsed(_layout("".join(_pieces(soup))), _title(soup))


def _title(soup: BeautifulSoup) -> str:
    for name in ("title", "h1"):
        tag = soup.find(name)
        if tag is not None and (text := " ".join(tag.get_text().split())):
            return text
    return ""


def _pieces(soup: BeautifulSoup) -> Iterator[str]:
    """Strings of the page with separators around blocks, in one pass: a page may be nested without end."""
    from bs4.element import CData, NavigableString, Tag

    open_tags: list[Tag] = []
    dropped = kept_lines = 0  # how many of the open tags are not to be read, and how many are <pre>
    for element in soup.descendants:
        while open_tags and open_tags[-1] is not element.parent:
            closed = open_tags.pop()
            dropped -= closed.name in _DROPPED
            kept_lines -= closed.name == "pre"
            yield _AFTER.get(closed.name, "")
        if isinstance(element, Tag):
            open_tags.append(element)
            dropped += element.name in _DROPPED
            kept_lines += element.name == "pre"
            yield _BEFORE.get(element.name, "")
        elif not dropped and type(element) in (NavigableString, CData):  # not a comment or a declaration
            yield str(element).replace("\n", _LINE) if kept_lines else str(element)


def _layout(text: str) -> str:
    blocks = ([" ".join(line.split()) for line in block.split(_LINE)] for block in text.split(_BLOCK))
    filled = ("\n".join(line for line in lines if line) for lines in blocks)
    return "\n\n".join(block for block in filled if block)
