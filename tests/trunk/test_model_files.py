"""Configuration read without torch, weights checked, models refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentmtl.errors import EncoderError
from agentmtl.trunk import load_encoder
from agentmtl.trunk.cache import default_cache_dir, file_sha256
from agentmtl.trunk.model_files import read_model_files

CHAIN = [("", "Transformer"), ("1_Pooling", "Pooling")]


def write_model(folder: Path, chain: list[tuple[str, str]] = CHAIN, **files: dict[str, Any]) -> Path:
    """A model's configuration files with weights that are none (only their hash is looked at)."""
    contents: dict[str, Any] = {
        "modules.json": [
            {"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in chain
        ],
        "config.json": {"model_type": "bert", "hidden_size": 8, "max_position_embeddings": 64},
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
        "tokenizer.json": {},
        **{name.replace("__", "/") + ".json": value for name, value in files.items()},
    }
    for name, value in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_identity_follows_the_configuration(tmp_path: Path) -> None:
    folder = write_model(
        tmp_path / "m",
        sentence_bert_config={"max_seq_length": 32},
        config_sentence_transformers={"prompts": {"query": "query: ", "passage": "passage: "}},
    )
    files = read_model_files(folder, "mine", tmp_path)
    identity = files.identity
    assert files.plain
    assert identity.weights == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    assert (identity.dimension, identity.pooling, identity.normalised) == (8, "mean", True)
    assert (identity.max_length, identity.query_prefix, identity.document_prefix) == (
        32,
        "query: ",
        "passage: ",
    )


def test_limits_come_from_the_transformer_where_nothing_else_says(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", tokenizer_config={"model_max_length": 10**30})
    assert read_model_files(folder, "m", tmp_path).identity.max_length == 64


def test_dot_product_models_are_not_normalised(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", config_sentence_transformers={"similarity_fn_name": "dot"})
    assert not read_model_files(folder, "m", tmp_path).identity.normalised


@pytest.mark.parametrize(
    ("chain", "pooling", "mode", "dimension"),
    [
        (CHAIN, {"embedding_dimension": 8, "pooling_mode": "lasttoken"}, "lasttoken", 8),
        (CHAIN, {"word_embedding_dimension": 8, "pooling_mode": ["cls", "mean"]}, "cls+mean", 16),
        ([*CHAIN, ("2_Dense", "Dense")], {"word_embedding_dimension": 8}, "mean", 5),
    ],
)
def test_other_models_are_not_plain(
    tmp_path: Path, chain: list[tuple[str, str]], pooling: dict[str, Any], mode: str, dimension: int
) -> None:
    files = {"1_Pooling__config": pooling, "2_Dense__config": {"out_features": 5}}
    folder = write_model(tmp_path / "m", chain, **files)
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"dense")
    read = read_model_files(folder, "m", tmp_path)
    assert not read.plain
    assert (read.identity.pooling, read.identity.dimension) == (mode, dimension)
    with pytest.raises(EncoderError, match="no plain transformer"):
        load_encoder(str(folder), backend="torch-fp32", cache_dir=tmp_path)


def test_a_dense_layer_counts_among_the_weights(tmp_path: Path) -> None:
    folder = write_model(
        tmp_path / "m", [*CHAIN, ("2_Dense", "Dense")], **{"2_Dense__config": {"out_features": 5}}
    )
    weights = []
    for content in (b"one", b"another"):
        (folder / "2_Dense" / "model.safetensors").write_bytes(content)
        weights.append(read_model_files(folder, "m", tmp_path).identity.weights)
    assert weights[0] != weights[1]


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="only as a pickle"):
        load_encoder(str(folder), cache_dir=tmp_path)


@pytest.mark.parametrize(
    "modules",
    [
        [{"path": "", "type": "custom_st.Transformer"}],
        [{"path": "../elsewhere", "type": "sentence_transformers.models.Transformer"}],
        [{"path": ""}],
        [],
    ],
)
def test_foreign_code_and_paths_outside_are_refused(tmp_path: Path, modules: list[dict[str, str]]) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError):
        read_model_files(folder, "m", tmp_path)


def test_a_missing_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="no model 'no/such-model'") as raised:
        load_encoder("no/such-model", cache_dir=tmp_path)
    assert "offline" in raised.value.hint


def test_the_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    first = file_sha256(weights, tmp_path / "cache")
    stat = weights.stat()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("the file was read again"))
        assert file_sha256(weights, tmp_path / "cache") == first
    weights.write_bytes(b"two")  # same size, same inode; then the old modification time
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_sha256(weights, tmp_path / "cache") == hashlib.sha256(b"two").hexdigest()


def test_an_unwritable_cache_costs_only_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"in the way")
    assert file_sha256(blocked, blocked) == hashlib.sha256(b"in the way").hexdigest()


def test_the_cache_folder_follows_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMTL_CACHE_DIR", str(tmp_path / "here"))
    assert default_cache_dir() == tmp_path / "here"
