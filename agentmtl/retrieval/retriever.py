"""The one door: `retrieve(query, level, k, where)` over one generation of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from agentmtl.errors import EncoderError, UsageError
from agentmtl.index.identifiers.storage import has_stream
from agentmtl.index.instructions import by_trunk, tasks_of_trunk
from agentmtl.index.snapshot import Snapshot
from agentmtl.retrieval import dense, lexical
from agentmtl.retrieval.fusion import AGAIN, PROPOSED, Fusion, fuse, ranked_again
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.identifiers import channel as identifiers
from agentmtl.retrieval.masks import Allowed, Masks
from agentmtl.retrieval.ranking import Ranking, best
from agentmtl.schema import LEVELS, Level
from agentmtl.tasks import under
from agentmtl.trunk.encoder import Encoder, Vectors

Channel: TypeAlias = Literal["fused", "dense", "lexical", "identifiers"]
CHANNELS: tuple[Channel, ...] = ("fused", "dense", "lexical", "identifiers")
MAX_K = 10_000

_Rows: TypeAlias = list[tuple[Vectors, Mapping[int, Allowed] | None]]  # vectors (1, d), and what each is for
_PLAIN_FLOAT = np.dtype(np.float32)


class Retriever:
    """Searches one snapshot. `encoder` is asked only for queries given as text.

    `fusion` None is the one that the index keeps (`agentmtl.retrieval.fitted`). `identifying`: who proposes
    keys for the channel "identifiers"; in the fusion, which has the query's own n-grams, they rank the
    first again.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        encoder: Encoder | None,
        fusion: Fusion | None = None,
        identifying: identifiers.Identifiers | None = None,
    ) -> None:
        self.snapshot = snapshot
        self._identifiers = identifying
        self._encoder = encoder
        self._fusion = fusion or Fusion.of(snapshot)
        self._masks = Masks(snapshot)
        self._dimension = snapshot.settings.encoder.dimension

    def retrieve(
        self,
        query: str | ArrayLike,
        *,
        level: Level = "passage",
        k: int = 10,
        where: str | None = None,
        channel: Channel = "fused",
        vector: Vectors | None = None,
    ) -> Hits:
        """The k best units of `level` for a text, or for a vector (d,) (dense channel only).

        `vector` is the text's own vector where the caller has it already. Raises UsageError (also where keys
        are proposed and the index has no token stream for them), FilterError, EncoderError (a vector of the
        wrong shape, or not finite).
        """
        if isinstance(query, str):
            return self._by_text(query, level, k, where, channel, vector)
        self.check(level, k)
        row = self._row(query)
        allowed = self.allowed(where, level)
        return Hits(self.snapshot, level, dense.search(self.snapshot, level, row, k, allowed)[0], "dense")

    def retrieve_batch(
        self, vectors: ArrayLike, *, level: Level = "passage", k: int = 10, where: str | None = None
    ) -> list[Hits]:
        """The k best units for each row of `vectors` (n, d), by the dense channel."""
        self.check(level, k)
        rows = np.ascontiguousarray(vectors, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self._dimension or not np.isfinite(rows).all():
            raise EncoderError(
                f"Query vectors must be finite and of shape (n, {self._dimension}), not {rows.shape}.",
                "Encode the queries with the index's own encoder.",
            )
        allowed = self.allowed(where, level)
        rankings = dense.search(self.snapshot, level, rows, k, allowed)
        return [Hits(self.snapshot, level, ranking, "dense") for ranking in rankings]

    def allowed(self, where: str | None, level: Level) -> Mapping[int, Allowed] | None:
        """What a filter admits, by segment number; None without a filter. Raises FilterError."""
        return self._masks.allowed(where, level) if where else None

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors (n, d) of queries."""
        if self._encoder is None:
            raise EncoderError("This index was opened without an encoder.", "Give one, or a query vector.")
        return np.asarray(self._encoder.encode(texts, "query"), np.float32)

    def read_by_head(self, task: str = "") -> bool:
        """Whether a head encodes the demonstrations of a task; of those of no task, where there is one."""
        card = self.snapshot.manifest.tasks.get(task, {})
        return bool(self.snapshot.settings.encoder.demonstrations) and not by_trunk(card)

    def read_alike(self, where: str | None, task: str) -> str | None:
        """`where`, narrowed to demonstrations that are encoded as those of `task` are: the others' vectors
        are no nearer or further than chance."""
        return self._read_by(where, self.read_by_head(task))

    def _read_by(self, where: str | None, head: bool) -> str | None:
        others = tasks_of_trunk(self.snapshot.manifest.tasks)
        if not self.snapshot.settings.encoder.demonstrations or not others:
            return where
        only = f"task in [{', '.join(map(_quoted, others))}]"
        return _and(where, f"not ({only})" if head else only)

    def encode_inputs(self, texts: Sequence[str], task: str = "") -> Vectors:
        """The vectors (n, d) of inputs whose demonstrations are looked for: as those of `task` are encoded
        themselves."""
        identity = self.snapshot.settings.encoder
        if not self.read_by_head(task) or self._encoder is None:
            return self.encode_queries(texts)
        card = self.snapshot.manifest.tasks.get(task, {}) if identity.instructs else {}
        instruction = str(card.get("instruction", ""))
        told = [under(instruction, text) for text in texts]
        return np.asarray(self._encoder.encode(told, "demonstration"), np.float32)

    def _by_text(
        self, query: str, level: Level, k: int, where: str | None, channel: Channel, vector: Vectors | None
    ) -> Hits:
        self.check(level, k)
        if channel not in CHANNELS:
            raise UsageError(f"There is no channel {channel!r}.", f"Choose one of {', '.join(CHANNELS)}.")
        allowed = self.allowed(where, level)
        if channel == "lexical":
            ranking = lexical.search(self.snapshot, level, query, k, allowed)
            return Hits(self.snapshot, level, ranking, "lexical", query=query)
        rows = self._rows(query, level, where, vector)
        if channel == "dense":
            return Hits(self.snapshot, level, self._dense(rows, level, k), "dense", query=query)
        if channel == "identifiers":
            return self._by_identifiers(query, rows, level, k, allowed)
        return self._fuse(query, rows, level, k, allowed)

    def _rows(self, query: str, level: Level, where: str | None, vector: Vectors | None) -> _Rows:
        """A text's vector and the units that it is for. Two of them where demonstrations of any task are
        looked for and some are encoded by a head, some by the trunk."""
        if vector is not None:
            return [(self._row(vector), self.allowed(where, level))]
        if level != "demonstration" or not self.read_by_head():
            return [(self._row(self.encode_queries([query])[0]), self.allowed(where, level))]
        head, mine = self.encode_inputs([query])[0], self._read_by(where, head=True)
        rows: _Rows = [(self._row(head), self.allowed(mine, level))]
        if mine != where:
            trunk, others = self.encode_queries([query])[0], self._read_by(where, head=False)
            rows.append((self._row(trunk), self.allowed(others, level)))
        return rows

    def _dense(self, rows: _Rows, level: Level, k: int) -> Ranking:
        """The k best; of several vectors, by each one's own cosines."""
        found = [dense.search(self.snapshot, level, row, k, allowed)[0] for row, allowed in rows]
        if len(found) == 1:
            return found[0]
        scores = np.concatenate([one.scores for one in found])
        segments = np.concatenate([one.segments for one in found])
        positions = np.concatenate([one.positions for one in found])
        return best(scores, segments, positions, k, lambda n, p: self.snapshot.id_of(level, (n, p)))

    def _by_identifiers(
        self, query: str, rows: _Rows, level: Level, k: int, allowed: Mapping[int, Allowed] | None
    ) -> Hits:
        first = self._pair(query, rows, level, self._fusion.depth, allowed)
        seen = fuse(self.snapshot, level, first, self._fusion.depth, self._fusion).ranking
        found = identifiers.search(self.snapshot, level, query, k, allowed, seen, self._identifiers)
        return Hits(self.snapshot, level, found.ranking, "identifiers", query=query, keys_of=found.keys_of)

    def _pair(
        self, query: str, rows: _Rows, level: Level, depth: int, allowed: Mapping[int, Allowed] | None
    ) -> dict[str, Ranking]:
        return {
            "dense": self._dense(rows, level, depth),
            "lexical": lexical.search(self.snapshot, level, query, depth, allowed),
        }

    def _fuse(
        self, query: str, rows: _Rows, level: Level, k: int, allowed: Mapping[int, Allowed] | None
    ) -> Hits:
        depth = max(k, self._fusion.depth)
        rankings = self._pair(query, rows, level, depth, allowed)
        found: list[identifiers.IdentifierRanking] = []
        search = partial(identifiers.search, self.snapshot, level, query, allowed=allowed)
        if self._fusion.weight("identifiers", level) and has_stream(self.snapshot):
            found.append(search(depth, settings=identifiers.IN_FUSION))
            rankings["identifiers"] = found[0].ranking
        again = self._identifiers is not None and self._fusion.weight(PROPOSED, level)
        fused = fuse(self.snapshot, level, rankings, max(k, AGAIN) if again else k, self._fusion)
        if again:
            only = fused.ranking.addresses()[:AGAIN]
            found.append(search(AGAIN, first=fused.ranking, settings=self._identifiers, only=only))
            fused = ranked_again(self.snapshot, level, fused, found[-1].ranking, k, self._fusion)
        keys_of = partial(identifiers.keys_of_all, found) if found else None
        return Hits(self.snapshot, level, fused.ranking, "fused", fused.channels, query, keys_of=keys_of)

    def _row(self, vector: ArrayLike) -> Vectors:
        """`vector` as one row (1, d) of finite float32."""
        row = vector if isinstance(vector, np.ndarray) else np.asarray(vector, np.float32)
        if row.dtype != _PLAIN_FLOAT or not row.flags.c_contiguous:
            row = np.ascontiguousarray(row, np.float32)
        if row.size != self._dimension:
            raise EncoderError(
                f"The query vector has {row.size} numbers; the index has {self._dimension} dimensions.",
                "Encode the query with the index's own encoder.",
            )
        row = row.reshape(1, self._dimension)
        if not np.isfinite(row.dot(row.T)[0, 0]):  # one BLAS call; a NaN or infinity in any place shows
            raise EncoderError("The query vector holds NaN or infinity.", "Check the encoder.")
        return row

    def check(self, level: Level, k: int) -> None:
        """Raise UsageError for a level that the index lacks, or a k out of range."""
        if level == "demonstration" and level not in self.snapshot.manifest.live:
            raise UsageError(
                "This index holds no demonstrations.", "Add some: agentmtl index add --task CARD --demos FILE"
            )
        if level not in self.snapshot.settings.stored_levels:
            known = ", ".join(self.snapshot.settings.levels)
            what = "is not a level" if level not in LEVELS else "was not indexed"
            raise UsageError(f"{level!r} {what}.", f"This index has {known}.")
        if not 1 <= k <= MAX_K:
            raise UsageError(f"k must be from 1 to {MAX_K}, not {k}.", "Ask for fewer hits.")


def task_filter(where: str | None, task: str | None) -> str | None:
    """`where`, narrowed to units whose metadata names the task."""
    return where if task is None else _and(where, f"task == {_quoted(task)}")


def _and(where: str | None, only: str) -> str:
    return f"({where}) and {only}" if where else only


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
