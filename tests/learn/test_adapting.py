"""Adapting an encoder without labels: queries from a corpus, labels, losses, cycles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.learn.adapting import Listed, mined, soft_loss, with_labels
from agentmtl.learn.adapting_recipe import AdaptRecipe, adapt_encoder
from agentmtl.learn.pseudo_queries import KINDS, LONGEST, Pseudo, PseudoQueries
from agentmtl.learn.whitening import whitening
from agentmtl.retrieval.index import Index
from agentmtl.schema import Document
from agentmtl.trunk import load_encoder

from ..trunk.tiny import tiny_trunk

TEXTS = [
    f"Lamp number {n} is a lighthouse of {town}. It was built by {name} in {1800 + n}."
    for n, (town, name) in enumerate(
        (town, name) for town in ("Tarn", "Velby", "Molde", "Voss") for name in ("Holm", "Lund", "Vik") * 5
    )
]


def corpus(folder: Path, encoder: str) -> Index:
    index = Index.create(folder, encoder=encoder, backend="torch-fp32", levels=("passage",), streams=())
    index.add([Document(f"d{n}", text, f"Lamp {n}" if n % 2 else "") for n, text in enumerate(TEXTS)])
    return index


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99))
def test_queries_are_made_of_their_sources_words(seed: int) -> None:
    titles = [f"Lamp {n}" if n % 2 else "" for n in range(len(TEXTS))]
    made = PseudoQueries(TEXTS, titles).draw(60, seed)
    assert made == PseudoQueries(TEXTS, titles).draw(60, seed)
    assert len({one.text for one in made}) == len(made) == 60
    assert {one.kind for one in made} == set(KINDS)
    for one in made:
        assert 1 <= len(one.sources) <= LONGEST and len(set(one.sources)) == len(one.sources)
        if one.kind in ("sentence", "terms") and len(one.sources) == 1:
            told = " ".join(TEXTS[row] for row in one.sources).replace(".", "").split()
            assert set(one.text.replace(".", "").split()) <= set(told)
    assert any(len(one.sources) > 1 for one in made if one.kind == "chain")


def test_a_chain_is_held_together_by_rare_terms() -> None:
    texts = ["alpha beta gamma", "gamma delta", "delta epsilon", "zeta eta"]
    made = PseudoQueries(texts, [""] * 4).draw(40, 0)
    chains = [one.sources for one in made if len(one.sources) > 1]
    assert chains and all(3 not in rows for rows in chains)
    assert all(abs(a - b) == 1 for rows in chains for a, b in zip(rows, rows[1:], strict=False))


def test_candidates_are_sources_then_hits_of_both_channels() -> None:
    rng = np.random.default_rng(0)
    passages = rng.normal(size=(30, 8)).astype(np.float32)
    passages /= np.linalg.norm(passages, axis=1, keepdims=True)
    query = Pseudo("q", "terms", "x", (4, 7))
    found = mined([query], passages[4:5], passages, [[7, 20, 21, 22, 23]])[0]
    near = [n for n in np.argsort(-passages @ passages[4]).tolist() if n not in (4, 7)][:3]
    assert found.rows[:2] == (4, 7) and found.rows[2:5] == tuple(near)
    assert len(set(found.rows)) == len(found.rows) == 8
    assert found.labels[0] == pytest.approx(1) and all(0 <= label <= 1 for label in found.labels)
    cosine = float(passages[7] @ passages[4])
    assert found.labels[1] == pytest.approx(max(cosine, 0) + 0.5 * (1 - max(cosine, 0)), rel=1e-5)
    again = with_labels([found, found], [float(n) for n in range(16)])
    assert again[1].labels == tuple(float(n) for n in range(8, 16))


def test_the_soft_loss_is_what_it_is_by_hand() -> None:
    import torch

    scores = np.array([2.0, 1.0, -1.0, 0.5, 3.0])
    listed = Listed(Pseudo("q", "chain", "x", (0, 1)), (0, 1, 2), (0.9, 0.8, 0.1))
    places = [1, 3, 0]  # rows of the batch
    told = np.exp(np.array(listed.labels) / 0.05)
    told /= told.sum()
    own = np.exp(scores[places])
    own /= own.sum()
    wanted = float((told * np.log(told / own)).sum())
    rest = np.exp(scores[[0, 2, 4]]).sum()
    wanted += float(np.mean([np.log((np.exp(scores[n]) + rest) / np.exp(scores[n])) for n in (1, 3)]))
    assert float(soft_loss(torch.from_numpy(scores), places, listed)) == pytest.approx(wanted, rel=1e-5)


def test_cycles_end_in_an_encoder_of_ones_own(tmp_path: Path) -> None:
    files = tiny_trunk(tmp_path / "trunk")
    index = corpus(tmp_path / "ix", str(tmp_path / "trunk"))
    recipe = AdaptRecipe(rank=2, tokens=24, max_length=32, epochs=1, cycles=2, queries=48, held=12, rate=1e-3)
    head = adapt_encoder(index, tmp_path / "out", recipe, tmp_path / "means")
    assert head.card.calibration == {"sides": "all"}
    assert head.card.data["ix"]["train"] == 48 and head.card.data["ix"]["dev"] == 12
    report = (tmp_path / "out" / "report.json").read_text()
    assert all(name in report for name in ("frozen trunk", "cycle 1", "cycle 2"))
    again = adapt_encoder(index, tmp_path / "out", recipe, tmp_path / "means")
    for name, (a, _) in head.adapters.items():
        np.testing.assert_array_equal(again.adapters[name][0], a)
    spec = f"{tmp_path / 'trunk'}+{tmp_path / 'out'}"
    mine = corpus(tmp_path / "mine", spec)
    assert len(mine.retrieve("lamp number 7", k=3)) == 3
    with pytest.raises(UsageError, match="with a head already"):
        adapt_encoder(mine, tmp_path / "twice", recipe, tmp_path / "means")
    assert not load_encoder(spec).identity.same_vectors(files.identity)


def test_whitening_makes_what_varies_most_vary_less() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    spread = np.array([4.0, 2.0, 1.0, 1.0, 0.5, 0.25])
    rows = ((rng.normal(size=(20_000, 6)) * spread) @ axes.T + 3).astype(np.float32)
    for power, wanted in ((0.0, spread), (0.5, spread**0.5), (1.0, np.ones(6))):
        weight, bias = whitening(rows, power)
        found = rows @ weight.T + bias
        assert np.abs(found.mean(0)).max() < 0.01
        sizes = np.sqrt(np.linalg.eigvalsh(np.cov(found.T)))[::-1]
        np.testing.assert_allclose(sizes / sizes[0], wanted / wanted[0], rtol=0.05)


def test_few_passages_do_not_blow_up_what_none_of_them_takes() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    weight, _ = whitening(rows, 1.0)
    values = np.linalg.eigvalsh(weight)
    assert values.min() > 0 and values.max() / values.min() < 2


def test_passages_all_alike_are_only_centred() -> None:
    weight, bias = whitening(np.ones((50, 4), np.float32))
    np.testing.assert_array_equal(weight, np.eye(4))
    np.testing.assert_allclose(bias, -1)


def test_without_cycles_the_head_whitens_the_corpus(tmp_path: Path) -> None:
    tiny_trunk(tmp_path / "trunk")
    index = corpus(tmp_path / "ix", str(tmp_path / "trunk"))
    recipe = AdaptRecipe(max_length=32, tokens=24, queries=48, held=12)
    head = adapt_encoder(index, tmp_path / "out", recipe, tmp_path / "means")
    assert head.card.calibration == {"sides": "all"} and not head.adapters
    assert not np.allclose(head.outputs["vector"][0], np.eye(32), atol=1e-3)
    assert set(head.card.metrics["dev"]) == {"score", "trunk"} and head.card.data["ix"]["train"] == len(TEXTS)
    mine = corpus(tmp_path / "mine", f"{tmp_path / 'trunk'}+{tmp_path / 'out'}")
    told = [ix.encoder.encode(TEXTS, "document") for ix in (index, mine)]
    before, after = (np.linalg.svd(rows, compute_uv=False) for rows in told)
    assert after[0] / after.sum() < before[0] / before.sum()  # less of all is one direction
    assert mine.retrieve("lamp number 7", k=3)
    again = adapt_encoder(index, tmp_path / "out", recipe, tmp_path / "means")
    np.testing.assert_array_equal(again.outputs["vector"][0], head.outputs["vector"][0])
    with pytest.raises(UsageError, match="holds a head with other data or settings"):
        adapt_encoder(index, tmp_path / "out", replace(recipe, power=0.7), tmp_path / "means")
    for card in ('{"task": "identifiers"}', "{"):  # another kind of head, a damaged one
        (tmp_path / "out" / "card.json").write_text(card)
        with pytest.raises(UsageError, match="holds a head with other data or settings"):
            adapt_encoder(index, tmp_path / "out", recipe, tmp_path / "means")


def test_whitening_needs_fewer_passages_than_learning(tmp_path: Path) -> None:
    tiny_trunk(tmp_path / "trunk")
    index = Index.create(tmp_path / "ix", encoder=str(tmp_path / "trunk"), levels=("passage",))
    index.add([Document(str(n), text) for n, text in enumerate(TEXTS[:40])])
    recipe = AdaptRecipe(max_length=32, tokens=24)
    head = adapt_encoder(index, tmp_path / "out", recipe, tmp_path / "means")
    assert head.card.data["ix"]["train"] == 40 and head.card.data["ix"]["dev"] > 0
    with pytest.raises(UsageError, match="or leave --cycles away"):
        adapt_encoder(index, tmp_path / "more", replace(recipe, cycles=1, queries=20), tmp_path / "means")


def test_too_small_an_index_is_refused(tmp_path: Path) -> None:
    tiny_trunk(tmp_path / "trunk")
    index = Index.create(tmp_path / "ix", encoder=str(tmp_path / "trunk"), levels=("passage",))
    index.add([Document("d", "One sentence stands here alone.")])
    with pytest.raises(UsageError, match="has 1 passages, which give"):
        adapt_encoder(index, tmp_path / "out", AdaptRecipe(queries=50, held=10), tmp_path)
