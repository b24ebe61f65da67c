"""The learned segmenter: evidence against the likelihood it stands for, odds against all segmentations."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.ingest import Chunking
from agentmtl.ingest.segmenter import FEATURES, Segmenter
from agentmtl.ingest.topics import (
    CENTRE,
    LIKENESS,
    TopicSegmenter,
    boundary_odds,
    load_segmenter,
    save_segmenter,
    segmenter_for,
)
from agentmtl.trunk.loading import DEFAULT_SHA256

DEFAULT = f"sha256:{DEFAULT_SHA256}"


def made(rank: int = 3, dimension: int = 5, scale: float = 2.0) -> TopicSegmenter:
    random = np.random.default_rng(1)
    return TopicSegmenter(
        random.normal(size=(dimension, rank)).astype(np.float16).astype(float),
        np.float32([0.5, -0.25, 0.0][:rank]).astype(float), np.array([0.5, 1.0, 4.0])[:rank], scale,
        np.float32([[0, 0, 0, 0, 0], [0.5, -1, -2, -1, 0.25]]).astype(float), np.zeros(len(FEATURES)), 0.5,
        -0.25, {"format": 2, "trunk": "sha256:mine"},
    )  # fmt: skip


def test_evidence_is_the_likelihood_of_a_common_mean() -> None:
    segmenter, vectors = made(), np.random.default_rng(2).normal(size=(6, 5))
    places = vectors @ segmenter.projection + segmenter.offset
    places -= places.sum(axis=0) / (len(places) + CENTRE)
    found = segmenter.evidence(vectors)

    def log_density(rows: np.ndarray, spread: float) -> float:
        covariance = np.eye(len(rows)) + spread
        _, determinant = np.linalg.slogdet(covariance)
        return float(-0.5 * (determinant + rows @ np.linalg.solve(covariance, rows)))

    for end in range(1, 7):
        for size in range(1, end + 1):
            part = places[end - size : end]
            wanted = sum(
                log_density(part[:, d], segmenter.spread[d]) - log_density(part[:, d], 0.0) for d in range(3)
            )
            assert found[end - 1, size - 1] == pytest.approx(wanted * segmenter.scale)
        assert (found[end - 1, end:] == -np.inf).all()


def of(kind: np.ndarray, sizes: list[int]) -> float:
    """By what a kind of text multiplies the weight of segments of these sizes."""
    lengths = sum(kind[2] * (n == 1) + kind[3] * (n == 2) + kind[4] * np.log(n) for n in sizes)
    return float(np.exp(kind[0] + kind[1] * (len(sizes) - 1) + lengths))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 8), most=st.integers(1, 8), count=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_odds_are_those_over_all_segmentations(n: int, most: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    evidence = random.normal(size=(n, min(most, n))) * 2
    for end in range(1, n + 1):
        evidence[end - 1, end:] = -np.inf
    gaps, kinds = random.normal(size=n - 1), random.normal(size=(count, 5))
    weights = {}
    for cut in range(n):
        for cuts in combinations(range(1, n), cut):
            edges = [0, *cuts, n]
            pieces = list(zip(edges, edges[1:], strict=False))
            if all(b - a <= evidence.shape[1] for a, b in pieces):
                score = sum(evidence[b - 1, b - a - 1] for a, b in pieces) + sum(gaps[c - 1] for c in cuts)
                weights[cuts] = np.exp(score) * sum(of(kind, [b - a for a, b in pieces]) for kind in kinds)
    total = sum(weights.values())
    found = boundary_odds(evidence, gaps, kinds)
    for gap in range(1, n):
        chance = sum(w for cuts, w in weights.items() if gap in cuts) / total
        assert 1 / (1 + np.exp(-found[gap - 1])) == pytest.approx(chance, abs=1e-9)


def test_a_text_far_longer_than_a_segment_has_finite_odds() -> None:
    vectors = np.random.default_rng(3).normal(size=(400, 5))
    odds = made(scale=50.0).logits(["A sentence."] * 400, vectors)
    assert odds.shape == (399,) and np.isfinite(odds).all()
    assert made().logits(["One."], vectors[:1]).shape == (0,)


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    segmenter, vectors = made(), np.random.default_rng(4).normal(size=(9, 5))
    save_segmenter(segmenter, tmp_path)
    again = load_segmenter(tmp_path)
    assert np.allclose(again.evidence(vectors), segmenter.evidence(vectors), rtol=1e-6)
    assert (again.threshold, again.card) == (segmenter.threshold, segmenter.card)
    assert segmenter_for("sha256:mine", str(tmp_path)).boundaries(["A."] * 9, vectors) == again.boundaries(
        ["A."] * 9, vectors
    )
    with pytest.raises(UsageError, match="reads vectors of"):
        segmenter_for("sha256:another", str(tmp_path))
    with pytest.raises(UsageError, match="5 dimensions, not 4"):
        again.evidence(vectors[:, :4])
    with pytest.raises(UsageError, match="holds no segmenter"):
        segmenter_for("sha256:mine", str(tmp_path / "nothing"))


def test_the_default_encoder_has_its_own_and_any_other_goes_by_likeness() -> None:
    learned = segmenter_for(DEFAULT)
    assert isinstance(learned, TopicSegmenter) and learned.card["trunk"] == DEFAULT
    assert all(entry["licence"] != "not stated" for entry in learned.card["data"].values())
    assert isinstance(segmenter_for("name:hashing-v1"), Segmenter)
    assert isinstance(segmenter_for(DEFAULT, LIKENESS), Segmenter)


def test_a_chunking_names_its_segmenter() -> None:
    assert "segmenter" not in Chunking().to_json()
    named = Chunking(chunker="topics", segmenter="heads/mine")
    assert Chunking.from_json(named.to_json()) == named
