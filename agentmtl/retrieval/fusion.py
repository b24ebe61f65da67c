"""Combining channels: reciprocal-rank fusion, or a weighted sum of standardised scores.

Reciprocal-rank fusion: Cormack, Clarke & Büttcher, "Reciprocal Rank Fusion outperforms Condorcet", SIGIR
2009, with its k = 60. The z-sum standardises each channel over the pooled candidates and gives a
candidate the channel's minimum where it was not found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.snapshot import Address, Snapshot
from agentmtl.retrieval.ranking import Ranking, best, within
from agentmtl.schema import Level

RRF_K = 60
Part: TypeAlias = NDArray[np.float64]
ChannelScores: TypeAlias = Mapping[str, Mapping[Address, float]]
PROPOSED = "proposed"  # the channel of keys that a model proposes, beside the query's own

# of the identifiers channel, by level; `docs/decisions.md` has the numbers
IDENTIFIER_WEIGHTS: Mapping[Level, float] = {"sentence": 0.5, "passage": 0.5}
PROPOSED_WEIGHTS: Mapping[Level, float] = {"sentence": 1.0}
AGAIN = 20  # of the best, which proposed keys rank again


@dataclass(frozen=True, slots=True)
class Fusion:
    """`weights` a channel (1 where not named); `depth` candidates are taken from each channel.

    `identifiers`: the weight of that channel by level; 0, where a level is not named, leaves it out.
    `proposed`: the same of keys that a model proposes, where there is one.
    """

    method: Literal["rrf", "zsum"] = "zsum"
    weights: Mapping[str, float] = field(default_factory=dict)
    depth: int = 100
    identifiers: Mapping[Level, float] = field(default_factory=lambda: dict(IDENTIFIER_WEIGHTS))
    proposed: Mapping[Level, float] = field(default_factory=lambda: dict(PROPOSED_WEIGHTS))

    def weight(self, channel: str, level: Level) -> float:
        """Of a channel at a level."""
        if channel == "identifiers":
            return self.identifiers.get(level, 0.0)
        if channel == PROPOSED:
            return self.proposed.get(level, 0.0)
        return self.weights.get(channel, 1.0)

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, **{n: dict(plain[n]) for n in ("weights", "identifiers", "proposed")}}

    @classmethod
    def of(cls, snapshot: Snapshot) -> Fusion:
        """The fusion that an index was made with; this version's where it keeps none."""
        return cls(**snapshot.manifest.fitted.get("fusion", {}))


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused ranking and, for each channel, its own scores by address."""

    ranking: Ranking
    channels: ChannelScores


def fuse(snapshot: Snapshot, level: Level, rankings: Mapping[str, Ranking], k: int, fusion: Fusion) -> Fused:
    """The k best of all channels' candidates."""
    channels = {
        name: dict(zip(r.addresses(), r.scores.tolist(), strict=True)) for name, r in rankings.items()
    }
    pool, parts = pooled(channels, fusion)
    total = weighed(parts, level, fusion)
    segments = np.array([n for n, _ in pool], np.int64)
    positions = np.array([p for _, p in pool], np.int64)
    ranking = best(total, segments, positions, k, lambda n, p: snapshot.id_of(level, (n, p)))
    return Fused(ranking, channels)


def ranked_again(
    snapshot: Snapshot, level: Level, fused: Fused, proposed: Ranking, k: int, fusion: Fusion
) -> Fused:
    """The k best after what `proposed` keys say of the first `AGAIN` of a fused ranking is added. It is
    standardised over these; all further down get their minimum, and so stay behind in their order."""
    first = fused.ranking.addresses()[:AGAIN]
    said = within(proposed, set(first))
    scores = dict(zip(said.addresses(), said.scores.tolist(), strict=True))
    scores |= {address: 0.0 for address in first if address not in scores}
    part = _part(fusion)(scores, first)
    added = np.full(len(fused.ranking), part.min(initial=0.0))
    added[: len(first)] = part
    total = fused.ranking.scores + fusion.weight(PROPOSED, level) * added
    ranking = best(
        total, fused.ranking.segments, fused.ranking.positions, k, lambda n, p: snapshot.id_of(level, (n, p))
    )
    return Fused(ranking, {**fused.channels, PROPOSED: scores})


def pooled(channels: ChannelScores, fusion: Fusion) -> tuple[list[Address], dict[str, Part]]:
    """All that any channel found, and of every channel (len(pool),) what it brings to each."""
    pool = list(dict.fromkeys(a for scores in channels.values() for a in scores))
    part = _part(fusion)
    return pool, {name: part(scores, pool) for name, scores in channels.items()}


def _part(fusion: Fusion) -> Callable[[Mapping[Address, float], list[Address]], Part]:
    return _ranks if fusion.method == "rrf" else _standardised


def weighed(parts: Mapping[str, Part], level: Level, fusion: Fusion) -> Part:
    """(len(pool),) the sum of the channels' parts by their weights."""
    return np.asarray(sum(fusion.weight(name, level) * part for name, part in parts.items()))


def _ranks(scores: Mapping[Address, float], pool: list[Address]) -> Part:
    rank = {address: i + 1 for i, address in enumerate(scores)}
    return np.array([1.0 / (RRF_K + rank[a]) if a in rank else 0.0 for a in pool])


def _standardised(scores: Mapping[Address, float], pool: list[Address]) -> Part:
    if not scores:
        return np.zeros(len(pool))
    lowest = min(scores.values())
    values = np.array([scores.get(a, lowest) for a in pool])
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(pool))
