"""The tests every encoder must pass. A plug-in's author subclasses and gives `make`:

    from agentmtl.trunk.conformance import EncoderConformance

    class TestMyEncoder(EncoderConformance):
        def make(self) -> Encoder:
            return MyEncoder()

pytest collects the subclass (its name starts with "Test"), not this class.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Side, Vectors

TEXTS = (
    "The lighthouse at Skerry Point was built in 1848.",
    "Its keeper kept bees.",
    "x",
    "Ærø, 東京, Ελλάδα, हिन्दी and العربية",
    "family: \U0001f468\u200d\U0001f469\u200d\U0001f467, zero-width\u200bspace, combining e\u0301",
    "tab\tnewline\nnull\x00bell\x07",
    " ".join(f"word{i}" for i in range(2000)),
)
SIDES: tuple[Side, ...] = ("query", "document")


class EncoderConformance:
    """Shapes, order, finiteness, unit length, identity, repeatability and thread safety."""

    least_cosine = 0.999  # of the same text alone and in a batch: low precision may round differently

    def make(self) -> Encoder:
        """A ready encoder. Called once per test; a costly one may be shared."""
        raise NotImplementedError

    @pytest.fixture
    def encoder(self) -> Encoder:
        return self.make()

    def test_is_an_encoder(self, encoder: Encoder) -> None:
        assert isinstance(encoder, Encoder)

    def test_identity_is_stable_and_survives_json(self, encoder: Encoder) -> None:
        before = encoder.identity
        encoder.encode(["a text"])
        restored = EncoderIdentity.from_json(json.loads(json.dumps(before.to_json())))
        assert encoder.identity == before == restored
        assert before.weights.startswith(("sha256:", "name:"))
        assert before.dimension > 0

    def test_two_instances_have_one_identity(self, encoder: Encoder) -> None:
        assert self.make().identity.same_vectors(encoder.identity)

    @pytest.mark.parametrize("side", SIDES)
    def test_shape_type_and_finiteness(self, encoder: Encoder, side: Side) -> None:
        vectors = encoder.encode(TEXTS, side)
        assert vectors.shape == (len(TEXTS), encoder.identity.dimension)
        assert vectors.dtype == np.float32
        assert vectors.flags.c_contiguous
        assert np.isfinite(vectors).all()

    def test_unit_length_where_promised(self, encoder: Encoder) -> None:
        if encoder.identity.normalised:
            lengths = np.linalg.norm(encoder.encode(TEXTS), axis=1)
            np.testing.assert_allclose(lengths, 1.0, atol=1e-3)

    def test_no_texts(self, encoder: Encoder) -> None:
        assert encoder.encode([]).shape == (0, encoder.identity.dimension)

    def test_empty_text_and_lone_surrogate(self, encoder: Encoder) -> None:
        vectors = encoder.encode(["", "lone \ud800 surrogate"])
        assert np.isfinite(vectors).all()

    def test_repeats_exactly(self, encoder: Encoder) -> None:
        assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))

    def test_order_is_kept(self, encoder: Encoder) -> None:
        forward, backward = encoder.encode(TEXTS), encoder.encode(TEXTS[::-1])
        assert self.close(forward, backward[::-1])

    def test_batch_does_not_matter(self, encoder: Encoder) -> None:
        alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
        assert self.close(encoder.encode(TEXTS), alone)

    def test_texts_are_told_apart(self, encoder: Encoder) -> None:
        vectors = encoder.encode(TEXTS)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        others = unit @ unit.T - 2 * np.eye(len(TEXTS))
        assert others.max() < self.least_cosine

    def test_input_is_left_alone(self, encoder: Encoder) -> None:
        texts = list(TEXTS)
        encoder.encode(texts)
        assert texts == list(TEXTS)

    def test_threads_get_their_own_vectors(self, encoder: Encoder) -> None:
        wanted = [encoder.encode([text]) for text in TEXTS]
        with ThreadPoolExecutor(4) as pool:
            given = list(pool.map(lambda text: encoder.encode([text]), TEXTS * 3))
        assert all(self.close(vector, wanted[i % len(TEXTS)]) for i, vector in enumerate(given))

    def close(self, one: Vectors, other: Vectors) -> bool:
        """Every row's cosine is at least `least_cosine`; exact equality where that is 1."""
        if self.least_cosine >= 1:
            return bool(np.array_equal(one, other))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return bool(((one * other).sum(axis=1) / lengths >= self.least_cosine).all())
