"""A head on the fast path: the trunk with the head merged in, run over windows of text pairs.

The backends are those of the encoder (`agentmtl.trunk.transformer`); all give the same answers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError
from agentmtl.trunk.cache import default_cache_dir
from agentmtl.trunk.head_module import merged_module
from agentmtl.trunk.heads import TENSORS, Head, load_head
from agentmtl.trunk.loading import model_files
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PaddedWindows, PairCutter, Window
from agentmtl.trunk.transformer import Backend, choose_backends

_BUDGET = 2048  # padded tokens of a batch, at most
_LEAST = 192  # and at least, where there is so much
_SHARES = 2  # batches that a worker gets when all fits in few
_FORMAT = 1
_PASSAGE = "The river Ærø rises above the town in 1234 and reaches the sea at 東京 after ninety kilometres. "
_CHECK = (("Where does it rise?", _PASSAGE), ("x", ""), ("Who?", _PASSAGE * 12))

Logits = Mapping[str, NDArray[np.float32]]


class HeadNetwork:
    """Runs one head. Opened at first use; threads take turns."""

    def __init__(self, folder: Path, files: ModelFiles, backends: Sequence[Backend], cache_dir: Path) -> None:
        """Raises EncoderError where the head is damaged or made for another trunk."""
        self.head = load_head(folder)
        self.head.check_trunk(files.identity)
        self.cutter = PairCutter(files, self.head.card.max_length)
        raw = (folder / TENSORS).read_bytes()
        self.bytes = len(raw)
        self._digest = hashlib.sha256(raw).hexdigest()
        self._files, self._backends, self._cache_dir = files, tuple(backends), cache_dir
        self._lock = threading.Lock()
        self._runner: _Torch | _OpenVino | None = None

    def run(self, windows: Sequence[Window]) -> list[Logits]:
        """For each window the logits of every output, (its tokens, numbers), in fp32; where the head speaks
        of the first token alone (1, numbers).

        Raises EncoderError where no backend opens.
        """
        with self._lock:
            if self._runner is None:
                self._runner = self._open()
            found: list[Logits] = [{}] * len(windows)
            for rows in batches(windows, self._runner.workers):
                self._runner.start(rows, self.cutter.pad([windows[row] for row in rows]))
            for rows, outputs in self._runner.finish():
                for at, row in enumerate(rows):
                    n = len(windows[row].ids)
                    found[row] = {name: logits[at, :n] for name, logits in outputs.items()}
        return found

    def _open(self) -> _Torch | _OpenVino:
        last: EncoderError | None = None
        for backend in self._backends:
            try:
                if backend == "openvino":
                    return _OpenVino(self.head, self._digest, self._files, self.cutter, self._cache_dir)
                return _Torch(self.head, self._files, bf16=backend == "torch-bf16")
            except EncoderError as error:
                last = error
        raise last or EncoderError("No backend is given.", "Use --backend auto.")


def open_head(folder: Path, backend: str = "auto") -> HeadNetwork:
    """A head on the trunk that its card names, not yet in memory.

    Raises EncoderError where the head is damaged, its trunk is not there or another, or the backend cannot
    run here.
    """
    backends = choose_backends(backend, importlib.util.find_spec("openvino") is not None)
    trunk = load_head(folder).card.trunk_name
    return HeadNetwork(folder, model_files(trunk), backends, default_cache_dir())


def batches(windows: Sequence[Window], workers: int) -> list[list[int]]:
    """Rows of like length, the longest first, in batches of at most `_BUDGET` padded tokens.

    Smaller ones where there is little to do, so that every worker gets its share.
    """
    total = sum(len(window.ids) for window in windows)
    budget = min(_BUDGET, max(_LEAST, total // (_SHARES * workers))) if workers > 1 else _BUDGET
    order = sorted(range(len(windows)), key=lambda i: (-len(windows[i].ids), i))
    found = []
    while order:
        size = max(1, budget // len(windows[order[0]].ids))
        found.append(order[:size])
        order = order[size:]
    return found


class _Torch:
    workers = 1

    def __init__(self, head: Head, files: ModelFiles, bf16: bool) -> None:
        import torch

        self._module = merged_module(files, head)
        self._context = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        self._done: list[tuple[list[int], Logits]] = []

    def start(self, rows: list[int], windows: PaddedWindows) -> None:
        import torch

        with torch.inference_mode(), self._context:
            given = (torch.from_numpy(a) for a in (windows.ids, windows.mask, windows.types))
            outputs = {name: t.float().numpy() for name, t in self._module(*given).items()}
        self._done.append((rows, outputs))

    def finish(self) -> list[tuple[list[int], Logits]]:
        done, self._done = self._done, []
        return done


class _OpenVino:
    def __init__(
        self, head: Head, digest: str, files: ModelFiles, cutter: PairCutter, cache_dir: Path
    ) -> None:
        from agentmtl.trunk.openvino_cache import cached_network, compiled_queue, key_of

        self._names = list(head.card.outputs)
        outputs = json.dumps(dict(head.card.outputs))
        card = head.card
        key = key_of(
            "head", files.identity.weights, digest, outputs, card.scale, card.layers, card.first_only, _FORMAT
        )
        network = cached_network(key, cache_dir, lambda target: self._convert(head, files, cutter, target))
        self._attach(compiled_queue(network))

    def _attach(self, queue: tuple[Any, int]) -> None:
        self._queue, self.workers = queue
        self._done: list[tuple[list[int], Logits]] = []
        self._queue.set_callback(self._keep)

    def start(self, rows: list[int], windows: PaddedWindows) -> None:
        inputs = {"input_ids": windows.ids, "attention_mask": windows.mask, "token_type_ids": windows.types}
        self._queue.start_async(inputs, userdata=rows)

    def _keep(self, request: Any, rows: Any) -> None:
        outputs = {n: request.get_output_tensor(i).data.copy() for i, n in enumerate(self._names)}
        self._done.append((rows, outputs))

    def finish(self) -> list[tuple[list[int], Logits]]:
        self._queue.wait_all()
        done, self._done = self._done, []
        return done

    def _convert(self, head: Head, files: ModelFiles, cutter: PairCutter, target: Path) -> float:
        """Writes the network; the least cosine of its logits to torch's in fp32 over a few pairs."""
        import torch

        from agentmtl.trunk.openvino_cache import compiled_queue, save_converted
        from agentmtl.trunk.openvino_network import least_cosine

        module = _ordered(merged_module(files, head), self._names)
        example = {
            name: torch.ones((2, 16), dtype=torch.long)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        example["attention_mask"][1, 9:] = 0  # a padded example, so that tracing keeps the mask
        example["token_type_ids"][:, :4] = 0
        save_converted(module, example, target, f"the head {head.card.task}")
        self._attach(compiled_queue(target))
        windows = cutter.windows([q for q, _ in _CHECK], [p for _, p in _CHECK])
        padded = cutter.pad(windows)
        self.start([0], padded)
        made = self.finish()[0][1]
        with torch.inference_mode():
            given = (torch.from_numpy(a) for a in (padded.ids, padded.mask, padded.types))
            wanted = dict(zip(self._names, (t.numpy() for t in module(*given)), strict=True))
        real = padded.mask.astype(bool)
        flat = [
            np.concatenate([x[n][real[:, : x[n].shape[1]]].ravel() for n in self._names])[None]
            for x in (made, wanted)
        ]
        return least_cosine(flat[0], flat[1])


def _ordered(module: Any, names: Sequence[str]) -> Any:
    """The module with its outputs as a tuple, in the order of `names`."""
    import torch

    class Ordered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            found = self.inner(input_ids, attention_mask, token_type_ids)
            return tuple(found[name] for name in names)

    return Ordered().eval()
