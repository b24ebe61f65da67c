"""Filtered search is exact at any selectivity, in every channel and at every level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agentmtl.index.filters import parse
from agentmtl.index.store import Store
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Document, Level

from . import toy
from .filter_oracle import admits


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, toy.ToyEncoder, list[Document]]]:
    """200 documents in two segments, a tenth of them deleted again."""
    folder, encoder = tmp_path_factory.mktemp("filters") / "index", toy.ToyEncoder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTMTL_CACHE_DIR", str(folder.parent / "cache"))
        documents = [
            toy.document(f"d{i}", [i, i // 3, i // 7], i, part=i % 100, ten=i % 10) for i in range(200)
        ]
        toy.build(folder, documents[:120], encoder)
        toy.build(folder, documents[120:], encoder)
        toy.delete(folder, [f"d{i}" for i in range(5, 200, 10)])
        yield folder, encoder, [d for i, d in enumerate(documents) if i % 10 != 5]


@pytest.mark.parametrize("level", toy.LEVELS)
@pytest.mark.parametrize("where", ["part == 999", "part == 3", "ten == 3", "part >= 0"])
def test_filtered_search_equals_brute_force(
    big: tuple[Path, toy.ToyEncoder, list[Document]], level: Level, where: str
) -> None:
    folder, encoder, live = big
    retriever = Retriever(Store(folder).open(), encoder)
    config = retriever.snapshot.settings
    units = toy.oracle_units(live, config)[level]
    keep = [d for d in live if admits(parse(where), d)]
    allowed = toy.oracle_units(keep, config)[level]
    assert (len(keep) / len(live) < 0.02) == (where in ("part == 999", "part == 3"))
    for query in toy.QUERIES[:3]:
        vector = encoder.vector(query)
        bm25 = toy.oracle_bm25(units, query, config.k1, config.b)
        for k in (1, 10, 1000):
            dense = retriever.retrieve(vector, level=level, k=k, where=where)
            toy.assert_ranked(
                list(zip(dense.ids, map(float, dense.scores), strict=True)),
                toy.oracle_dense(allowed, encoder, vector),
                k,
            )
            lexical = retriever.retrieve(query, level=level, k=k, where=where, channel="lexical")
            toy.assert_ranked(
                list(zip(lexical.ids, map(float, lexical.scores), strict=True)),
                {i: s for i, s in bm25.items() if i in allowed},
                k,
            )
            fused = retriever.retrieve(query, level=level, k=k, where=where, vector=vector)
            assert set(fused.ids) <= set(allowed) and len(fused) == min(k, len(allowed), 1000)


def test_a_batch_is_filtered_like_one_query(big: tuple[Path, toy.ToyEncoder, list[Document]]) -> None:
    folder, encoder, _ = big
    retriever = Retriever(Store(folder).open(), encoder)
    rows = np.stack([encoder.vector(f"query {i}") for i in range(40)])
    for where in (None, "ten == 3", "part == 999"):
        for row, hits in zip(rows, retriever.retrieve_batch(rows, k=7, where=where), strict=True):
            one = retriever.retrieve(row, k=7, where=where)
            np.testing.assert_allclose(hits.scores, one.scores, rtol=0, atol=1e-5)
