"""Keys: n-grams of the corpus, each with its log-probability given the query, and who proposes them.

    QueryNgrams      the query's own n-grams
    RelevanceModel   the n-grams of the best hits so far; no weights needed
    LanguageModelKeys (in `decoding`)   a model's beam search under the corpus's constraint
    TrainedKeys (in `trained`)   a decoder over the trunk: its beam search, and others' keys read by it

A key has one live occurrence at least; one made of stop words alone is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.identifiers import Ngrams, StreamTokenizer
from agentmtl.index.snapshot import Address
from agentmtl.index.tokens import words
from agentmtl.schema import Level

Flags: TypeAlias = NDArray[np.bool_]

LONGEST = 2  # tokens of a key that no model proposes
MAX_KEYS = 300  # of one proposer, the likeliest first

# English function words; elsewhere a key's frequency alone weighs it down.
_STOP_WORDS = """
a about after all also an and any are as at be because been before being between both but by can could did
do does doing down during each few for from further had has have having he her here hers him his how i if in
into is it its just me more most my no nor not now of off on once only or other our out over own same she
should so some such than that the their them then there these they this those through to too under until up
very was we were what when where which while who whom whose why will with would you your
"""
STOP_WORDS = frozenset(word for spelt in _STOP_WORDS.split() for word in words(spelt))


@dataclass(frozen=True, slots=True)
class Key:
    """An n-gram of token ids and ln P(n-gram | query), which is 0 at most."""

    tokens: tuple[int, ...]
    logp: float


@dataclass(frozen=True, slots=True)
class Context:
    """What is known before keys are proposed: the level asked for and the best hits so far, best first,
    with their scores."""

    level: Level
    hits: Sequence[Address] = ()
    scores: Sequence[float] = ()


class KeyProposer(Protocol):
    """Proposes keys for a query; the same ones for the same arguments."""

    @property
    def name(self) -> str: ...

    def propose(self, query: str, ngrams: Ngrams, context: Context) -> list[Key]: ...


@dataclass(frozen=True, slots=True)
class QueryNgrams:
    """The query's n-grams of up to `longest` tokens that occur; P = share of the query's n-grams."""

    longest: int = LONGEST
    name: str = "query"

    def propose(self, query: str, ngrams: Ngrams, context: Context) -> list[Key]:
        """All of them, the longest first. Byte-level vocabularies are asked with a blank in front too."""
        counted: Counter[tuple[int, ...]] = Counter()
        for spelling in dict.fromkeys((query, f" {query}")):
            tokens = ngrams.tokenizer.encode(spelling)
            found = Counter(_ngrams_in(tokens, self.longest))
            counted |= found
        total = max(1, len(ngrams.tokenizer.encode(query)))
        likely = {gram: min(1.0, times / total) for gram, times in counted.items()}
        return kept_keys(likely, ngrams)


@dataclass(frozen=True, slots=True)
class RelevanceModel:
    """P(n | q) = Σ over the best hits d of softmax(score_d) · tf(n, d) / |d| (RM1 of Lavrenko & Croft,
    SIGIR 2001, over phrases)."""

    hits: int = 10
    longest: int = LONGEST
    name: str = "relevance"

    def propose(self, query: str, ngrams: Ngrams, context: Context) -> list[Key]:
        """The n-grams of the best hits' texts; none without hits, or for entities, which have no text."""
        if context.level == "entity" or not context.hits:
            return []
        best = context.scores[0]
        shares = [exp(score - best) for score in context.scores[: self.hits]]
        likely: dict[tuple[int, ...], float] = {}
        for (segment, position), share in zip(context.hits[: self.hits], shares, strict=False):
            tokens = [int(t) for t in ngrams.unit_tokens(context.level, segment, position)]
            for gram, times in Counter(_ngrams_in(tokens, self.longest)).items():
                likely[gram] = likely.get(gram, 0.0) + share / sum(shares) * times / len(tokens)
        return kept_keys({gram: min(1.0, p) for gram, p in likely.items()}, ngrams)


def _ngrams_in(tokens: Sequence[int], longest: int) -> Iterable[tuple[int, ...]]:
    for size in range(1, longest + 1):
        for start in range(len(tokens) - size + 1):
            yield tuple(tokens[start : start + size])


def kept_keys(likely: dict[tuple[int, ...], float], ngrams: Ngrams, limit: int = MAX_KEYS) -> list[Key]:
    """The n-grams that occur and say something, as keys: the `limit` likeliest, longer ones first."""
    ordered = sorted(likely, key=lambda gram: (-len(gram) * likely[gram], gram))[: limit * 2]
    said = [gram for gram in ordered if says_something(gram, ngrams)][:limit]
    counts = ngrams.counts(said).tolist()
    return [Key(gram, log(likely[gram])) for gram, count in zip(said, counts, strict=True) if count]


@lru_cache(maxsize=8)
def token_kinds(tokenizer: StreamTokenizer) -> tuple[Flags, Flags]:
    """(whether each token of the vocabulary begins a word, whether it is more than a stop word or a mark)."""
    spelt = [tokenizer.decode([token]) for token in range(tokenizer.vocabulary)]
    begins = np.array([not text.startswith("##") for text in spelt])
    says = np.array([any(word not in STOP_WORDS for word in words(text)) for text in spelt])
    return begins, says


def says_something(gram: Sequence[int], ngrams: Ngrams) -> bool:
    """False for an n-gram of stop words and punctuation alone, or one that begins inside a word."""
    text = ngrams.tokenizer.decode(gram)
    if text.startswith("##"):
        return False
    return any(word not in STOP_WORDS for word in words(text))
