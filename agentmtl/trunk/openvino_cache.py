"""Networks converted to OpenVINO, kept in the cache: made once, checked, hashed, and made again when damaged.

A cached network is a folder named by what it was made from, holding network.xml, network.bin and made.json
with the hash of both. The folder is renamed into place when complete. A network whose results stray from
torch's in fp32 is refused, and made.json says so.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentmtl.errors import EncoderError
from agentmtl.trunk.cache import file_sha256, read_json, write_json
from agentmtl.trunk.processor import available_cores, has_bf16
from agentmtl.trunk.torch_network import quiet_transformers

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_FILES = ("network.xml", "network.bin")
_NOTE = "made.json"
_LEAST_LIKENESS = 0.999
TORCH_HINT = "Use --backend torch-fp32."


def key_of(*parts: object) -> str:
    """The name of a network made from `parts` by this version of OpenVINO."""
    import openvino

    return hashlib.sha256(repr((*parts, openvino.__version__)).encode()).hexdigest()[:32]


def cached_network(key: str, cache_dir: Path, convert: Callable[[Path], float]) -> Path:
    """The network.xml of `key`, made where it is absent or damaged.

    `convert` writes the network to the path it is given and returns how like torch's its results are (a
    cosine). Raises EncoderError where it cannot be converted, strays, or cannot be kept.
    """
    folder = cache_dir / "openvino" / key
    note = read_json(folder / _NOTE)
    if "refused" in note:
        raise EncoderError(f"OpenVINO's results stray from torch's (cosine {note['refused']}).", TORCH_HINT)
    if note and not _intact(folder, note, cache_dir):
        _log.warning("the converted network %s is damaged; it is made again", folder)
        note = {}
    if not note:
        _make(folder, cache_dir, convert)
    return folder / _FILES[0]


def _intact(folder: Path, note: dict[str, object], cache_dir: Path) -> bool:
    try:
        return all(note.get(name) == file_sha256(folder / name, cache_dir) for name in _FILES)
    except OSError:
        return False


def _make(folder: Path, cache_dir: Path, convert: Callable[[Path], float]) -> None:
    """Converts into a new folder, checks, hashes, renames into place."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    except OSError as error:
        raise EncoderError(
            f"The converted network cannot be kept in {folder.parent}: {error}.", "Set AGENTMTL_CACHE_DIR."
        ) from error
    try:
        likeness = convert(fresh / _FILES[0])
        if likeness < _LEAST_LIKENESS:
            _publish_refusal(fresh, likeness, folder)
            raise EncoderError(f"OpenVINO's results stray from torch's (cosine {likeness:.5f}).", TORCH_HINT)
        hashes: dict[str, object] = {name: file_sha256(fresh / name, cache_dir) for name in _FILES}
        write_json(fresh / _NOTE, {**hashes, "cosine": likeness})
        _put(fresh, folder)
    except OSError as error:
        raise EncoderError(f"{folder} cannot be written: {error}.", "Set AGENTMTL_CACHE_DIR.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _publish_refusal(fresh: Path, likeness: float, folder: Path) -> None:
    for name in _FILES:
        (fresh / name).unlink()
    write_json(fresh / _NOTE, {"refused": round(likeness, 5)})
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


def save_converted(module: torch.nn.Module, example: dict[str, Any], target: Path, name: str) -> None:
    """Converts a torch module with inputs of any batch and length, and writes it to `target`.

    Raises EncoderError where OpenVINO cannot.
    """
    import openvino
    import torch

    _log.info("converting %s for this processor, once …", name)
    try:
        with torch.no_grad(), quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every constant it folds; the check decides
            converted = openvino.convert_model(
                module, example_input=example, input=[(given, [-1, -1]) for given in example]
            )
        openvino.save_model(converted, str(target), compress_to_fp16=False)
    except (RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(f"OpenVINO cannot convert {name}: {error}.", TORCH_HINT) from error


def compiled_queue(network: Path) -> tuple[Any, int]:
    """A queue of single-threaded streams, one a core, and their number; bf16 where the processor has it.

    Raises EncoderError where the network does not open.
    """
    import openvino

    workers = available_cores()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if has_bf16() else "f32",
        "NUM_STREAMS": str(workers),
        "INFERENCE_NUM_THREADS": str(workers),
        # Pinned streams stall where another process holds their core.
        "ENABLE_CPU_PINNING": "NO",
    }
    try:
        compiled = openvino.Core().compile_model(str(network), "CPU", settings)
    except RuntimeError as error:
        raise EncoderError(f"OpenVINO cannot open {network}: {error}.", "Delete that folder.") from error
    return openvino.AsyncInferQueue(compiled, workers), workers
