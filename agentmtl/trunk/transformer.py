"""A plain transformer encoder: tokenise, pack, run a network, put the vectors back in order.

The network is opened at the first `encode`, so that an encoder's identity costs no load. It is one of

    openvino     opened from the cache without torch; bf16 where the processor has it, else fp32
    torch-bf16   where the processor has bf16 instructions
    torch-fp32   everywhere

All give the same identity; their vectors agree to a cosine of at least 0.999.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.trunk.encoder import EncoderIdentity, Side, Vectors, check_vectors
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.processor import has_bf16
from agentmtl.trunk.tokens import Batch, TokenCutter, pack

_log = logging.getLogger(__name__)
Backend: TypeAlias = Literal["openvino", "torch-bf16", "torch-fp32"]
BACKENDS: tuple[Backend, ...] = ("openvino", "torch-bf16", "torch-fp32")
_WINDOW = 4096  # texts tokenised and sorted at once: bounds memory


class Network(Protocol):
    """A loaded transformer with its pooling; called by one thread at a time."""

    @property
    def budget(self) -> int:
        """Padded tokens in a batch, at most: the size at which it is fastest."""
        ...

    @property
    def workers(self) -> int:
        """Batches it runs side by side."""
        ...

    @property
    def multiple(self) -> int:
        """Batch widths it likes are multiples of this."""
        ...

    def run(self, batches: Iterable[Batch], out: Vectors) -> None:
        """Writes the pooled vectors of each batch to `out[batch.rows]`."""
        ...


class TransformerEncoder:
    """Encoder over a plain model; `backends` are tried in order until one opens."""

    def __init__(self, files: ModelFiles, backends: Sequence[Backend], cache_dir: Path) -> None:
        self._files = files
        self._backends = tuple(backends)
        self._cache_dir = cache_dir
        self._lock = threading.Lock()
        self._opened: tuple[Backend, Network, TokenCutter] | None = None

    @property
    def identity(self) -> EncoderIdentity:
        return self._files.identity

    @property
    def backend(self) -> Backend:
        """The backend in use; before the first `encode`, the one that will be tried first."""
        return self._opened[0] if self._opened else self._backends[0]

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """Vectors of shape (len(texts), dimension), float32, of unit length where the identity says so.

        Texts are cut at `max_length` tokens. Raises EncoderError where no backend opens or a value is not
        finite. Threads take turns: the network already uses every core.
        """
        identity = self.identity
        if not texts:
            return np.empty((0, identity.dimension), dtype=np.float32)
        out = np.empty((len(texts), identity.dimension), dtype=np.float32)
        prefix = identity.query_prefix if side == "query" else identity.document_prefix
        with self._lock:
            if self._opened is None:
                self._opened = open_network(self._files, self._backends, self._cache_dir)
            _, network, cutter = self._opened
            for start in range(0, len(texts), _WINDOW):
                window = [prefix + text for text in texts[start : start + _WINDOW]]
                encode_window(window, network, cutter, out[start : start + len(window)])
        return check_vectors(out, len(texts), identity)


def encode_window(texts: Sequence[str], network: Network, cutter: TokenCutter, out: Vectors) -> None:
    """Encodes a few thousand texts into `out`. Few texts are shared out among the workers."""
    tokens = cutter.cut(texts)
    share = -(-sum(map(len, tokens)) // network.workers)
    network.run(pack(tokens, min(network.budget, share), cutter.pad_id, network.multiple), out)


def choose_backends(
    requested: str, openvino_installed: bool, bf16: bool | None = None
) -> tuple[Backend, ...]:
    """Backends to try in order. `requested` is "auto" or one of BACKENDS; a named one is tried alone.

    Raises EncoderError for an unknown name, or for one that this machine cannot run.
    """
    able = has_bf16() if bf16 is None else bf16
    usable = {"openvino": openvino_installed, "torch-bf16": able, "torch-fp32": True}
    if requested == "auto":
        return tuple(name for name in BACKENDS if usable[name])
    if requested not in BACKENDS:
        raise EncoderError(
            f"There is no backend {requested!r}.", f"Use auto or one of {', '.join(BACKENDS)}."
        )
    if requested == "openvino" and not openvino_installed:
        raise EncoderError("The backend openvino needs openvino.", "pip install 'agentmtl[openvino]'")
    if requested == "torch-bf16" and not able:
        raise EncoderError(
            f"The backend {requested} computes in bf16, for which this processor has no instructions.",
            "Use --backend torch-fp32, or auto.",
        )
    return tuple(name for name in BACKENDS if name == requested)


def open_network(
    files: ModelFiles, backends: Sequence[Backend], cache_dir: Path
) -> tuple[Backend, Network, TokenCutter]:
    """The first of `backends` that opens. Each failure but the last is logged; the last is raised."""
    cutter = TokenCutter(files)
    for name in backends[:-1]:
        try:
            return name, _open(name, files, cutter, cache_dir), cutter
        except EncoderError as error:
            _log.warning("backend %s is not used: %s", name, error)
    return backends[-1], _open(backends[-1], files, cutter, cache_dir), cutter


def _open(backend: Backend, files: ModelFiles, cutter: TokenCutter, cache_dir: Path) -> Network:
    if backend == "openvino":
        from agentmtl.trunk.openvino_network import open_openvino

        return open_openvino(files, cutter, cache_dir)
    from agentmtl.trunk.torch_network import TorchNetwork

    return TorchNetwork(files, bf16=backend == "torch-bf16")
