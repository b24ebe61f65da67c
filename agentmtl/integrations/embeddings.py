"""`AgentMTLEmbeddings`: the trunk, or any encoder by name, as LangChain embeddings.

    embeddings = AgentMTLEmbeddings()                       # the embedded encoder; AGENTMTL_ENCODER names
    another embeddings.embed_query("When was the bridge opened?")   # a unit vector, as a list of floats

They are an encoder of agentmtl too: an index that was made with one opens with the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from langchain_core.embeddings import Embeddings

from agentmtl.settings import load_settings
from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Side, Vectors
from agentmtl.trunk.loading import load_encoder


class AgentMTLEmbeddings(Embeddings):
    """See the top of this module. Safe to use from several threads.

    `model`: "default", "hashing:N", or a sentence-transformers name or folder; by default the `encoder`
    setting. `backend`: auto, openvino, torch-bf16 or torch-fp32.
    """

    def __init__(self, model: str | None = None, *, backend: str | None = None) -> None:
        """The weights are loaded at first use. Raises EncoderError for a model that is not there."""
        settings = load_settings({"encoder": model, "backend": backend})[0]
        self.model = settings.encoder
        self._encoder: Encoder = load_encoder(self.model, backend=settings.backend, offline=settings.offline)

    @classmethod
    def of(cls, encoder: Encoder) -> Self:
        """Those of an encoder that is open already."""
        made = cls.__new__(cls)
        made.model, made._encoder = encoder.identity.name, encoder
        return made

    @property
    def identity(self) -> EncoderIdentity:
        """What an index records of it."""
        return self._encoder.identity

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """Vectors (len(texts), d), float32. Raises EncoderError where the model cannot run."""
        return self._encoder.encode(texts, side)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector each, of d floats."""
        vectors: list[list[float]] = self.encode(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """A vector of d floats."""
        vector: list[float] = self.encode([text], "query")[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` in a worker thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` in a worker thread."""
        return await asyncio.to_thread(self.embed_query, text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r})"
