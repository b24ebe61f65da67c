"""Sentence boundaries by rules.

Written for English prose; tolerable for other languages in Latin, Greek and Cyrillic script, whose
abbreviations it does not know, and for scripts with a full stop of their own (Chinese, Japanese, Hindi,
Arabic). A script that has neither spaces nor full stops, such as Thai, is only cut to size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

MAX_SENTENCE_WORDS = 100
_CHARS_PER_WORD = 8  # of prose at most; text with fewer spaces is counted by its letters and signs
_CLOSERS = "\"'”’»)\\]}"
_OPENERS = "\"'“‘«([{¿¡*_`–—-"

# One candidate: a blank line, a line end, a full stop of another script, or a stop before white space.
_CANDIDATE = re.compile(
    rf"(?P<blank>\n[^\S\n]*\n)|(?P<line>\n)|(?P<full>[。！？｡।॥؟۔።]+[{_CLOSERS}」』）】]*)"
    rf"|(?P<stop>(?<![.!?…])[.!?…]++[{_CLOSERS}]*+)(?=\s)"
)
_NEXT = re.compile(rf"\s*[{re.escape(_OPENERS)}]*\s?[{re.escape(_OPENERS)}]*")
_LAST_TOKEN = re.compile(r"[^\s(\[\"“‘]*\Z")
_LIST_ITEM = re.compile(r"[^\S\n]*(?:[-*+•◦▪–]|\(?(?:\d{1,3}|[a-z])[.)])[^\S\n]")
_ENUMERATOR = re.compile(r"\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})[.)]")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+(?:-?[^\W\d_]\.)*")
_FOREIGN = re.compile(r"[\u0370-\u1fff\u2e80-\U0010ffff]")
_DENSE = re.compile(r"\w{1,4}|[^\w\s]")
_NEXT_WORD = re.compile(r"[^\W_]+")

# Never the end of a sentence: something always follows.
_OPEN_WORDS = """
mr mrs ms dr prof st mt ft gen col lt sgt capt cmdr adm maj rev hon gov sen rep pres messrs mme mlle fr
vs v e.g i.e cf viz no nos pp vol vols fig figs eq eqs ed eds ch sec art approx ca c b d r fl née aka op
jan feb mar apr jun jul aug sept sep oct nov dec
"""
_OPEN = frozenset(_OPEN_WORDS.split())
# The end only before a word that commonly starts a sentence.
_HALF_OPEN_WORDS = """
inc ltd co corp bros jr sr esq etc al ph.d m.d b.a m.a a.m p.m u.s u.k u.n d.c a.d b.c dept univ assn
ave blvd rd est p
"""
_HALF_OPEN = frozenset(_HALF_OPEN_WORDS.split())
_STARTERS_WORDS = """
the he she it they we this that these those there his her its their our in on at by from after before
when while although however since as but and if for with during under both many some most all no
"""
_STARTERS = frozenset(_STARTERS_WORDS.split())


def split_sentences(text: str, max_words: int = MAX_SENTENCE_WORDS) -> list[Span]:
    """Sentences of `text` as [start, end) offsets: in order, apart, trimmed, covering all but white space.

    A blank line ends a sentence, as does the end of a line that is a list item or a short heading. What
    is longer than `max_words` (see `word_count`) is cut at a clause or a space, or, failing that,
    anywhere. Linear in the length of the text.
    """
    sentences: list[Span] = []
    for start, end in _split(text):
        if end - start <= max_words or word_count(text[start:end]) <= max_words:
            sentences.append((start, end))
        else:
            sentences.extend(_cut(text, start, end, max_words))
    return sentences


def word_count(text: str) -> int:
    """The length of `text` in words, as limits count it: what is written without spaces counts by size.

    At least the number of white-space separated words. Where these are long (links, identifiers), pieces of
    four letters and single signs count 3/4 each; and each character beyond the Latin script adds 0.6, since
    an English word-piece vocabulary knows it only by itself. One such word is about 1.35 word pieces.
    """
    words = len(text.split())
    if len(text) > _CHARS_PER_WORD * words:
        words = max(words, len(_DENSE.findall(text)) * 3 // 4)
    return words if text.isascii() else words + int(0.6 * len(_FOREIGN.findall(text)))


def _split(text: str) -> Iterator[Span]:
    start = _skip_space(text, 0)
    for match in _CANDIDATE.finditer(text):
        if match.end() > start and _ends(text, start, match):
            yield start, start + len(text[start : match.end()].rstrip())
            start = _skip_space(text, match.end())
    if start < len(text):
        yield start, start + len(text[start:].rstrip())


_SPACE = re.compile(r"\s*")


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    if match.lastgroup == "line":
        return bool(_LIST_ITEM.match(text, match.end())) or _is_heading(text, start, match.start())
    return match.lastgroup != "stop" or _stop_ends(text, start, match)


def _is_heading(text: str, start: int, end: int) -> bool:
    """Text[start:end] is a whole line, short, and what follows does not carry it on."""
    if end - start > 80 or text.find("\n", start, end) >= 0 or text[end - 1] in ",;:-–—":
        return False
    at_line_start = text[max(0, start - 40) : start].rstrip(" \t")[-1:] in ("", "\n")
    follows = text[end + 1 : end + 2]
    return at_line_start and len(text[start:end].split()) <= 8 and not follows.islower()


def _stop_ends(text: str, start: int, match: re.Match[str]) -> bool:
    following = _NEXT.match(text, match.end())
    at = following.end() if following else match.end()
    if at < len(text) and text[at].islower():
        return False
    if text[match.start()] != "." or match.end() - match.start() > 1:
        return True
    return not _abbreviates(text, start, match.start(), at)


def _abbreviates(text: str, start: int, dot: int, at: int) -> bool:
    """Whether the full stop at `dot` belongs to the token before it rather than to the sentence."""
    found = _LAST_TOKEN.search(text, max(start, dot - 24), dot)
    token = found[0] if found else ""
    if dot - len(token) == start and _ENUMERATOR.fullmatch(token + "."):
        return True
    word = token.lower()
    if word in _OPEN and not (word in ("no", "b", "c", "d", "v", "r") and not _name_or_number(text, at)):
        return True
    if word in _HALF_OPEN or _INITIALS.fullmatch(token + "."):
        following = _NEXT_WORD.match(text, at)
        return following is not None and following[0].lower() not in _STARTERS
    return False


def _name_or_number(text: str, at: int) -> bool:
    """Whether "no." or "c." is an abbreviation here: a word follows that rarely starts a sentence."""
    following = _NEXT_WORD.match(text, at)
    return following is not None and following[0].lower() not in _STARTERS


def _cut(text: str, start: int, end: int, max_words: int) -> Iterator[Span]:
    """Pieces of text[start:end] of at most `max_words`, each as long as it can be."""
    while start < end:
        stop = _piece_end(text, start, end, max_words)
        trimmed = start + len(text[start:stop].rstrip())
        yield start, trimmed
        start = min(_skip_space(text, stop), end)


def _piece_end(text: str, start: int, end: int, max_words: int) -> int:
    stop = min(end, start + max_words * _CHARS_PER_WORD)
    while (size := word_count(text[start:stop])) > max_words:
        stop = start + max(1, min(stop - start - 1, (stop - start) * max_words // size))
    if stop == end:
        return end
    half = start + (stop - start) // 2
    clause = max(text.rfind(mark, half, stop) for mark in (", ", "; ", ": ", "\n", "，", "、"))
    space = max(text.rfind(" ", half, stop), text.rfind("\t", half, stop))
    at = max(clause + 1, 0) or max(space + 1, 0) or stop
    # Without the word after it a long one may count for more: fewer spaces, so by its size.
    return at if word_count(text[start:at].rstrip()) <= max_words else stop
