"""The default model over its backends: one identity, close vectors, a cache that heals."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from agentmtl.errors import EncoderError
from agentmtl.trunk import TransformerEncoder, load_encoder, transformer
from agentmtl.trunk.model_files import ModelFiles

from .default_model import default_encoder, models, needs_bf16, needs_model, needs_openvino

pytestmark = needs_model
TEXTS = [
    "Who designed the bridge?",
    "The bridge over the Tay was designed by Thomas Bouch and opened in 1878.",
    "word " * 600,
    "",
]


def default_files(cache_dir: Path) -> ModelFiles:
    encoder = load_encoder("default", cache_dir=cache_dir)
    assert isinstance(encoder, TransformerEncoder)
    return encoder._files


@needs_openvino
@pytest.mark.parametrize("backend", ["openvino", pytest.param("torch-bf16", marks=needs_bf16)])
def test_fast_backends_agree_with_full_precision(backend: str) -> None:
    exact, fast = default_encoder("torch-fp32"), default_encoder(backend)
    assert fast.identity == exact.identity
    cosines = np.sum(exact.encode(TEXTS) * fast.encode(TEXTS), axis=1)
    assert cosines.min() >= 0.999


def test_related_texts_are_nearer_than_unrelated_ones() -> None:
    query = default_encoder("torch-fp32").encode([TEXTS[0]], "query")[0]
    related, unrelated = default_encoder("torch-fp32").encode([TEXTS[1], "Bees make honey from nectar."])
    assert query @ related > query @ unrelated + 0.2


def test_a_text_is_cut_at_the_maximum_length() -> None:
    encoder = default_encoder("torch-fp32")
    long, longer = encoder.encode(["word " * 300, "word " * 300 + "and something else"])
    np.testing.assert_allclose(long, longer, atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("name", ["network.bin", "network.xml", "made.json"])
def test_a_damaged_conversion_is_made_again(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from agentmtl.trunk import openvino_network

    made = default_encoder("openvino").encode(TEXTS)  # the shared conversion exists from here on
    identity = default_files(models()).identity
    key = openvino_network.key_of(
        identity.weights, identity.pooling, identity.normalised, openvino_network._FORMAT
    )
    source, copied = (folder / "openvino" / key / "network.xml" for folder in (models(), tmp_path))
    shutil.copytree(source.parent, copied.parent)
    damaged = copied.with_name(name)
    damaged.write_bytes(damaged.read_bytes()[:-100])

    def convert(files: ModelFiles, cutter: object, target: Path) -> float:
        shutil.copy(source, target)
        shutil.copy(source.with_suffix(".bin"), target.with_suffix(".bin"))
        return 1.0

    monkeypatch.setattr(openvino_network, "_convert", convert)
    with caplog.at_level(logging.WARNING):
        vectors = load_encoder("default", backend="openvino", cache_dir=tmp_path).encode(TEXTS)
    np.testing.assert_array_equal(vectors, made)
    assert damaged.stat().st_size == (source.parent / name).stat().st_size or name == "made.json"
    assert not list(tmp_path.glob("openvino/.new-*"))


@needs_openvino
@pytest.mark.slow
def test_a_conversion_from_nothing_is_close_and_kept(tmp_path: Path) -> None:
    made = load_encoder("default", backend="openvino", cache_dir=tmp_path).encode(TEXTS)
    opened = load_encoder("default", backend="openvino", cache_dir=tmp_path).encode(TEXTS)
    np.testing.assert_array_equal(made, opened)
    note = json.loads(next(tmp_path.glob("openvino/*/made.json")).read_text())
    assert note["cosine"] >= 0.999


@needs_openvino
def test_a_conversion_that_strays_is_refused_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentmtl.trunk import openvino_network
    from agentmtl.trunk.tokens import TokenCutter

    conversions: list[Path] = []

    def convert(files: ModelFiles, cutter: TokenCutter, target: Path) -> float:
        conversions.append(target)
        for name in ("network.xml", "network.bin"):
            (target.parent / name).write_bytes(b"strays")
        return 0.98

    monkeypatch.setattr(openvino_network, "_convert", convert)
    files = default_files(models())
    for _ in range(2):
        with pytest.raises(EncoderError, match=r"stray .*0\.98"):
            openvino_network.open_openvino(files, TokenCutter(files), tmp_path)
    assert len(conversions) == 1


def test_a_backend_that_does_not_open_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = transformer._open

    def refuse(backend: transformer.Backend, *rest: object) -> transformer.Network:
        if backend == "openvino":
            raise EncoderError("not today")
        return opened("torch-fp32", *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(transformer, "_open", refuse)
    encoder = TransformerEncoder(default_files(models()), ("openvino", "torch-fp32"), models())
    assert encoder.backend == "openvino"
    assert encoder.encode(["x"]).shape == (1, 384)
    assert encoder.backend == "torch-fp32"
    assert "not today" in caplog.text


@pytest.mark.slow
def test_other_poolings_run_in_sentence_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(default_files(models()).folder, folder)
    pooling = {"word_embedding_dimension": 384, "pooling_mode": ["cls", "mean"]}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    encoder = load_encoder(str(folder), cache_dir=tmp_path)
    vectors = encoder.encode([*TEXTS, "lone \ud800 surrogate"])
    assert encoder.identity.pooling == "cls+mean"
    assert vectors.shape == (len(TEXTS) + 1, 768)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_first_token_pooling_equals_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "model"
    shutil.copytree(default_files(models()).folder, folder)
    pooling = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "ask: ", "document": ""}})
    )
    encoder = load_encoder(str(folder), backend="torch-fp32", cache_dir=tmp_path)
    reference = SentenceTransformer(str(folder), device="cpu")
    for vectors, wanted in (
        (encoder.encode(TEXTS, "query"), reference.encode_query(TEXTS)),
        (encoder.encode(TEXTS, "document"), reference.encode_document(TEXTS)),
    ):
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)
