"""Texts embedded by a head: whose vectors come from the trunk as training has bent it.

A `HeadedEncoder` is an encoder like any other, but that a head embeds for it. Most heads are for labelled
examples (`side="demonstration"`), and what they are searched with: they learned which examples help with
which inputs (`agentmtl train demonstrations`); documents, passages and questions keep the trunk's own
vectors, so that one index holds both. A head whose card says `"sides": "all"` (`agentmtl train encoder`)
embeds every text, which makes it another encoder altogether: its identity is not the trunk's, and neither
are its indexes. Its name is the trunk's and the head's: "default+demonstrations" for the head that comes
with the package, "default+heads/mine" for one of a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Side, Vectors, check_vectors
from agentmtl.trunk.head_network import HeadNetwork, open_head
from agentmtl.trunk.heads import TENSORS, shipped_head

VECTOR = "vector"  # the output of heads that embed: a vector a token, of which the mean is a text's
BETWEEN = "+"  # a trunk's name and a head's
SIDES, ALL = "sides", "all"  # of a head's card: that it embeds every text
_TINY = 1e-9
_AT_ONCE = 512  # texts whose tokens' vectors are held at the same time


def embed(network: HeadNetwork, texts: Sequence[str]) -> Vectors:
    """(n, d), of unit length. Raises EncoderError where the head cannot run."""
    return normalised(pooled(network, texts))


def normalised(rows: Vectors) -> Vectors:
    """(n, d), of unit length."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _TINY), np.float32)


def pooled(network: HeadNetwork, texts: Sequence[str]) -> Vectors:
    """(n, d): the mean of a text's tokens, of any length. Raises EncoderError where the head cannot run."""
    rows: list[Vectors] = []
    for at in range(0, len(texts), _AT_ONCE):
        windows = network.cutter.singles(texts[at : at + _AT_ONCE])
        rows += [logits[VECTOR].mean(axis=0) for logits in network.run(windows)]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


class HeadedEncoder:
    """See the top of this module. Safe to call from several threads, as the trunk is."""

    def __init__(self, trunk: Encoder, head: Path, backend: str = "auto") -> None:
        """Raises EncoderError for a head of another task or trunk."""
        self._trunk, self._network = trunk, open_head(head, backend)
        self._network.head.check_output(VECTOR)
        self._network.head.check_trunk(trunk.identity)
        digest = hashlib.sha256((head / TENSORS).read_bytes()).hexdigest()
        card = self._network.head.card
        self._whole = card.calibration.get(SIDES) == ALL
        named = replace(trunk.identity, name=BETWEEN.join((trunk.identity.name, _name_of(head))))
        if self._whole:
            self._identity = replace(named, max_length=card.max_length, texts=f"sha256:{digest}")
        else:
            instructed = "instructed " if card.calibration.get("instruct", False) else ""
            self._identity = replace(named, demonstrations=f"{instructed}sha256:{digest}")

    @property
    def identity(self) -> EncoderIdentity:
        return self._identity

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """Vectors (len(texts), dimension), float32. Raises EncoderError where trunk or head cannot run."""
        if side != "demonstration" and not self._whole:
            return self._trunk.encode(texts, side)
        if not texts:
            return np.empty((0, self._identity.dimension), np.float32)
        return check_vectors(embed(self._network, texts), len(texts), self._identity)


def _name_of(head: Path) -> str:
    """By which an index finds it again: the name it comes with the package by, or its folder."""
    return head.name if shipped_head(head.name) == head else str(head.resolve())


def split_name(spec: str) -> tuple[str, Path] | None:
    """The trunk's name and the head's folder of "TRUNK+HEAD"; None for the name of a trunk alone.

    Raises EncoderError for a head that is not there.
    """
    trunk, between, head = spec.partition(BETWEEN)
    if not between or Path(spec).exists():
        return None
    folder = shipped_head(head) or Path(head)
    if not folder.is_dir():
        raise EncoderError(
            f"There is no head {head!r}: the package has none of that name, and no folder is called so.",
            "Train one: agentmtl train demonstrations --data DIR --out heads/mine",
        )
    return trunk, folder
