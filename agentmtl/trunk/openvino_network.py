"""The encoder in OpenVINO: converted once from the torch module, then opened from the cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.openvino_cache import cached_network, compiled_queue, key_of, save_converted
from agentmtl.trunk.tokens import Batch, TokenCutter, pack

_FORMAT = 1
_BUDGET = 768  # measured flat from 256 to 1024 at 200 tokens and on ragged texts
_MULTIPLE = 4  # fewer shapes to prepare kernels for, hardly more padding
_SENTENCE = "The river rises in the hills above the town and reaches the sea after ninety kilometres. "
_ODD = "Ærø, 東京 and Ελλάδα – 1,234.5 km²"
_CHECK_TEXTS = ("", "x", "Who wrote it?", _ODD, _SENTENCE, _SENTENCE * 9, _SENTENCE * 60)


class OpenVinoNetwork:
    """One single-threaded stream per core: small batches keep every core busy, so little is padded."""

    budget = _BUDGET
    multiple = _MULTIPLE

    def __init__(self, network: Path) -> None:
        self._queue, self.workers = compiled_queue(network)
        self._out: Vectors = np.empty((0, 0), dtype=np.float32)
        self._queue.set_callback(self._keep)

    def run(self, batches: Iterable[Batch], out: Vectors) -> None:
        """Writes the pooled vectors of each batch to `out[batch.rows]`."""
        self._out = out
        try:
            for batch in batches:
                inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
                self._queue.start_async(inputs, userdata=batch.rows)
        finally:
            self._queue.wait_all()
            self._out = np.empty((0, 0), dtype=np.float32)

    def _keep(self, request: Any, rows: Any) -> None:
        self._out[rows] = request.get_output_tensor(0).data


def open_openvino(files: ModelFiles, cutter: TokenCutter, cache_dir: Path) -> OpenVinoNetwork:
    """The network from the cache, converted (and checked against torch) where it is absent or damaged.

    Raises EncoderError where it cannot be converted, or strays from torch in fp32.
    """
    identity = files.identity
    key = key_of(identity.weights, identity.pooling, identity.normalised, _FORMAT)
    return OpenVinoNetwork(cached_network(key, cache_dir, lambda target: _convert(files, cutter, target)))


def _convert(files: ModelFiles, cutter: TokenCutter, target: Path) -> float:
    """Writes the network to `target`; the least cosine to torch in fp32 over a few fixed texts."""
    import torch

    from agentmtl.trunk.torch_network import TorchNetwork

    reference = TorchNetwork(files, bf16=False)
    ids, mask = torch.ones((2, 16), dtype=torch.long), torch.ones((2, 16), dtype=torch.long)
    mask[1, 9:] = 0  # a padded example, so that tracing keeps the mask
    example = {"input_ids": ids, "attention_mask": mask}
    save_converted(reference.module, example, target, files.identity.name)
    made = _vectors(OpenVinoNetwork(target), files, cutter)
    return least_cosine(made, _vectors(reference, files, cutter))


def _vectors(network: Any, files: ModelFiles, cutter: TokenCutter) -> Vectors:
    """Vectors of the check texts: each alone, then all padded into one batch."""
    tokens = cutter.cut(_CHECK_TEXTS)
    out = np.empty((2, len(tokens), files.identity.dimension), dtype=np.float32)
    network.run(pack(tokens, 1, cutter.pad_id, network.multiple), out[0])
    together = len(tokens) * (files.identity.max_length + network.multiple)
    network.run(pack(tokens, together, cutter.pad_id), out[1])
    return out.reshape(-1, files.identity.dimension)


def least_cosine(made: Vectors, wanted: Vectors) -> float:
    """The least of the rows' cosines. Not a number, where a vector is not finite, counts as −1."""
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines = np.sum(made * wanted, axis=1) / lengths
    return float(np.nan_to_num(cosines, nan=-1.0).min())
