"""Proper names by capitalisation.

Meant for English and useful in other languages that capitalise names alone. In German, where every noun
has a capital, it finds too much; in scripts without capitals it finds nothing but the title. What it
gives are names as they are written: it does not know that "the Bard" is Shakespeare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from agentmtl.ingest.sentences import Span

MAX_TITLE_WORDS = 10
MAX_NAME_WORDS = 8

_UPPER = "A-Z" + "".join(c for c in map(chr, (*range(0xC0, 0x590), *range(0x1E00, 0x2000))) if c.isupper())
_SHORT = r"(?:St|Mt|Dr|Mr|Mrs|Ms|Jr|Sr|Prof|Gen|Col|Capt|Lt|Rev)\."
_WORD = rf"(?:(?:[{_UPPER}]\.)+(?:-[{_UPPER}]\.)*|{_SHORT}|[{_UPPER}]\w*(?:['’&-]\w+)*)"
_JOIN = (
    r"(?:of(?: the)?|the|de(?: la| los| las)?|del(?:la)?|di|da|do|dos|das|du|des|la|le|el|von(?: der)?|zu|"
    r"van(?: der| den| de)?|der|den|y|al|bin|ibn|ben|&)"
)
_NUMBER = r"(?: \d{1,4}(?![\w]|[.,]\d))"
_NAME = re.compile(rf"(?<![\w@#/.])(?:{_WORD})(?:\s(?:{_JOIN}\s)?(?:{_WORD}))*{_NUMBER}?")
_QUOTES = "\"'“”‘’«»([{*_-–— \t"
_PARENTHESES = re.compile(r"\s*\([^()]*\)\s*\Z")
_POSSESSIVE = re.compile(r"['’]s?\Z")
_KEEPS_STOP = re.compile(r"(?:^|.*[\s.])(?:\w\.|Jr\.|Sr\.)\Z", re.DOTALL)
_HONORIFICS = "dr mr mrs ms prof gen col capt lt rev"
_HONORIFIC = frozenset(_HONORIFICS.split())

# Capitalised in the middle of a sentence at times, or at its start always, and no name by themselves.
_COMMON_WORDS = """
a about above according across after afterwards again against ago all almost along already also although
always am among an and another any anyone are around as at away back be became because been before began
behind being below besides between beyond born both but by can cannot could despite did do does done
down due during each earlier early either else even eventually ever every everyone except few finally
following for former formerly fourth from further furthermore generally given had has have having he
hence her here hers herself him himself his how however i if in indeed initially instead into is it its
itself just late later latter less let like little many may me meanwhile might more moreover most mostly
much must my near nearly neither never nevertheless next no nobody none nor not nothing now of off often
on once one only onto or originally other others otherwise our out outside over own per perhaps
previously rather recently see several shall she should similarly since so some someone sometimes soon
still such subsequently than that the their them themselves then there thereafter therefore these they
this those though three through throughout thus to today together too toward towards two under unlike
until up upon us usually very was we well were what whatever when whenever where whereas wherever
whether which while who whom whose why will with within without would yes yet you your monday tuesday
wednesday thursday friday saturday sunday january february march april june july august september
october november december spring summer autumn winter jr sr st mt mr mrs ms dr prof sir madam chapter
section figure table page part note example isbn pdf html http https
"""
_COMMON = frozenset(_COMMON_WORDS.split())

# Part of many names, and of none by themselves.
_ALONE_WORDS = """
american british english french german italian spanish portuguese dutch belgian swiss austrian danish
swedish norwegian finnish russian polish czech hungarian romanian greek turkish indian pakistani chinese
japanese korean australian canadian mexican brazilian argentine irish scottish welsh african asian
european egyptian iranian israeli arab latin roman jewish christian catholic muslim king queen duke
duchess prince princess count countess baron baronet baroness emperor president lord lady director man
woman men women night day love war time god company west east north south western eastern northern
southern television tv member best la le el de new first second third last
"""
_NOT_ALONE = _COMMON | frozenset(_ALONE_WORDS.split())


def title_names(title: str) -> list[str]:
    """The names a title gives: itself, and itself without a parenthesis at its end. None for a sentence.

    A title counts as a name when it has 1 to 10 words, at least one letter that is not lower case or a
    digit, and no full stop or question mark at its end.
    """
    title = " ".join(title.split())
    wordy = 0 < len(title.split()) <= MAX_TITLE_WORDS
    if not wordy or title[-1] in ".?!:;" or not any(c.isalnum() and not c.islower() for c in title):
        return []
    return list(dict.fromkeys(name for name in (title, _PARENTHESES.sub("", title)) if name))


def proper_names(text: str, sentences: Sequence[Span], title: str = "") -> list[tuple[str, int, int]]:
    """Every mention of a proper name in `text`: (name, start, end), in order, none across sentences.

    A name is a run of capitalised words, joined by words such as "of", "the" and "von", with a number at
    its end if it has one. At the start of a sentence a capital proves nothing: common words are taken off
    there, and a single word counts only if it is capitalised inside a sentence or in the title, or is an
    acronym.
    """
    known = _known_words(text, sentences, title)
    mentions: list[tuple[str, int, int]] = []
    for start, end in sentences:
        if not text[start:end].isupper():  # shouted headings have no information in their capitals
            mentions.extend(_sentence_names(text, start, end, known))
    return mentions


class _Known:
    """Words of a document: those seen capitalised where a capital says something, and those in lower case."""

    def __init__(self, capitalised: frozenset[str], lower: frozenset[str]) -> None:
        self.capitalised = capitalised
        self.lower = lower


_TOKEN = re.compile(r"[^\W\d_]\w*")
_CAPITALISED = re.compile(rf"(?<=[a-z0-9,;] )[{_UPPER}]\w*")


def _known_words(text: str, sentences: Sequence[Span], title: str) -> _Known:
    inside = set(_CAPITALISED.findall(text))
    return _Known(
        frozenset(inside | set(_TOKEN.findall(title))),
        frozenset(token for token in _TOKEN.findall(text) if token[0].islower()),
    )


def _sentence_names(text: str, start: int, end: int, known: _Known) -> Iterator[tuple[str, int, int]]:
    for match in _NAME.finditer(text, start, end):
        at_start = not text[start : match.start()].strip(_QUOTES)
        trimmed = _trim(text, match.start(), match.end(), at_start, known)
        if trimmed is not None:
            begin, stop = trimmed
            yield " ".join(text[begin:stop].split()), begin, stop


_FIRST = re.compile(rf"(\S+?)\.?\s+(?:{_JOIN}\s+)?(?=[{_UPPER}])")


def _trim(text: str, start: int, end: int, at_start: bool, known: _Known) -> Span | None:
    """The span without common words before it and a possessive after it; None where no name is left."""
    original = start
    while (first := _FIRST.match(text, start, end)) and _drops(
        first[1], at_start and start == original, known
    ):
        start = first.end()
    end = _trim_end(text, start, end)
    name = text[start:end]
    words = name.split()
    if not 0 < len(words) <= MAX_NAME_WORDS or len(name) < 2:
        return None
    single = len(words) == 1 or (len(words) == 2 and words[1].isdigit())
    if single and not _single(words[0], at_start and start == original, known):
        return None
    return start, end


def _drops(word: str, sentence_start: bool, known: _Known) -> bool:
    lower = word.lower()
    if sentence_start:
        return lower in _DROPPED_FIRST or (lower in known.lower and word not in known.capitalised)
    return lower in _HONORIFIC or (lower in _DROPPED_FIRST and lower != "the")


_DROPPED_FIRST = _COMMON | _HONORIFIC


def _trim_end(text: str, start: int, end: int) -> int:
    name = text[start:end]
    if possessive := _POSSESSIVE.search(name):
        name = name[: possessive.start()]
    if name.endswith(".") and not _KEEPS_STOP.match(name):
        name = name[:-1]
    return start + len(name.rstrip())


def _single(word: str, sentence_start: bool, known: _Known) -> bool:
    """Whether one capitalised word is a name: no common word, and not only a sentence's first."""
    bare = word.rstrip(".")
    if bare.lower() in _NOT_ALONE or len(bare) < 2 or bare.lower() in _HONORIFIC:
        return False
    acronym = bare.isupper() and not bare.isdigit()
    return not sentence_start or acronym or (bare in known.capitalised and bare.lower() not in known.lower)
