"""The shared suite over every encoder that ships."""

from __future__ import annotations

from langchain_core.embeddings import DeterministicFakeEmbedding

from agentmtl.trunk import Encoder, HashingEncoder, load_encoder
from agentmtl.trunk.conformance import EncoderConformance

from .default_model import default_encoder, needs_bf16, needs_model, needs_openvino


class TestHashing(EncoderConformance):
    least_cosine = 1.0

    def make(self) -> Encoder:
        return HashingEncoder(64)

    def test_texts_are_told_apart(self, encoder: Encoder) -> None:
        vectors = encoder.encode(["the cat sat", "a dog ran", "the cat sat down"])
        assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]


class TestWrappedEmbeddings(EncoderConformance):
    least_cosine = 0.99999

    def make(self) -> Encoder:
        return load_encoder(DeterministicFakeEmbedding(size=48))

    def test_empty_text_and_lone_surrogate(self, encoder: Encoder) -> None:
        assert encoder.encode([""]).shape == (1, 48)  # this embedding itself refuses lone surrogates


@needs_model
@needs_openvino
class TestOpenVino(EncoderConformance):
    def make(self) -> Encoder:
        return default_encoder("openvino")


@needs_model
@needs_bf16
class TestTorchBf16(EncoderConformance):
    def make(self) -> Encoder:
        return default_encoder("torch-bf16")


@needs_model
class TestTorchFp32(EncoderConformance):
    def make(self) -> Encoder:
        return default_encoder("torch-fp32")
