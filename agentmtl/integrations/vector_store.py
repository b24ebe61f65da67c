"""`AgentMTLVectorStore`: an index as a LangChain vector store, on disk.

    store = AgentMTLVectorStore("indexes/notes", embedding=embeddings)   # or without: the embedded encoder
    store.add_texts(["The bridge was opened in 1890."], ids=["bridge"])
    store.similarity_search("When was it opened?", k=1)

A text is one record, found whole, by its vector. Every call that changes something publishes one generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from agentmtl.errors import IndexMissingError, UsageError
from agentmtl.integrations.documents import record_of, stored
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.retriever import Channel
from agentmtl.schema import Hit


class AgentMTLVectorStore(VectorStore):
    """See the top of this module. `channel`: "dense", or "fused" to search by words too."""

    def __init__(
        self, folder: str | Path, embedding: Embeddings | None = None, *, channel: Channel = "dense"
    ) -> None:
        """Opens the index of the folder, or makes an empty one there.

        Raises EncoderMismatchError where it was made with other embeddings, and what opening an index raises.
        """
        encoder = embedding if embedding is not None else "default"
        try:
            self.index = Index.open(folder, encoder=encoder)
        except IndexMissingError:
            self.index = Index.create(folder, encoder=encoder, levels=("document",), streams=())
        self._embedding, self._channel = embedding, channel

    @property
    def embeddings(self) -> Embeddings | None:
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts, each in place of what has its id; the ids. Raises UsageError where counts differ."""
        given = list(texts)
        metadata = metadatas if metadatas is not None else [{} for _ in given]
        names = list(ids) if ids is not None else [None] * len(given)
        if not len(given) == len(metadata) == len(names):
            raise UsageError(
                f"{len(given)} texts have {len(metadata)} metadata and {len(names)} ids.",
                "Give one for each.",
            )
        records = [stored(*row) for row in zip(given, metadata, names, strict=True)]
        if records:
            self.index.add(records)
        return [record.source_id for record in records]

    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Delete by id; ids that are not there are passed over. Raises UsageError without ids."""
        if ids is None:
            raise UsageError("No ids were given.", "To drop all, delete the folder.")
        there = [id_ for id_ in dict.fromkeys(ids) if self.index.snapshot.documents("source_id", id_)]
        if there:
            self.index.delete(there)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """Those that are there, in the order of the ids."""
        snapshot, found = self.index.snapshot, list[LangChainDocument]()
        for id_ in dict.fromkeys(ids):
            for number, row, _ in snapshot.documents("source_id", id_)[:1]:
                position = int(np.flatnonzero(snapshot.segments[number].levels["document"].docs == row)[0])
                found.append(record_of(Hit(snapshot.units("document", [(number, position)])[0], 0.0)))
        return found

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        """The k nearest. `where`: a filter over metadata (`agentmtl.index.filters`)."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, where: str | None = None, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """With scores: cosines for the dense channel."""
        hits = self.index.retrieve(query, level="document", k=k, where=where, channel=self._channel)
        return [(record_of(hit), hit.score) for hit in hits]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, where: str | None = None, **kwargs: Any
    ) -> list[LangChainDocument]:
        """The k nearest to a vector (d,)."""
        return [record_of(hit) for hit in self.index.retrieve(embedding, level="document", k=k, where=where)]

    def _select_relevance_score_fn(self) -> Any:
        """Cosines of −1 to 1 as relevances of 0 to 1."""
        return lambda score: min(1.0, max(0.0, (score + 1.0) / 2.0))

    async def asimilarity_search_with_score(
        self, *args: Any, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        return await asyncio.to_thread(self.similarity_search_with_score, *args, **kwargs)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        folder: str | Path = "indexes/langchain",
        **kwargs: Any,
    ) -> Self:
        """A store in `folder` with these texts. Raises what the constructor and `add_texts` raise."""
        store = cls(folder, embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store
