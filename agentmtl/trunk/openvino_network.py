"""The transformer in OpenVINO, bf16: converted once from the torch module, then opened from the cache.

A cached network is a folder named by the weights' hash, the OpenVINO version, the pooling and this file's
format, holding network.xml, network.bin and made.json with the hash of both. The folder is renamed into
place when complete. A network whose vectors stray from torch's in fp32 is refused, and made.json says so.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.trunk.cache import file_sha256, read_json, write_json
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.processor import available_cores
from agentmtl.trunk.tokens import Batch, TokenCutter, pack

_log = logging.getLogger(__name__)
_FORMAT = 1
_FILES = ("network.xml", "network.bin")
_NOTE = "made.json"
_LEAST_COSINE = 0.999
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
        import openvino

        self.workers = available_cores()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "NUM_STREAMS": str(self.workers),
            "INFERENCE_NUM_THREADS": str(self.workers),
            # Pinned streams stall where another process holds their core.
            "ENABLE_CPU_PINNING": "NO",
        }
        try:
            compiled = openvino.Core().compile_model(str(network), "CPU", settings)
        except RuntimeError as error:
            raise EncoderError(f"OpenVINO cannot open {network}: {error}.", "Delete that folder.") from error
        self._queue = openvino.AsyncInferQueue(compiled, self.workers)
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
    folder = cache_dir / "openvino" / _key(files)
    note = read_json(folder / _NOTE)
    if "refused" in note:
        raise EncoderError(f"OpenVINO's vectors stray from torch's (cosine {note['refused']}).", _TORCH_HINT)
    if note and not _intact(folder, note, cache_dir):
        _log.warning("the converted network %s is damaged; it is made again", folder)
        note = {}
    if note:
        return OpenVinoNetwork(folder / _FILES[0])
    return _make(files, cutter, folder, cache_dir)


_TORCH_HINT = "Use --backend torch-bf16 or torch-fp32."


def _key(files: ModelFiles) -> str:
    import openvino

    identity = files.identity
    parts = (identity.weights, identity.pooling, identity.normalised, openvino.__version__, _FORMAT)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _intact(folder: Path, note: dict[str, object], cache_dir: Path) -> bool:
    try:
        return all(note.get(name) == file_sha256(folder / name, cache_dir) for name in _FILES)
    except OSError:
        return False


def _make(files: ModelFiles, cutter: TokenCutter, folder: Path, cache_dir: Path) -> OpenVinoNetwork:
    """Converts into a new folder, checks, hashes, renames into place."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    except OSError as error:
        raise EncoderError(
            f"The converted network cannot be kept in {folder.parent}: {error}.", "Set AGENTMTL_CACHE_DIR."
        ) from error
    try:
        cosine = _convert(files, cutter, fresh / _FILES[0])
        if cosine < _LEAST_COSINE:
            _publish_refusal(fresh, cosine, folder)
            raise EncoderError(f"OpenVINO's vectors stray from torch's (cosine {cosine:.5f}).", _TORCH_HINT)
        hashes: dict[str, object] = {name: file_sha256(fresh / name, cache_dir) for name in _FILES}
        write_json(fresh / _NOTE, {**hashes, "cosine": cosine})
        _put(fresh, folder)
    except OSError as error:
        raise EncoderError(f"{folder} cannot be written: {error}.", "Set AGENTMTL_CACHE_DIR.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return OpenVinoNetwork(folder / _FILES[0])


def _publish_refusal(fresh: Path, cosine: float, folder: Path) -> None:
    for name in _FILES:
        (fresh / name).unlink()
    write_json(fresh / _NOTE, {"refused": round(cosine, 5)})
    _put(fresh, folder)


def _put(fresh: Path, folder: Path) -> None:
    """Renames `fresh` to `folder`, over a damaged one; where another process was first, its stays."""
    if folder.exists():
        doomed = fresh.with_name(f"{fresh.name}-old")
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    try:
        fresh.rename(folder)
    except OSError:
        if not (folder / _NOTE).is_file():
            raise


def _convert(files: ModelFiles, cutter: TokenCutter, target: Path) -> float:
    """Writes the network to `target`; the least cosine to torch in fp32 over a few fixed texts."""
    import openvino
    import torch

    from agentmtl.trunk.torch_network import TorchNetwork, quiet_transformers

    reference = TorchNetwork(files, bf16=False)
    ids, mask = torch.ones((2, 16), dtype=torch.long), torch.ones((2, 16), dtype=torch.long)
    mask[1, 9:] = 0  # a padded example, so that tracing keeps the mask
    _log.info("converting %s to OpenVINO, once", files.identity.name)
    try:
        with torch.no_grad(), quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every constant it folds; the check decides
            converted = openvino.convert_model(
                reference.module,
                example_input={"input_ids": ids, "attention_mask": mask},
                input=[("input_ids", [-1, -1]), ("attention_mask", [-1, -1])],
            )
        openvino.save_model(converted, str(target), compress_to_fp16=False)
    except (RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(f"OpenVINO cannot convert {files.folder}: {error}.", _TORCH_HINT) from error
    made = _vectors(OpenVinoNetwork(target), files, cutter)
    return _least_cosine(made, _vectors(reference, files, cutter))


def _vectors(network: Any, files: ModelFiles, cutter: TokenCutter) -> Vectors:
    """Vectors of the check texts: each alone, then all padded into one batch."""
    tokens = cutter.cut(_CHECK_TEXTS)
    out = np.empty((2, len(tokens), files.identity.dimension), dtype=np.float32)
    network.run(pack(tokens, 1, cutter.pad_id, network.multiple), out[0])
    together = len(tokens) * (files.identity.max_length + network.multiple)
    network.run(pack(tokens, together, cutter.pad_id), out[1])
    return out.reshape(-1, files.identity.dimension)


def _least_cosine(made: Vectors, wanted: Vectors) -> float:
    """Not a number, where a vector is not finite, counts as -1."""
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines = np.sum(made * wanted, axis=1) / lengths
    return float(np.nan_to_num(cosines, nan=-1.0).min())
