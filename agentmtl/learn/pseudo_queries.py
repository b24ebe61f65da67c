"""Queries made from a corpus itself, so that an encoder can be adapted to it without labels.

    sentence   one sentence of a passage that has several (the inverse cloze task: Lee et al., arXiv
    1906.00300) title      what a passage is headed by terms      some of a sentence's words cloze      a
    sentence with its rarest word exchanged for a question word chain      some words of each of two to four
    passages that share rare terms, one leading to the next: what
               needs several passages is asked in one breath

Each knows the passages it was made from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from random import Random

from agentmtl.index.tokens import words
from agentmtl.ingest.sentences import split_sentences

KINDS = ("sentence", "title", "terms", "cloze", "chain")
LONGEST = 4  # passages of a chain
_COMMON = 50  # passages that share a term, at most, for it to lead from one to the other
_KEPT = (0.5, 0.9)  # share of a sentence's words
_ASKED = ("what", "which", "which one", "what kind of thing")


@dataclass(frozen=True, slots=True)
class Pseudo:
    """`sources`: the rows of the passages it was made from."""

    id: str
    kind: str
    text: str
    sources: tuple[int, ...]


class PseudoQueries:
    """Draws them. `titles`: "" where a passage has none; (n,) as `texts`."""

    def __init__(self, texts: Sequence[str], titles: Sequence[str]) -> None:
        self._texts, self._titles = texts, titles
        self._terms = [set(words(text)) for text in texts]
        self._df = Counter(term for terms in self._terms for term in terms)
        self._by_term: dict[str, list[int]] = defaultdict(list)
        for row, terms in enumerate(self._terms):
            for term in terms:
                if 2 <= self._df[term] <= _COMMON:
                    self._by_term[term].append(row)

    def draw(self, count: int, seed: int) -> list[Pseudo]:
        """Up to `count`, no text twice; the kinds in turn, each where the passage allows it."""
        random = Random(f"pseudo-queries:{seed}")
        found: dict[str, Pseudo] = {}
        for n in range(4 * count):
            row = random.randrange(len(self._texts))
            kind = KINDS[n % len(KINDS)]
            made = self._made(kind, row, random) or self._made("chain", row, random)
            if made and len(made[0].split()) > 1 and made[0] not in found:
                found[made[0]] = Pseudo(f"{seed}:{n}", kind, *made)
            if len(found) == count:
                break
        return list(found.values())

    def _made(self, kind: str, row: int, random: Random) -> tuple[str, tuple[int, ...]] | None:
        """The query and its sources; None where the passage does not allow the kind."""
        if kind == "chain":
            return self._chain(row, random)
        if kind == "title":
            title = self._titles[row]
            return (title, (row,)) if title else None
        sentences = [self._texts[row][a:b] for a, b in split_sentences(self._texts[row])]
        if not sentences or (kind == "sentence" and len(sentences) < 2):
            return None
        sentence = random.choice(sentences)
        if kind == "terms":
            sentence = self._some(sentence, random)
        elif kind == "cloze":
            sentence = self._cloze(sentence, random)
        return sentence, (row,)

    def _chain(self, row: int, random: Random) -> tuple[str, tuple[int, ...]] | None:
        rows = [row]
        for _ in range(random.randint(1, LONGEST - 1)):
            leading = [t for t in sorted(self._terms[rows[-1]]) if t in self._by_term]
            if not leading:
                break
            weights = [log(len(self._texts) / self._df[term]) for term in leading]
            term = random.choices(leading, weights)[0]
            others = [other for other in self._by_term[term] if other not in rows]
            if others:
                rows.append(random.choice(others))
        if len(rows) < 2:
            return None
        parts = [self._some(self._sentence(one, random), random) for one in rows]
        random.shuffle(parts)
        return " ".join(parts), tuple(rows)

    def _sentence(self, row: int, random: Random) -> str:
        spans = split_sentences(self._texts[row])
        a, b = random.choice(spans) if spans else (0, len(self._texts[row]))
        return self._texts[row][a:b]

    def _some(self, sentence: str, random: Random) -> str:
        """A share of the words, in their order."""
        parts = sentence.rstrip(" .").split()
        count = max(1, round(len(parts) * random.uniform(*_KEPT)))
        return " ".join(parts[n] for n in sorted(random.sample(range(len(parts)), count)))

    def _cloze(self, sentence: str, random: Random) -> str:
        parts = sentence.rstrip(" .").split()
        rarest = min(range(len(parts)), key=lambda n: (self._rank(parts[n]), n))
        asked = random.choice(_ASKED)
        kept = [part for n, part in enumerate(parts) if n != rarest]
        if random.random() < 0.5:
            return " ".join([asked, *kept]) + "?"
        return " ".join(asked if n == rarest else part for n, part in enumerate(parts)) + "?"

    def _rank(self, part: str) -> int:
        """How many passages hold the part's rarest word; very many where it is no word."""
        return min((self._df[word] for word in words(part)), default=len(self._texts) + 1)
