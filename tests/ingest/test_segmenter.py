"""Cuts between topics: the dynamic programme against all possible cuts, and chunks that lose nothing."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl import Document, Index
from agentmtl.errors import UsageError
from agentmtl.ingest import Chunking, cut
from agentmtl.ingest.segmenter import best_cuts, gap_features, shipped
from agentmtl.trunk import HashingEncoder

SHIPS = "The ship left the harbour at dawn. Her captain set the sails of the ship. The ship met a storm. "
BREAD = "Bread is baked from flour and water. The baker kneads flour. Dough rises before bread is baked. "


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-4, 4), min_size=1, max_size=7),
    data=st.data(),
    least=st.integers(1, 12),
    most=st.integers(8, 30),
    penalty=st.floats(0, 2),
)
def test_the_best_cuts_are_the_best_of_all(
    logits: list[float], data: st.DataObject, least: int, most: int, penalty: float
) -> None:
    n = len(logits) + 1
    sizes = data.draw(st.lists(st.integers(1, 10), min_size=n, max_size=n))

    def worth(cuts: tuple[int, ...]) -> float:
        edges = [0, *cuts, n]
        pieces = [sum(sizes[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
        lengths = [b - a for a, b in zip(edges, edges[1:], strict=False)]
        if any(p > most and size > 1 for p, size in zip(pieces, lengths, strict=True)):
            return -np.inf
        short = sum(50.0 * max(0, least - p) / max(least, 1) for p in pieces)
        return sum(logits[c - 1] - penalty for c in cuts) - short

    every = [c for k in range(n) for c in combinations(range(1, n), k)]
    found = best_cuts(np.array(logits), sizes, least, most, penalty)
    assert worth(tuple(found)) == pytest.approx(max(map(worth, every)))


def test_features_have_a_row_a_gap_and_see_the_change() -> None:
    sentences = [s.strip() + "." for s in (SHIPS + BREAD).split(". ") if s.strip()]
    vectors = HashingEncoder(256).encode(sentences)
    assert gap_features(sentences[:1], vectors[:1]).shape[0] == 0
    logits = shipped().logits(sentences, vectors)
    assert int(np.argmax(logits)) + 1 == 3 and len(logits) == len(sentences) - 1


def test_topics_cover_every_sentence_once_and_are_the_same_again() -> None:
    encoder = HashingEncoder(128)
    document = Document("d", (SHIPS + BREAD) * 4)
    chunking = Chunking(40, 0, "topics", 8)
    first, again = (cut(document, chunking, encoder.encode) for _ in range(2))
    assert first == again
    edges = [(p.start, p.end) for p in first.passages]
    assert all(a < b <= c for (a, b), (c, _) in zip(edges, edges[1:], strict=False))
    assert edges[0][0] == 0 and all(document.text[a:b].strip() for a, b in edges)
    starts = {s.start for s in first.sentences}
    assert sum(any(a <= s < b for a, b in edges) for s in starts) == len(starts)
    with pytest.raises(UsageError, match="encoder"):
        cut(document, chunking)
    with pytest.raises(UsageError, match="chunker"):
        Chunking(chunker="chapters")


def test_an_index_keeps_its_chunker_and_encodes_no_sentence_twice(tmp_path: Path) -> None:
    class Counting(HashingEncoder):
        texts = 0

        def encode(self, texts, side="document"):  # type: ignore[no-untyped-def]
            Counting.texts += len(texts)
            return super().encode(texts, side)

    chunking = Chunking(40, 0, "topics", 8)
    index = Index.create(
        tmp_path / "index", encoder=Counting(64), chunking=chunking, levels=("passage", "sentence")
    )
    index.add([Document("d", SHIPS + BREAD)])
    assert index.settings.chunking == chunking and len(index) >= 2
    assert Counting.texts == len(index) + 6
    opened = Index.open(index.folder, encoder=HashingEncoder(64))
    before = [h.id for h in opened.retrieve("bread flour")]
    opened.rebuild(encoder=HashingEncoder(64))
    assert [h.id for h in opened.retrieve("bread flour")] == before
