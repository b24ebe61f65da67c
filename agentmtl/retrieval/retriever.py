"""The one door: `retrieve(query, level, k, where)` over one generation of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from agentmtl.errors import EncoderError, UsageError
from agentmtl.index.identifiers.storage import has_stream
from agentmtl.index.instructions import TRUNK, encoded_by
from agentmtl.index.snapshot import Snapshot
from agentmtl.retrieval import dense, lexical
from agentmtl.retrieval.fusion import Fusion, fuse
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.identifiers import channel as identifiers
from agentmtl.retrieval.masks import Allowed, Masks
from agentmtl.retrieval.ranking import Ranking
from agentmtl.schema import LEVELS, Level
from agentmtl.tasks import under
from agentmtl.trunk.encoder import Encoder, Vectors

Channel: TypeAlias = Literal["fused", "dense", "lexical", "identifiers"]
CHANNELS: tuple[Channel, ...] = ("fused", "dense", "lexical", "identifiers")
MAX_K = 10_000

_PLAIN_FLOAT = np.dtype(np.float32)


class Retriever:
    """Searches one snapshot. `encoder` is asked only for queries given as text.

    `fusion` None is the one that the index keeps (`agentmtl.retrieval.fitted`).
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

        `vector` is the text's own vector where the caller has it already. Raises UsageError, FilterError,
        EncoderError (a vector of the wrong shape, or not finite).
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

    def encode_inputs(self, texts: Sequence[str], task: str = "", by: str = "") -> Vectors:
        """The vectors (n, d) of inputs whose demonstrations are looked for: as those of `task` are encoded
        themselves, or as the head or the trunk (`by`) encodes them."""
        identity, tasks = self.snapshot.settings.encoder, self.snapshot.manifest.tasks
        by = by or encoded_by(tasks, task)
        if not identity.demonstrations or self._encoder is None or by == TRUNK:
            return self.encode_queries(texts)
        instruction = str(tasks.get(task, {}).get("instruction", "")) if identity.instructs else ""
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
        if vector is None:
            encode = self.encode_inputs if level == "demonstration" else self.encode_queries
            vector = encode([query])[0]
        row = self._row(vector)
        if channel == "dense":
            ranking = dense.search(self.snapshot, level, row, k, allowed)[0]
            return Hits(self.snapshot, level, ranking, "dense", query=query)
        if channel == "identifiers":
            return self._by_identifiers(query, row, level, k, allowed)
        return self._fuse(query, row, level, k, allowed)

    def _by_identifiers(
        self, query: str, row: Vectors, level: Level, k: int, allowed: Mapping[int, Allowed] | None
    ) -> Hits:
        first = self._pair(query, row, level, self._fusion.depth, allowed)
        seen = fuse(self.snapshot, level, first, self._fusion.depth, self._fusion).ranking
        found = identifiers.search(self.snapshot, level, query, k, allowed, seen, self._identifiers)
        return Hits(self.snapshot, level, found.ranking, "identifiers", query=query, keys_of=found.keys_of)

    def _pair(
        self, query: str, row: Vectors, level: Level, depth: int, allowed: Mapping[int, Allowed] | None
    ) -> dict[str, Ranking]:
        return {
            "dense": dense.search(self.snapshot, level, row, depth, allowed)[0],
            "lexical": lexical.search(self.snapshot, level, query, depth, allowed),
        }

    def _fuse(
        self, query: str, row: Vectors, level: Level, k: int, allowed: Mapping[int, Allowed] | None
    ) -> Hits:
        depth = max(k, self._fusion.depth)
        rankings = self._pair(query, row, level, depth, allowed)
        keys_of = None
        if self._fusion.weight("identifiers", level) and has_stream(self.snapshot):
            seen = fuse(self.snapshot, level, rankings, depth, self._fusion).ranking
            settings = self._identifiers or identifiers.IN_FUSION
            found = identifiers.search(self.snapshot, level, query, depth, allowed, seen, settings)
            rankings["identifiers"], keys_of = found.ranking, found.keys_of
        fused = fuse(self.snapshot, level, rankings, k, self._fusion)
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


def task_filter(where: str | None, *tasks: str | None) -> str | None:
    """`where`, narrowed to units whose metadata names one of the tasks; None is any."""
    if None in tasks or not tasks:
        return where
    quoted = [str(task).replace("\\", "\\\\").replace('"', '\\"') for task in tasks]
    only = " or ".join(f'task == "{name}"' for name in quoted)
    return f"({where}) and ({only})" if where else only
