"""Vectors of texts kept on disk, so that a run that comes again does not encode them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from agentmtl.trunk.encoder import Encoder, Side, Vectors

_AT_ONCE = 512


def kept_vectors(
    encoder: Encoder,
    texts: Sequence[str],
    side: Side,
    folder: Path,
    watch: Callable[[int, int], None] = lambda encoded, of: None,
) -> Vectors:
    """(n, d), from a file in `folder` that is named by the encoder and all texts, written where it is not
    there. `watch` is told how many texts are encoded, of how many. Raises EncoderError."""
    path = folder / f"vectors-{_key(encoder, texts, side)}.npy"
    if path.is_file():
        found: Vectors = np.load(path, allow_pickle=False)
        return found
    parts = []
    for at in range(0, len(texts), _AT_ONCE):
        parts.append(encoder.encode(texts[at : at + _AT_ONCE], side))
        watch(min(at + _AT_ONCE, len(texts)), len(texts))
    vectors = np.concatenate(parts) if parts else encoder.encode([], side)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors, allow_pickle=False)
    return vectors


def _key(encoder: Encoder, texts: Sequence[str], side: Side) -> str:
    identity = encoder.identity
    digest = hashlib.sha256(f"{identity.space} {identity.max_length} {side}".encode())
    for text in texts:
        digest.update(text.encode("utf-8", "replace") + b"\0")
    return digest.hexdigest()[:16]
