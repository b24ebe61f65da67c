"""What the evidence and the question have in common, as numbers: the input of `experts.support`.

Only the cosines that retrieval computed anyway, and the words: no model is run. Three scopes are compared
with the question: the best sentence, that sentence with its neighbours, and its whole passage. What a
question asks about and no scope holds (a name, a number, a negation, "least" where the text says "most")
is the sign that it cannot be answered (Rajpurkar, Jia & Liang, "Know What You Don't Know", ACL 2018,
table 2, list those changes as how unanswerable questions were made from answerable ones).

English only in its word lists; elsewhere those features are 0 and the others remain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agentmtl.experts.support_words import (
    COUNTS,
    DATED,
    FUNCTION,
    GENERIC,
    NEGATIVE_PREFIXES,
    OPPOSITES,
    SUPERLATIVES,
)
from agentmtl.index.tokens import words
from agentmtl.ingest.sentences import split_sentences


@dataclass(frozen=True, slots=True)
class SentenceEvidence:
    """A retrieved sentence, its cosine with the question, and which of the passages holds it."""

    text: str
    cosine: float
    passage: int = 0


@dataclass(frozen=True, slots=True)
class PassageEvidence:
    """A retrieved passage. `cosine` with the question is None where only its words were found."""

    text: str
    cosine: float | None = None
    title: str = ""


_NEGATION = re.compile(
    r"n['’]t\b|\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|except|unlike|unable"
    r"|refus\w*|fail\w*|lack\w*|avoid\w*|isnt|wasnt|doesnt|didnt|besides|aside|other than)\b",
    re.IGNORECASE,
)
_SUFFIX = re.compile(r"(?<=\w{3})(?:ingly|edly|ies|ing|ed|es|ly|s|e|y)\Z")
_SURFACE = re.compile(r"[^\W_]+")
_YEAR = re.compile(r"\b(?:1\d{3}|20\d\d|\d{3,4}s)\b")
_NUMBER_NOUNS = r"(?:percent|number|amount|population)"
_ASKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("number", re.compile(r"\bhow (?:many|much|long|old|far|large|big|high|tall|often)\b")),
    ("number", re.compile(rf"\bwhat (?:is the )?{_NUMBER_NOUNS}")),
    ("date", re.compile(r"\bwhen\b|\b(?:what|which) (?:year|date|century|decade|month|day)\b")),
    ("name", re.compile(r"\bwh(?:o|om|ose|ere)\b|\b(?:what|which) (?:city|country|state|place)\b")),
)


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A word of `index.tokens.words` without its inflection; crude, and the same on both sides."""
    return _SUFFIX.sub("", word)


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in OPPOSITES:
        one, other = (stem(words(w)[0]) for w in pair)
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return {word: frozenset(others - {word}) for word, others in found.items()}


_OPPOSITE = _opposites()
_GENERIC_STEMS = frozenset(stem(w) for w in GENERIC)
_SUPERLATIVE_STEMS = frozenset(stem(w) for w in SUPERLATIVES)
_PREFIX = 5  # letters that make two stems the same word ("democrat", "democracy")
_REACH = 600  # characters searched for the neighbours of a sentence


@dataclass(frozen=True, slots=True)
class _Text:
    """A text taken apart once: stems in order, the set of them, neighbouring pairs."""

    raw: str
    stems: tuple[str, ...]
    held: frozenset[str]
    pairs: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, text: str) -> _Text:
        stems = tuple(stem(w) for w in words(text))
        return cls(text, stems, frozenset(stems), frozenset(zip(stems, stems[1:], strict=False)))


@dataclass(frozen=True, slots=True)
class _Question:
    text: _Text
    weights: dict[str, float]  # stem → idf, of content words
    names: tuple[str, ...]  # stems of capitalised words but the first
    numbers: tuple[str, ...]
    asks: str  # number | date | name | ""


def support_features(
    question: str,
    sentences: Sequence[SentenceEvidence],
    passages: Sequence[PassageEvidence],
    idf: Mapping[str, float],
) -> dict[str, float]:
    """Named features of a question and its evidence, all finite.

    `sentences` are best first, at least one; each names its passage by position in `passages`. `idf` maps
    the question's words, as `index.tokens.words` spells them, to their idf over passages; a word it lacks
    counts as the rarest it holds.
    """
    asked = _take_apart(question, idf)
    best = sentences[0]
    passage = passages[best.passage]
    sentence = _Text.of(best.text)
    whole = _Text.of(f"{passage.title} {passage.text}")
    window = frozenset(_Text.of(_window(passage.text, best.text)).held)
    top = frozenset[str]().union(*(_Text.of(s.text).held for s in sentences[:3]))
    return {
        **_cosines(sentences, passages, best),
        **_missing_words(asked, sentence.held, window, whole.held, top),
        **_missing_names(asked, sentence.held, whole.held),
        **_opposed(asked, sentence, whole),
        "sentence_type_missing": float(bool(asked.asks) and not _holds_type(asked, best.text)),
        "shared_pairs": len(asked.text.pairs & sentence.pairs) / max(len(asked.text.pairs), 1),
        "question_words": float(min(len(asked.text.stems), 40)),
        "sentence_words": math.log1p(len(sentence.stems)),
    }


