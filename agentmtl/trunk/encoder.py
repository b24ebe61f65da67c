"""What an encoder is, and what makes two encoders the same.

Any object with `identity` and `encode` serves. The identity is what an index records: it names the
mathematical function from text to vector, never the backend, the precision or the machine, so that an
index built with OpenVINO in bf16 opens on a machine that computes in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError

Vectors: TypeAlias = NDArray[np.float32]  # (n, dimension), rows of unit length where normalised
Side: TypeAlias = Literal["query", "document", "demonstration"]  # the last: where a head is for it


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """Everything that changes the vectors. `name` only tells a person (and `load_encoder`) which it is.

    `weights` is "sha256:…" of the weights file; an encoder whose weights cannot be read (a LangChain
    `Embeddings` behind an API) gives "name:…" instead. `max_length` counts tokens. `demonstrations`: of
    which head the vectors of labelled examples are ("" for none: of the encoder itself). `texts`: of which
    head those of all texts are, so that an index never holds such vectors beside the trunk's.
    """

    weights: str
    dimension: int
    pooling: str = "mean"
    normalised: bool = True
    max_length: int = 256
    query_prefix: str = ""
    document_prefix: str = ""
    name: str = ""
    demonstrations: str = ""
    texts: str = ""

    @property
    def instructs(self) -> bool:
        """Whether labelled examples are encoded under their task's instruction."""
        return self.demonstrations.startswith("instructed ")

    @property
    def space(self) -> str:
        """What makes the vectors of texts: the weights' hash, and that of a head that embeds them."""
        return f"{self.weights}+{self.texts}" if self.texts else self.weights

    def same_vectors(self, other: EncoderIdentity) -> bool:
        """True when both map every text to the same vector (all fields but `name` agree)."""
        return {**asdict(self), "name": ""} == {**asdict(other), "name": ""}

    def to_json(self) -> dict[str, Any]:
        """Without `demonstrations` and `texts` where there is no head, as indexes had it before there were
        such."""
        told = asdict(self)
        return {n: v for n, v in told.items() if v or n not in {"demonstrations", "texts"}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EncoderIdentity:
        return cls(**data)


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors. Must be safe to call from several threads."""

    @property
    def identity(self) -> EncoderIdentity:
        """Known without loading the weights into memory."""
        ...

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """Vectors of `texts`, shape (len(texts), dimension), float32, in the order given."""
        ...


def check_vectors(vectors: NDArray[np.floating[Any]], count: int, identity: EncoderIdentity) -> Vectors:
    """`vectors` as float32 of shape (count, identity.dimension).

    Raises EncoderError where the shape differs or a value is NaN or infinite.
    """
    expected = (count, identity.dimension)
    if vectors.shape != expected:
        raise EncoderError(
            f"The encoder {identity.name} returned vectors of shape {vectors.shape}, not {expected}.",
            "Its configuration and its weights do not belong together: install the model again.",
        )
    if not np.isfinite(vectors).all():
        raise EncoderError(
            f"The encoder {identity.name} returned values that are not finite numbers.",
            "Try it in full precision: load_encoder(..., backend='torch-fp32').",
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


def describe_mismatch(index_identity: EncoderIdentity, given_identity: EncoderIdentity) -> str:
    """The message of an EncoderMismatchError: which fields differ, each with both values.

    Empty where the two give the same vectors.
    """
    if index_identity.same_vectors(given_identity):
        return ""
    held, given = index_identity.to_json(), given_identity.to_json()
    names = [name for name in {**held, **given} if name != "name" and held.get(name) != given.get(name)]
    fields = "; ".join(f"{n}: {held.get(n, '')!r} in the index, {given.get(n, '')!r} given" for n in names)
    return (
        f"The index was made with the encoder {index_identity.name or 'without a name'}, "
        f"not with {given_identity.name or 'the one given'} ({fields})."
    )
