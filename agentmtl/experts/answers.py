"""When two answers are the same answer."""

from __future__ import annotations

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARKS = re.compile(r"\s*\[\d+\]")


def normalise_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single blanks.

    As in Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def without_marks(text: str) -> str:
    """An answer without its citation marks."""
    return _MARKS.sub("", text)