def _take_apart(question: str, idf: Mapping[str, float]) -> _Question:
    rarest = max(idf.values(), default=1.0)
    weights: dict[str, float] = {}
    for word in words(question):
        if word not in FUNCTION:
            weights.setdefault(stem(word), idf.get(word, rarest))
    surface = _SURFACE.findall(question)
    named = [w for w in surface[1:] if w[0].isupper() and w.casefold() not in FUNCTION]
    numbers = [w for w in surface if any(c.isdigit() for c in w)]
    asks = next((name for name, pattern in _ASKS if pattern.search(question.casefold())), "")
    return _Question(_Text.of(question), weights, _stems(named), _stems(numbers), asks)


def _stems(surface: Sequence[str]) -> tuple[str, ...]:
    return tuple(stem(word) for text in surface for word in words(text))


def _window(passage: str, sentence: str) -> str:
    """The sentence with the one before and the one after; alone where the passage does not hold it."""
    at = passage.find(sentence)
    if at < 0:
        return sentence
    end = at + len(sentence)
    before = split_sentences(passage[max(0, at - _REACH) : at])[-1:]
    after = split_sentences(passage[end : end + _REACH])[:1]
    start = max(0, at - _REACH) + before[0][0] if before else at
    return passage[start : end + after[0][1] if after else end]


def _cosines(
    sentences: Sequence[SentenceEvidence], passages: Sequence[PassageEvidence], best: SentenceEvidence
) -> dict[str, float]:
    """Of the best sentence anywhere, of the passage that is quoted, and how far that one stands out."""
    known = sorted((p.cosine for p in passages if p.cosine is not None), reverse=True) or [0.0]
    own = passages[best.passage].cosine
    own = known[-1] if own is None else own
    return {
        "cosine_max": max(s.cosine for s in sentences),
        "passage_cosine": own,
        "passage_gap": own - next((c for c in known if c < own), own),
    }


def _missing_words(
    asked: _Question,
    sentence: frozenset[str],
    window: frozenset[str],
    passage: frozenset[str],
    top: frozenset[str],
) -> dict[str, float]:
    """Content words of the question that a scope lacks: their idf, or how many."""
    return {
        "sentence_coverage": _covered(asked, sentence),
        "sentence_rarest_missing": max(_specific(asked, sentence), default=0.0),
        "window_rarest_missing": max(_specific(asked, window), default=0.0),
        "passage_rarest_missing": max(_specific(asked, passage), default=0.0),
        "passage_missing": _capped(sum(not _holds(passage, s) for s in asked.weights), 8),
        "top_missing_specific": _capped(len(_specific(asked, top)), 8),
    }


def _covered(asked: _Question, held: frozenset[str]) -> float:
    total = sum(asked.weights.values()) or 1.0
    return sum(w for s, w in asked.weights.items() if _holds(held, s)) / total


def _specific(asked: _Question, held: frozenset[str]) -> list[float]:
    """The idf of the missing words, but for those that only say what kind of answer is wanted."""
    return [w for s, w in asked.weights.items() if s not in _GENERIC_STEMS and not _holds(held, s)]


def _capped(count: int, most: int = 4) -> float:
    return float(min(count, most))


def _holds(held: frozenset[str], stemmed: str) -> bool:
    if stemmed in held:
        return True
    head = stemmed[:_PREFIX]
    return len(head) == _PREFIX and any(other.startswith(head) for other in held)


def _missing_names(asked: _Question, sentence: frozenset[str], passage: frozenset[str]) -> dict[str, float]:
    return {
        "sentence_numbers_missing": _capped(sum(s not in sentence for s in asked.numbers)),
        "passage_numbers_missing": _capped(sum(s not in passage for s in asked.numbers)),
        "passage_names_missing": _capped(sum(s not in passage for s in asked.names)),
    }


def _opposed(asked: _Question, sentence: _Text, passage: _Text) -> dict[str, float]:
    """Signs that the question turns round what the text says."""
    mine = asked.text.held
    opposable = [s for s in mine if s in _OPPOSITE and s not in sentence.held]
    superlative = [s for s in mine if s in _SUPERLATIVE_STEMS and s not in passage.held]
    denied = bool(_NEGATION.search(asked.text.raw))
    return {
        "sentence_opposite": _capped(sum(bool(_OPPOSITE[s] & sentence.held) for s in opposable)),
        "sentence_opposable_missing": _capped(len(opposable)),
        "sentence_prefixed": _capped(sum(_prefixed(s, sentence.held) for s in asked.weights)),
        "passage_superlative_missing": _capped(len(superlative)),
        "denied": float(denied),
        "sentence_denied_alone": float(denied and not _NEGATION.search(sentence.raw)),
    }


def _prefixed(stemmed: str, held: frozenset[str]) -> bool:
    """The text holds "equal" where the question asks about "unequal", or the other way round."""
    if any(prefix + stemmed in held for prefix in NEGATIVE_PREFIXES):
        return True
    return any(
        stemmed.startswith(prefix) and len(stemmed) > len(prefix) + 3 and stemmed[len(prefix) :] in held
        for prefix in NEGATIVE_PREFIXES
    )


def _holds_type(asked: _Question, text: str) -> bool:
    """Whether the text offers what is asked for: a number, a date or a name the question does not have."""
    if asked.asks == "date" and (set(_YEAR.findall(text)) - set(asked.text.stems)):
        return True
    offered = [w for w in _SURFACE.findall(text)[1:] if stem(w.casefold()) not in asked.text.held]
    if asked.asks == "date":
        return any(w.casefold() in DATED for w in offered)
    if asked.asks == "number":
        return any(w.casefold() in COUNTS or any(c.isdigit() for c in w) for w in offered)
    return any(w[0].isupper() and w.casefold() not in FUNCTION for w in offered)
