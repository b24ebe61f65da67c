"""Any object with `embed_documents` and `embed_query` (a LangChain `Embeddings`) as an encoder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.trunk.encoder import EncoderIdentity, Side, Vectors, check_vectors

_MODEL_ATTRIBUTES = ("model", "model_name", "model_id", "deployment_name", "deployment")


@runtime_checkable
class EmbeddingsLike(Protocol):
    """The two methods of LangChain's `Embeddings` that are used."""

    def embed_documents(self, texts: list[str], /) -> list[list[float]]: ...

    def embed_query(self, text: str, /) -> list[float]: ...


class EmbeddingsEncoder:
    """Wraps `embeddings`. Vectors are brought to unit length and checked.

    The weights behind an API cannot be hashed, so the identity holds the class and the model's name. One
    call of `embed_query` at construction tells the dimension.
    """

    def __init__(self, embeddings: EmbeddingsLike) -> None:
        self._embeddings = embeddings
        # The interface promises thread safety, LangChain's does not, so calls go one at a time.
        self._lock = threading.Lock()
        dimension = len(embeddings.embed_query("dimension"))
        weights = _weights_name(embeddings)
        self._identity = EncoderIdentity(
            weights=weights, dimension=dimension, pooling="unknown", max_length=0, name=weights
        )

    @property
    def identity(self) -> EncoderIdentity:
        return self._identity

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """Unit vectors of shape (len(texts), dimension), float32.

        Raises EncoderError where the object returns another shape, a value that is not finite, or a zero
        vector. What the object itself raises (a refused key, a lost connection) passes through.
        """
        if not texts:
            return np.zeros((0, self._identity.dimension), dtype=np.float32)
        with self._lock:
            if side == "query":
                rows = [self._embeddings.embed_query(text) for text in texts]
            else:
                rows = self._embeddings.embed_documents(list(texts))
        return _unit_rows(rows, len(texts), self._identity)


def _weights_name(embeddings: EmbeddingsLike) -> str:
    parts = ["name", type(embeddings).__qualname__]
    values = (getattr(embeddings, attribute, None) for attribute in _MODEL_ATTRIBUTES)
    parts.extend([value for value in values if isinstance(value, str) and value][:1])
    return ":".join(parts)


def _unit_rows(rows: list[list[float]], count: int, identity: EncoderIdentity) -> Vectors:
    if {len(row) for row in rows} != {identity.dimension}:
        raise EncoderError(
            f"{identity.name} returned vectors of several dimensions, or not of {identity.dimension}.",
            "Check the embedding model behind it.",
        )
    vectors = check_vectors(np.asarray(rows, dtype=np.float32), count, identity)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise EncoderError(f"{identity.name} returned a zero vector.", "Leave out empty texts.")
    return check_vectors(vectors / lengths, count, identity)
