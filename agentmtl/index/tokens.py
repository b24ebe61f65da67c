"""Words for the lexical channel: what counts as one, and how it is spelt.

Text is case-folded and stripped of combining accents (NFKD), so "Fernández" matches "fernandez". A word
is a run of Unicode letters and digits; a CJK ideograph or kana is a word of its own, since those scripts
do not write spaces. English plurals are folded by the S-stemmer (Harman, "How effective is suffixing?",
JASIS 42(1), 1991, table 1). Nothing is dropped as a stop word: BM25's idf already weighs it down.
"""

from __future__ import annotations

import re
import unicodedata

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_stems: dict[str, str] = {}
_STEM_CACHE = 500_000  # words; beyond it the cache starts anew, so that memory stays bounded


def words(text: str) -> list[str]:
    """The words of `text` in order, as the index spells them."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        if not text.isascii():
            text = "".join(c for c in text if not unicodedata.combining(c))
    found = _WORD.findall(text.casefold())
    if len(_stems) > _STEM_CACHE:
        _stems.clear()
    return [_stems.get(word) or _remember(word) for word in found]


def _remember(word: str) -> str:
    _stems[word] = stem = singular(word)
    return stem


def singular(word: str) -> str:
    """Harman's S-stemmer: -ies → -y, -es → -e, -s dropped, with its exceptions."""
    if len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith("ies"):
        return word if word.endswith(("eies", "aies")) else word[:-3] + "y"
    if word.endswith("es"):
        return word if word.endswith(("aes", "ees", "oes")) else word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]
