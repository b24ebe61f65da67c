"""The identifiers channel: propose keys, score the units they occur in, and say which keys matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agentmtl.index.identifiers import Ngrams, ngrams_of
from agentmtl.index.snapshot import Address, Snapshot
from agentmtl.retrieval.identifiers.keys import Context, Key, KeyProposer, QueryNgrams, RelevanceModel
from agentmtl.retrieval.identifiers.scoring import Matches, Scored, Scoring, score_units
from agentmtl.retrieval.masks import Allowed
from agentmtl.retrieval.ranking import EMPTY, Ranking, best
from agentmtl.schema import Level, MatchedKey

MAX_PLACES = 3  # occurrences of a key listed in a hit


@dataclass(frozen=True, slots=True)
class Identifiers:
    """How the channel works: who proposes, how it is scored, and of which tokeniser's stream (its identity;
    None: the default one) the keys are."""

    proposers: tuple[KeyProposer, ...] = (QueryNgrams(), RelevanceModel())
    scoring: Scoring = field(default_factory=Scoring)
    stream: str | None = None


IN_FUSION = Identifiers((QueryNgrams(),))  # the relevance model adds nothing to the fusion it is made of


@dataclass(frozen=True, slots=True)
class IdentifierRanking:
    """The ranking, and the keys of a hit on demand."""

    ranking: Ranking
    _ngrams: Ngrams
    _matches: Matches

    def keys_of(self, address: Address) -> tuple[MatchedKey, ...]:
        """The keys that counted for a unit, the heaviest first, with the text they stand for."""
        rows = np.flatnonzero((self._matches.units == np.array(address)).all(axis=1))
        return tuple(self._matched(int(row)) for row in rows)

    def _matched(self, row: int) -> MatchedKey:
        key = int(self._matches.keys[row])
        tokens = self._matches.used[key].tokens
        segment, position = self._matches.places[row].tolist()
        _, start, end, in_title = self._ngrams.span(segment, position, len(tokens))
        return MatchedKey(
            text=self._ngrams.tokenizer.decode(tokens).strip(),
            count=int(self._matches.counts[key]),
            weight=float(self._matches.weights[key]),
            start=start,
            end=end,
            in_title=in_title,
        )


def keys_of_all(rankings: Sequence[IdentifierRanking], address: Address) -> tuple[MatchedKey, ...]:
    """The keys of a hit in any of the rankings, the heaviest first, each once."""
    found = [key for ranking in rankings for key in ranking.keys_of(address)]
    kept: dict[tuple[str, bool], MatchedKey] = {}
    for key in sorted(found, key=lambda key: -key.weight):
        kept.setdefault((key.text, key.in_title), key)
    return tuple(kept.values())


def search(
    snapshot: Snapshot,
    level: Level,
    query: str,
    k: int,
    allowed: Mapping[int, Allowed] | None = None,
    first: Ranking = EMPTY,
    settings: Identifiers | None = None,
    only: Sequence[Address] | None = None,
) -> IdentifierRanking:
    """The k best units of `level` by keys, of `only` these where given. `first`: hits of other channels, for
    proposers that read them.

    Raises UsageError where the index has no such token stream.
    """
    settings = settings or Identifiers()
    ngrams = ngrams_of(snapshot, settings.stream)
    context = Context(level, first.addresses(), np.asarray(first.scores, np.float64).tolist())
    keys = proposed(settings.proposers, query, ngrams, context)
    found = score_units(ngrams, keys, level, settings.scoring, allowed, only)
    return IdentifierRanking(_ranked(snapshot, level, found, k), ngrams, found.matches)


def proposed(proposers: Sequence[KeyProposer], query: str, ngrams: Ngrams, context: Context) -> list[Key]:
    """The keys of all proposers; one that several propose counts as its likeliest."""
    return [key for proposer in proposers for key in proposer.propose(query, ngrams, context)]


def _ranked(snapshot: Snapshot, level: Level, found: Scored, k: int) -> Ranking:
    return best(found.scores, found.segments, found.positions, k, lambda n, p: snapshot.id_of(level, (n, p)))
