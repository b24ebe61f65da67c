"""Models that are no plain transformer (dense layers, other poolings), run by sentence-transformers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.trunk.encoder import EncoderIdentity, Side, Vectors, check_vectors
from agentmtl.trunk.model_files import ModelFiles


class SentenceTransformerEncoder:
    """fp32, opened at the first `encode`. Importing sentence-transformers takes several seconds."""

    backend = "sentence-transformers"

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._model: Any = None

    @property
    def identity(self) -> EncoderIdentity:
        return self._files.identity

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """Vectors of shape (len(texts), dimension), float32. Raises EncoderError where it does not load."""
        if not texts:
            return np.zeros((0, self.identity.dimension), dtype=np.float32)
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        prompt = self.identity.query_prefix if side == "query" else self.identity.document_prefix
        with self._lock:
            if self._model is None:
                self._model = _open_sentence_transformer(self._files)
            encode = self._model.encode_query if side == "query" else self._model.encode_document
            vectors = encode(
                clean,
                prompt=prompt,
                normalize_embeddings=self.identity.normalised,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return check_vectors(vectors, len(texts), self.identity)


def _open_sentence_transformer(files: ModelFiles) -> Any:
    try:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            str(files.folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except ImportError as error:
        raise EncoderError(
            f"sentence-transformers cannot be imported: {error}.", "pip install agentmtl"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise EncoderError(
            f"The model {files.folder} cannot be loaded: {error}.", "Install the model again."
        ) from error
    model.max_seq_length = files.identity.max_length
    return model
