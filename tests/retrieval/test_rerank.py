"""Reranking over a tiny trunk: a permutation by score, its training, its evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentmtl.errors import EncoderError, UsageError
from agentmtl.evaluate.reranking import evaluate_reranker
from agentmtl.learn.ranking import Group, best_weight, mean_mrr
from agentmtl.learn.reranker_recipe import RerankerRecipe, train_reranker
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.rerank import Reranker, load_reranker, standardised
from agentmtl.schema import Document
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import save_head
from tests.trunk.tiny import tiny_trunk

TOWNS = ("Oslo", "Bergen", "Molde", "Narvik", "Hamar", "Voss", "Bodø", "Skien")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A reading set, and the reranker trained on it."""
    place = tmp_path_factory.mktemp("reranker")
    data = place / "set"
    data.mkdir()
    rows = [
        {"id": f"q{i}", "title": f"Article {i}",
         "context": f"The bridge of {TOWNS[i % 8]} number {i} was opened in {1800 + i}.",
         "question": f"When was the bridge of {TOWNS[i % 8]} number {i} opened?", "answerable": True,
         "answers": [{"text": str(1800 + i), "start": 0}]}
        for i in range(80)
    ]  # fmt: skip
    for row in rows:
        row["answers"][0]["start"] = str(row["context"]).index(row["answers"][0]["text"])  # type: ignore[index]
    for name in ("train", "test"):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = tiny_trunk(place / "trunk")
    recipe = RerankerRecipe(rank=4, layers=1, max_length=64, epochs=1, rate=2e-3, batch=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentmtl.learn.ranking.index_for", hashing_index)
        train_reranker(files, [data], place / "head", recipe, place / "ix")
    return data, place


def hashing_index(data, root, **others):  # type: ignore[no-untyped-def]
    from agentmtl.evaluate.indexes import index_for

    return index_for(data, root, **{**others, "encoder": "hashing:128"})


def reranker(place: Path) -> Reranker:
    files = tiny_trunk(place / "again")
    return Reranker(HeadNetwork(place / "head", files, ("torch-fp32",), place / "cache"))


def test_hits_are_reordered_by_what_they_are_said_to_be_worth(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:128")
    index.add(
        [Document(f"d{i}", f"The bridge of {town} was opened in {1800 + i}.") for i, town in enumerate(TOWNS)]
    )
    used = reranker(trained[1])
    hits = index.retrieve("bridge of Molde", k=8)
    reordered = used.rerank("bridge of Molde", hits, depth=5)
    assert sorted(reordered.ids) == sorted(hits.ids) and reordered.ids[5:] == hits.ids[5:]
    own = used.score("bridge of Molde", [h.unit for h in hits[:5]])
    total = standardised(np.array([h.score for h in hits[:5]])) + used.weight * own
    assert reordered.ids[:5] == [hits.ids[i] for i in np.argsort(-total, kind="stable")]
    assert all(a >= b for a, b in zip(reordered.scores, reordered.scores[1:], strict=False))
    assert all("reranker" in h.channels and "dense" in h.channels for h in reordered[:5])
    assert "reranker" not in reordered[6].channels
    assert used.rerank("nothing", index.retrieve("x", where='source == "none"')).ids == []


def test_a_head_without_a_weight_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    network = reranker(trained[1])._network
    save_head(replace(network.head, card=replace(network.head.card, calibration={})), tmp_path)
    with pytest.raises(EncoderError, match="weight"):
        Reranker(HeadNetwork(tmp_path, network._files, ("torch-fp32",), tmp_path))


def test_a_run_leaves_a_head_with_its_card_and_report(trained: tuple[Path, Path]) -> None:
    place = trained[1] / "head"
    card = json.loads((place / "card.json").read_text())
    assert card["task"] == "reranker" and card["data"]["set"]["train"] > 50
    assert 0 <= card["metrics"]["dev"]["mrr-fused"] <= card["metrics"]["dev"]["score"] <= 1
    assert (place / "report.json").is_file() and (place / "curves.png").stat().st_size > 5_000


def test_it_is_measured_against_the_fused_search(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, place = trained
    report = evaluate_reranker(data, reranker(place), index_root=tmp_path, encoder="hashing:128", limit=10)
    assert report.n == 10 and set(report.methods) == {"fused", "reranked"}
    gained = report.differences["reranked - fused"]["mrr@10"].mean
    columns = report.methods
    assert gained == pytest.approx(columns["reranked"]["mrr@10"].mean - columns["fused"]["mrr@10"].mean)


def test_the_weight_is_the_one_that_ranks_best() -> None:
    groups = [
        Group("1", "s", "g", "q", ("a", "b"), (2.0, 1.0), (False, True), np.eye(2, dtype=np.float32)),
        Group("2", "s", "h", "q", ("a", "b"), (2.0, 1.0), (True, False), np.eye(2, dtype=np.float32)),
    ]
    own = [[-1.0, 1.0], [0.1, 0.0]]
    assert mean_mrr(groups, own, 0.0) == 0.75
    weight, mrr = best_weight(groups, own)
    assert mrr == 1.0 and weight > 0


def test_without_a_shipped_head_it_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentmtl.retrieval.rerank.shipped_head", lambda task: None)
    with pytest.raises(UsageError, match="No reranker"):
        load_reranker()
