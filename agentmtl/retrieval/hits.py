"""The result of a retrieval: a sequence of hits whose texts are read only when looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from agentmtl.index.snapshot import Address, Snapshot
from agentmtl.index.tokens import words
from agentmtl.index.vectors import vectors_of
from agentmtl.retrieval.fusion import ChannelScores
from agentmtl.retrieval.ranking import Floats, Ranking
from agentmtl.schema import Hit, Level, MatchedKey
from agentmtl.trunk.encoder import Vectors

KeysOf = Callable[[Address], tuple[MatchedKey, ...]]


@dataclass(frozen=True, slots=True)
class Found:
    """How a unit was come to, where not by the query alone: the hop, and the names that led there."""

    hop: int
    names: tuple[str, ...] = ()


class Hits(Sequence[Hit]):
    """Best first. `scores` and `ids` cost nothing; the units of all hits are read together at first use."""

    __slots__ = (
        "_channel", "_channels", "_found", "_hits", "_keys_of", "_query", "_ranking", "_snapshot", "level",
    )  # fmt: skip

    def __init__(
        self,
        snapshot: Snapshot,
        level: Level,
        ranking: Ranking,
        channel: str,
        channels: ChannelScores | None = None,
        query: str = "",
        found: Mapping[Address, Found] | None = None,
        keys_of: KeysOf | None = None,
    ) -> None:
        self.level = level
        self._snapshot = snapshot
        self._ranking = ranking
        self._channel = channel
        self._channels = channels
        self._query = query
        self._found = found or {}
        self._keys_of = keys_of
        self._hits: list[Hit] | None = None

    @property
    def scores(self) -> Floats:
        """(len(self),) descending."""
        return self._ranking.scores

    @property
    def ids(self) -> list[str]:
        """Unit ids, as 24 hexadecimal digits."""
        return [self._snapshot.id_of(self.level, a).hex() for a in self.addresses]

    @property
    def addresses(self) -> list[Address]:
        """(segment number, position) in the snapshot that was searched."""
        return self._ranking.addresses()

    @property
    def snapshot(self) -> Snapshot:
        """The generation that was searched."""
        return self._snapshot

    @property
    def channels(self) -> ChannelScores:
        """Of each channel that was fused the scores of all that it found, beyond these hits; empty for one
        channel alone."""
        return self._channels or {}

    def vectors(self) -> Vectors:
        """(len(self), d): the vectors of the units, as the index holds them."""
        segments = self._snapshot.segments
        rows = [vectors_of(segments[n].levels[self.level].flat)[position] for n, position in self.addresses]
        return np.array(rows, np.float32).reshape(len(rows), self._snapshot.settings.encoder.dimension)

    def rescored(self, channel: str, own: Sequence[float], total: Sequence[float]) -> Hits:
        """The first len(total) units in the order of `total`, then the others as they were.

        `own` are their scores in the new `channel`, `total` what they are ranked by; those behind them keep
        their order, below. Equal totals keep theirs.
        """
        n, addresses = len(total), self.addresses
        order = [*np.argsort(-np.asarray(total), kind="stable").tolist(), *range(n, len(self))]
        below = min(total) - 1.0 - np.arange(len(self) - n)
        scores = np.concatenate([np.sort(np.asarray(total, np.float64))[::-1], below])
        ranking = Ranking(scores, self._ranking.segments[order], self._ranking.positions[order])
        before = self._channels or {self._channel: dict(zip(addresses, map(float, self.scores), strict=True))}
        channels = {**before, channel: dict(zip(addresses, own, strict=False))}
        return Hits(
            self._snapshot,
            self.level,
            ranking,
            self._channel,
            channels,
            self._query,
            self._found,
            self._keys_of,
        )

    def __len__(self) -> int:
        return len(self._ranking.scores)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self._load()[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._load())

    def __repr__(self) -> str:
        return f"Hits({len(self)} {self.level} by {self._channel})"

    def _load(self) -> list[Hit]:
        if self._hits is None:
            addresses = self.addresses
            units = self._snapshot.units(self.level, addresses)
            scores = np.asarray(self.scores, np.float64).tolist()
            if self._channels is None and not self._query:  # of a vector: nothing to look up for each
                found = zip(units, scores, strict=True)
                self._hits = [Hit(unit, score, {self._channel: score}) for unit, score in found]
                return self._hits
            query = set(words(self._query)) if self._query else set()
            self._hits = [
                self._noted(
                    Hit(unit, score, self._scores_of(address, score), self._keys(unit.text, query)), address
                )
                for unit, score, address in zip(units, scores, addresses, strict=True)
            ]
        return self._hits

    def _noted(self, hit: Hit, address: Address) -> Hit:
        if self._keys_of is not None:
            hit = replace(hit, identifiers=self._keys_of(address))
        found = self._found.get(address)
        return hit if found is None else replace(hit, hop=found.hop, keys=(*found.names, *hit.keys))

    def _scores_of(self, address: Address, score: float) -> Mapping[str, float]:
        if self._channels is None:
            return {self._channel: score}
        return {name: scores[address] for name, scores in self._channels.items() if address in scores}

    @staticmethod
    def _keys(text: str, query: set[str]) -> tuple[str, ...]:
        return tuple(sorted(query.intersection(words(text)))) if query else ()
