"""The trunk's token means of texts, each read once: what a head without adapters needs to embed them.

Such a head is a layer over the trunk's last hidden states, and the mean of a layer's outputs is the layer's
output of the mean. So many heads can be trained and compared at the cost of encoding the texts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.headed import VECTOR, pooled
from agentmtl.trunk.heads import Head, HeadCard, save_head
from agentmtl.trunk.model_files import ModelFiles

_DIGEST = 16


def unchanged_head(files: ModelFiles, max_length: int) -> Head:
    """The head whose vectors are the trunk's."""
    width = files.identity.dimension
    card = HeadCard(
        task="trunk", trunk=files.identity.weights, trunk_name=files.identity.name, rank=0, scale=1.0,
        max_length=max_length, outputs={VECTOR: width},
    )  # fmt: skip
    return Head(card, {}, {VECTOR: (np.eye(width, dtype=np.float32), np.zeros(width, np.float32))})


class TokenMeans:
    """Reads texts, and keeps what it read in a folder of its own for that trunk and length."""

    def __init__(self, files: ModelFiles, root: Path, max_length: int, backend: str = "auto") -> None:
        name = f"means-{files.identity.weights.rpartition(':')[2][:12]}-{max_length}"
        self._folder = root / name
        if not (self._folder / "trunk").is_dir():
            save_head(unchanged_head(files, max_length), self._folder / "trunk")
        self._network = open_head(self._folder / "trunk", backend)
        self._known: dict[bytes, Vectors] = {}
        for path in sorted(self._folder.glob("*.npz")):
            with np.load(path, allow_pickle=False) as kept:
                digests, rows = kept["digests"], kept["rows"]
            self._known |= {digest.tobytes(): row for digest, row in zip(digests, rows, strict=True)}

    def of(self, texts: Sequence[str]) -> Vectors:
        """(n, d), not normalised. Raises EncoderError where the trunk cannot run."""
        digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest()[:_DIGEST] for text in texts]
        missing = {d: t for d, t in zip(digests, texts, strict=True) if d not in self._known}
        if missing:
            self._read(missing)
        return np.stack([self._known[digest] for digest in digests])

    def _read(self, missing: dict[bytes, str]) -> None:
        rows = pooled(self._network, list(missing.values()))
        self._known |= dict(zip(missing, rows, strict=True))
        digests = np.frombuffer(b"".join(missing), np.uint8).reshape(-1, _DIGEST)
        named = hashlib.sha256(digests.tobytes()).hexdigest()[:16]
        np.savez(self._folder / f"{named}.npz", digests=digests, rows=rows)
