"""The trunk's states of every token of short texts, for decoders that attend to them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.tokens import TokenCutter, pack
from agentmtl.trunk.torch_network import load_transformer

LONGEST = 64  # tokens of a text that are read
_BUDGET = 4096  # padded tokens of a batch

States = tuple[NDArray[np.float32], NDArray[np.int64]]  # (m, d) and ids (m,), special tokens included


class QueryStates:
    """Reads texts with the trunk in torch, fp32. Opened at first use; threads take turns."""

    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self._lock = threading.Lock()
        self._opened: tuple[Any, TokenCutter] | None = None

    def words(self) -> NDArray[np.float32]:
        """The trunk's word vectors (v, d). Raises EncoderError where it does not load."""
        with self._lock:
            weight = self._open()[0].get_input_embeddings().weight
        found: NDArray[np.float32] = weight.detach().float().numpy()
        return found

    def read(self, texts: Sequence[str]) -> list[States]:
        """The states of each text, cut at `LONGEST` tokens. Raises EncoderError where the trunk does not
        load."""
        import torch

        found: list[States] = [(np.empty((0, 0), np.float32), np.empty(0, np.int64))] * len(texts)
        if not texts:
            return found
        with self._lock, torch.inference_mode():
            transformer, cutter = self._open()
            tokens = [
                ids if len(ids) <= LONGEST else [*ids[: LONGEST - 1], ids[-1]] for ids in cutter.cut(texts)
            ]
            for batch in pack(tokens, _BUDGET, cutter.pad_id):
                hidden = transformer(
                    input_ids=torch.from_numpy(batch.ids), attention_mask=torch.from_numpy(batch.mask)
                ).last_hidden_state.float()
                for place, row in enumerate(batch.rows.tolist()):
                    n = len(tokens[row])
                    found[row] = hidden[place, :n].numpy().copy(), batch.ids[place, :n].copy()
        return found

    def _open(self) -> tuple[Any, TokenCutter]:
        if self._opened is None:
            import torch

            transformer = load_transformer(self.files, torch.float32).eval()
            self._opened = transformer, TokenCutter(self.files)
        return self._opened
