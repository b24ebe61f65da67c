"""Questions made from plain text, to warm the reader up: no labels are needed.

A sentence of a passage loses a name or a number; what is left, with a question word in its place or in front
and some words dropped or moved, is the question, and the passage holds the answer (Lewis, Denoyer & Riedel,
arXiv 1906.04980: cloze questions with noise). Part of them get a name from elsewhere, which the passage does
not hold: these have no answer there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from agentmtl.evaluate.reading_examples import AnswerKind, ReadingExample, occurrences
from agentmtl.ingest.entities import proper_names
from agentmtl.ingest.sentences import split_sentences
from agentmtl.schema import Document

AROUND = 14  # words of the sentence that are kept around the answer
LEAST_WORDS = 7  # of a sentence
APART = 0.7  # of the others whose answer recurs are asked over the text without their own sentence
FALSE = 0.3  # of the questions get a name that makes them false
DROPPED = 0.12  # of the words
_NUMBER = re.compile(r"(?<![\w.,])\d[\d,.]*\d(?![\w])|(?<![\w.,])\d(?![\w.,])")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_NAME_WORDS = ("who", "what", "which person", "what place", "which one", "what is the name", "who", "what")
_YEAR_WORDS = ("when", "in what year", "what year")
_NUMBER_WORDS = ("how many", "how much", "what number")


@dataclass(frozen=True, slots=True)
class _Piece:
    """[start, end) of a name or number in a text."""

    start: int
    end: int
    name: bool


def cloze_examples(documents: Sequence[Document], count: int, seed: int = 0) -> list[ReadingExample]:
    """Up to `count` questions, one a document at most in each round, drawn with the seed."""
    random = Random(f"cloze:{seed}")
    order = list(documents)
    random.shuffle(order)
    names = [n for d in order[:2000] for n, _, _ in proper_names(d.text, split_sentences(d.text), d.title)]
    found: list[ReadingExample] = []
    for round_ in range(8):
        for document in order:
            if len(found) >= count or not names:
                return found
            found += _question(document, names, random, f"{document.source_id}/{round_}")
    return found


def _question(document: Document, names: Sequence[str], random: Random, id_: str) -> Iterator[ReadingExample]:
    text = document.text
    sentences = split_sentences(text)
    pieces = [_Piece(a, b, True) for _, a, b in proper_names(text, sentences, document.title)]
    pieces += [_Piece(*match.span(), False) for match in _NUMBER.finditer(text)]
    start, end = random.choice(sentences) if sentences else (0, 0)
    inside = [p for p in pieces if start <= p.start and p.end <= end]
    if len(text[start:end].split()) < LEAST_WORDS or not inside:
        return
    answer = random.choice(inside)
    others = [p for p in inside if p.name and (p.end <= answer.start or p.start >= answer.end)]
    before, after = text[start : answer.start], text[answer.end : end]
    false = bool(others) and random.random() < FALSE
    if false:
        before, after = _exchange(text, (start, end), answer, random.choice(others), random.choice(names))
    said = text[answer.start : answer.end]
    question = _asked(before, after, _question_word(said, answer.name, random), random)
    context = _without(text, (start, end), said) if not false and random.random() < APART else text
    spans = () if false else occurrences(context, [said])
    kind: AnswerKind = "none" if false else "span"
    yield ReadingExample(id_, f"cloze:{document.source_id}", question, context, document.title, spans, kind)


def _without(text: str, sentence: tuple[int, int], answer: str) -> str:
    """The text without the sentence that the question was made from, where the answer stands elsewhere too.

    What is left has to be matched by meaning (recurring spans: Ram et al., arXiv 2101.00438, section 3).
    """
    start, end = sentence
    left = f"{text[:start].rstrip()} {text[end:].lstrip()}".strip()
    return left if occurrences(left, [answer]) else text


def _exchange(
    text: str, sentence: tuple[int, int], answer: _Piece, other: _Piece, name: str
) -> tuple[str, str]:
    """What stands before and after the answer, with `other` called `name`."""
    start, end = sentence
    if other.end <= answer.start:
        return text[start : other.start] + name + text[other.end : answer.start], text[answer.end : end]
    return text[start : answer.start], text[answer.end : other.start] + name + text[other.end : end]


def _question_word(answer: str, name: bool, random: Random) -> str:
    if name:
        return random.choice(_NAME_WORDS)
    return random.choice(_YEAR_WORDS if _YEAR.fullmatch(answer) else _NUMBER_WORDS)


def _asked(before: str, after: str, word: str, random: Random) -> str:
    """The words around the answer, some dropped or moved, with the question word in front or in place."""
    left = _noisy(before.split()[-AROUND:], random)
    right = _noisy(after.rstrip(" .").split()[:AROUND], random)
    words = [*left, word, *right] if random.random() < 0.4 else [word, *left, *right]
    if random.random() < 0.2:
        words = [*right, word, *left]
    return " ".join(words) + "?"


def _noisy(words: Sequence[str], random: Random) -> list[str]:
    kept = [w for w in words if random.random() >= DROPPED]
    if random.random() < 0.5:
        kept = [w for _, w in sorted((n + random.uniform(0, 2.5), w) for n, w in enumerate(kept))]
    return kept
