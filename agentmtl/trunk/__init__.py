"""The shared text encoder. Importing this loads no model library; `load_encoder` finds the model."""

from agentmtl.trunk.embeddings import EmbeddingsEncoder
from agentmtl.trunk.encoder import (
    Encoder,
    EncoderIdentity,
    Side,
    Vectors,
    check_vectors,
    describe_mismatch,
)
from agentmtl.trunk.hashing import HashingEncoder
from agentmtl.trunk.loading import load_encoder
from agentmtl.trunk.transformer import BACKENDS, TransformerEncoder

__all__ = [
    "BACKENDS",
    "EmbeddingsEncoder",
    "Encoder",
    "EncoderIdentity",
    "HashingEncoder",
    "Side",
    "TransformerEncoder",
    "Vectors",
    "check_vectors",
    "describe_mismatch",
    "load_encoder",
]
