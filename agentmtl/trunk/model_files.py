"""What the files of a sentence-transformers model say, read without torch.

    modules.json                        the chain of modules: Transformer, Pooling, Normalize, …
    sentence_bert_config.json           maximum length, lower-casing
    1_Pooling/config.json               pooling mode and dimension
    config_sentence_transformers.json   prompts (prefixes), similarity function
    config.json, tokenizer_config.json  width, limits and padding token where the above are silent

A folder without modules.json is a bare transformer: mean pooling, as sentence-transformers has it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmtl.errors import EncoderError
from agentmtl.trunk.cache import file_sha256
from agentmtl.trunk.encoder import EncoderIdentity

# Right-padded encoders with absolute positions, whose output at a position does not depend on the padding.
_PLAIN_TYPES = frozenset({"bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"})
_PLAIN_CHAINS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_AGAIN = "Install the model again."
_NAME_HINT = "Give the folder of a sentence-transformers model, or its hub name."
_NO_LIMIT = 1_000_000  # tokenizers write 10^30 for "none"
_DEFAULT_LENGTH = 512


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's folder, its identity, and whether it is a plain transformer.

    Plain: a known transformer with a fast tokenizer, pooled by mean or first token, perhaps normalised. Only
    plain models take the fast paths; the others run in sentence-transformers.
    """

    folder: Path
    identity: EncoderIdentity
    plain: bool
    pad_token: str = "[PAD]"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"


def read_model_files(folder: Path, name: str, cache_dir: Path) -> ModelFiles:
    """Reads the configuration and hashes the weights (remembered in `cache_dir`).

    Raises EncoderError where a file is missing or does not parse, where the weights are only a pickle, or
    where the model needs code of its own.
    """
    modules = _modules(folder)
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    folders = [folder / str(module.get("path", "")) for module in modules]
    pooling_folder = folders[kinds.index("Pooling")] if "Pooling" in kinds else folder / "1_Pooling"
    transformer, pooling = _object(folders[0] / "config.json"), _object(pooling_folder / "config.json")
    sbert, extra = (_object(folders[0] / "sentence_bert_config.json"), _sentence_config(folder))
    tokenizer = _object(folders[0] / "tokenizer_config.json")
    mode = _pooling_mode(pooling)
    prompts = _prompts(extra)
    identity = EncoderIdentity(
        weights=f"sha256:{_weights_sha256(folder, folders, cache_dir)}",
        dimension=_dimension(kinds, folders, pooling, transformer, mode),
        pooling=mode,
        normalised=_normalised(kinds, extra),
        max_length=_max_length(sbert, tokenizer, transformer),
        query_prefix=prompts["query"],
        document_prefix=prompts["document"],
        name=name,
    )
    plain = _is_plain(kinds, folders[0], transformer, sbert, pooling, identity)
    return ModelFiles(folders[0] if plain else folder, identity, plain, _pad_token(tokenizer))


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where the file is absent."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EncoderError(f"The model file {path} cannot be read: {error}.", _AGAIN) from None
    if not isinstance(data, dict):
        raise EncoderError(f"The model file {path} holds no JSON object.", _AGAIN)
    return data


def _sentence_config(folder: Path) -> dict[str, Any]:
    return _object(folder / "config_sentence_transformers.json")


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / "modules.json"
    if not path.is_file():
        if not (folder / "config.json").is_file():
            raise EncoderError(f"{folder} holds no model: no modules.json and no config.json.", _NAME_HINT)
        return [{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "1_Pooling"}]
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        kinds = [str(module["type"]) for module in modules]
        inside = [(folder / module.get("path", "")).resolve() for module in modules]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(f"The model file {path} cannot be read: {error}.", _AGAIN) from None
    foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    if foreign or not kinds or not all(place.is_relative_to(folder.resolve()) for place in inside):
        raise EncoderError(
            f"The model {folder} needs code of its own ({', '.join(foreign) or path}), which is never run.",
            "Choose a model made of sentence-transformers' own modules.",
        )
    return list(modules)


