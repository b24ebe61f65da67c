"""An encoder that is loaded when it is first asked for a vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Side, Vectors


class LazyEncoder:
    """`identity` is known without it; `load` gives it, the same every time."""

    def __init__(self, identity: Callable[[], EncoderIdentity], load: Callable[[], Encoder]) -> None:
        self._identity, self._load = identity, load

    @property
    def identity(self) -> EncoderIdentity:
        return self._identity()

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """As the encoder does. Raises what loading it raises."""
        return self._load().encode(texts, side)