def _weights_sha256(folder: Path, folders: list[Path], cache_dir: Path) -> str:
    """Of the weights file; of the files' digests in order where there are several (shards, dense layers)."""
    places = dict.fromkeys([folder, *folders])
    files = [path for place in places for path in sorted(place.glob("model*.safetensors"))]
    pickles = [p for place in places if not any(place.glob("*.safetensors")) for p in place.glob("*.bin")]
    if pickles or not files:
        what = f"only as a pickle ({pickles[0].name})" if pickles else "in no model.safetensors"
        raise EncoderError(
            f"The model {folder} holds weights {what}; a pickle can run code and is never loaded.",
            "Choose a revision with model.safetensors, or save the model again with save_pretrained().",
        )
    digests = [file_sha256(path, cache_dir) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _pooling_mode(pooling: dict[str, Any]) -> str:
    """One mode, or several joined by "+" (their vectors are concatenated). Mean where nothing is said."""
    given = pooling.get("pooling_mode")
    modes = [given] if isinstance(given, str) else list(given or [])
    modes = modes or [mode for key, mode in _LEGACY_POOLING.items() if pooling.get(key)]
    return "+".join(str(mode) for mode in modes) or "mean"


def _dimension(
    kinds: list[str], folders: list[Path], pooling: dict[str, Any], transformer: dict[str, Any], mode: str
) -> int:
    dense = [place for kind, place in zip(kinds, folders, strict=True) if kind == "Dense"]
    if dense:
        return int(_object(dense[-1] / "config.json").get("out_features", 0))
    width = pooling.get("embedding_dimension") or pooling.get("word_embedding_dimension")
    width = width or transformer.get("hidden_size") or transformer.get("dim")
    if not width:
        raise EncoderError(f"The model {folders[0]} does not say its dimension.", _AGAIN)
    return int(width) * len(mode.split("+"))


def _normalised(kinds: list[str], extra: dict[str, Any]) -> bool:
    """False only where the model asks for another similarity than cosine, sentence-transformers' default."""
    return "Normalize" in kinds or extra.get("similarity_fn_name") in (None, "cosine")


def _max_length(sbert: dict[str, Any], tokenizer: dict[str, Any], transformer: dict[str, Any]) -> int:
    if sbert.get("max_seq_length"):
        return int(sbert["max_seq_length"])
    stated = (tokenizer.get("model_max_length"), transformer.get("max_position_embeddings"))
    return int(min((n for n in stated if n and 0 < n < _NO_LIMIT), default=_DEFAULT_LENGTH))


def _prompts(extra: dict[str, Any]) -> dict[str, str]:
    """The prefix of each side, chosen as sentence-transformers' encode_query and encode_document do."""
    prompts = {str(k): str(v or "") for k, v in (extra.get("prompts") or {}).items()}
    default = prompts.get(str(extra.get("default_prompt_name")), "")
    document = next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), default)
    return {"query": prompts.get("query", default), "document": document}


def _pad_token(tokenizer: dict[str, Any]) -> str:
    token = tokenizer.get("pad_token", "[PAD]")
    return str(token["content"] if isinstance(token, dict) else token)


def _is_plain(
    kinds: list[str],
    folder: Path,
    transformer: dict[str, Any],
    sbert: dict[str, Any],
    pooling: dict[str, Any],
    identity: EncoderIdentity,
) -> bool:
    prefixed = identity.query_prefix or identity.document_prefix
    return (
        kinds in _PLAIN_CHAINS
        and transformer.get("model_type") in _PLAIN_TYPES
        and "auto_map" not in transformer
        and identity.pooling in ("mean", "cls")
        and not sbert.get("do_lower_case")
        and not (prefixed and pooling.get("include_prompt") is False)
        and (folder / "tokenizer.json").is_file()
    )
