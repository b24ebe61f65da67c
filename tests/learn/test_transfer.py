"""Heads alone, together and merged, and the query side distilled, over a tiny trunk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agentmtl.errors import EncoderError, UsageError
from agentmtl.evaluate.indexes import index_for as real_index_for
from agentmtl.evaluate.reranking import evaluate_reranker
from agentmtl.learn.distil import QueriesRecipe, train_queries
from agentmtl.learn.reranker_recipe import RerankerRecipe, train_reranker
from agentmtl.learn.transfer import KINDS, TASKS, TransferRecipe, merge, train_transfer
from agentmtl.learn.transfer_report import evaluate_heads
from agentmtl.retrieval.query_tower import QueryTower, load_query_tower
from agentmtl.retrieval.rerank import Reranker
from agentmtl.trunk.head_module import merged_module
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import Head, load_head, save_head
from agentmtl.trunk.model_files import ModelFiles
from tests.learn.worlds import multihop_set, reading_set
from tests.trunk.tiny import random_head, tiny_trunk


def hashing_index(data, root, **others):  # type: ignore[no-untyped-def]
    return real_index_for(data, root, **{**others, "encoder": "hashing:32"})


@pytest.fixture(scope="module")
def hashed() -> object:
    """Indexes without a model, of the tiny trunk's dimension, wherever sets are indexed."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("ranking", "hop_chains"):
            patch.setattr(f"agentmtl.learn.{module}.index_for", hashing_index)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, hashed: object) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    sets = [reading_set(folder / "reading"), multihop_set(folder / "multihop")]
    recipe = TransferRecipe(rank=4, max_length=64, limit=60, rate=2e-3)
    train_transfer(tiny_trunk(folder / "trunk"), sets, folder / "heads", recipe, folder / "ix")
    return folder


def test_every_kind_is_trained_and_told(place: Path) -> None:
    table = json.loads((place / "heads" / "transfer.json").read_text())["dev"]
    assert set(table) == set(KINDS) and all(set(scores) == set(TASKS) for scores in table.values())
    joint, merged = load_head(place / "heads" / "joint"), load_head(place / "heads" / "merged")
    assert set(joint.card.outputs) == set(merged.card.outputs) == {"span", "kind", "here", "score", "step"}
    assert joint.card.rank == 4 and merged.card.rank == 12
    assert not load_head(place / "heads" / "frozen" / "reader").adapters


def test_the_report_compares_with_the_single_head(
    place: Path, monkeypatch: pytest.MonkeyPatch, hashed: object
) -> None:
    files = tiny_trunk(place / "trunk2")
    monkeypatch.setattr(
        "agentmtl.learn.transfer_report.open_head",
        lambda folder: HeadNetwork(folder, files, ("torch-fp32",), place / "cache"),
    )
    sets = [place / "reading", place / "multihop"]
    reports = evaluate_heads(files, sets, place / "heads", indexes=place / "ix", limit=30)
    assert [r.data for r in reports] == list(TASKS)
    for report in reports:
        assert set(report.methods) == set(KINDS) and report.n > 5
        assert set(report.differences) == {f"{k} - single" for k in KINDS if k != "single"}
        facts = report.details["heads"]
        assert (
            facts["single"]["bytes"] < facts["full"]["bytes"] and facts["joint"]["milliseconds a window"] > 0
        )
    with pytest.raises(UsageError, match="train transfer"):
        evaluate_heads(files, sets, place, indexes=place / "ix")


NAME = "encoder.layer.0.attention.self.query"


def weight_of(module: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = dict(module.trunk.named_parameters())[f"{NAME}.weight"].detach().numpy()
    return found


@pytest.mark.parametrize("started", [False, True])
def test_merged_adapters_change_the_trunk_by_the_scaled_sum(tmp_path: Path, started: bool) -> None:
    files = tiny_trunk(tmp_path / "trunk")
    one, two, start = (random_head(files, seed=seed) for seed in (1, 2, 3))
    two = Head(replace(two.card, scale=1.0), two.adapters, two.outputs)
    found = weight_of(merged_module(files, merge([one, two], 0.4, start if started else None)))

    def change(head: Head) -> NDArray[np.float32]:
        a, b = head.adapters[NAME]
        return head.card.scale * (b @ a)

    origin = change(start) if started else np.zeros((32, 32), np.float32)
    wanted = weight_of(merged_module(files, Head(one.card, {}, one.outputs))) + origin
    for head in (one, two):
        wanted = wanted + 0.4 * (change(head) - origin)
    assert np.allclose(found, wanted, atol=1e-5)


def test_the_whole_trunk_can_start_from_a_head(tmp_path: Path) -> None:
    from agentmtl.trunk.head_module import start_from, trainable_module

    files = tiny_trunk(tmp_path / "trunk")
    head = random_head(files)
    module = trainable_module(files, {"score": 1}, 0, 2.0, 0.0, 0)
    start_from(module, head)
    assert np.allclose(weight_of(module), weight_of(merged_module(files, head)), atol=1e-6)


@pytest.fixture(scope="module")
def tower(place: Path, hashed: object) -> QueryTower:
    files = tiny_trunk(place / "trunk3")
    recipe = RerankerRecipe(rank=4, layers=1, max_length=64, batch=4)
    train_reranker(files, [place / "multihop"], place / "teacher", recipe, place / "ix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "agentmtl.learn.distil.open_head",
            lambda folder: HeadNetwork(folder, files, ("torch-fp32",), place / "cache"),
        )
        recipe_of_queries = QueriesRecipe(teacher=str(place / "teacher"), rank=4, epochs=2, limit=60)
        train_queries(files, [place / "multihop"], place / "queries", recipe_of_queries, place / "ix")
    return QueryTower(HeadNetwork(place / "queries", files, ("torch-fp32",), place / "cache"))


def test_the_query_side_is_distilled_and_measured(place: Path, tower: QueryTower, hashed: object) -> None:
    vectors = tower.encode(["Where is Tarn?", "Who built Lamp Number 3?"])
    assert vectors.shape == (2, 32) and np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert np.allclose(tower.encode(["Where is Tarn?"])[0], vectors[0], atol=1e-5)
    files = tiny_trunk(place / "trunk4")
    reranker = Reranker(HeadNetwork(place / "teacher", files, ("torch-fp32",), place / "cache"))
    report = evaluate_reranker(
        place / "multihop", reranker, tower=tower, index_root=place / "ix", encoder="hashing:32", limit=10
    )
    assert {"dense", "dense distilled", "fused distilled", "reranked"} < set(report.methods)  # type: ignore[union-attr]
    assert report.details["have seen the questions"] == {"reranker": True, "queries": True}  # type: ignore[union-attr]


def test_a_query_head_of_another_trunk_is_refused(
    place: Path, tower: QueryTower, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other: ModelFiles = tiny_trunk(tmp_path / "other", seed=5)
    monkeypatch.setattr("agentmtl.retrieval.query_tower.open_head", lambda folder, backend: tower._network)
    with pytest.raises(EncoderError, match="was made for the trunk"):
        load_query_tower(other.identity, place / "queries")
    monkeypatch.setattr("agentmtl.retrieval.query_tower.shipped_head", lambda task: None)
    with pytest.raises(UsageError, match="No query head"):
        load_query_tower(other.identity)


def test_a_head_can_start_another_of_fewer_layers(tmp_path: Path) -> None:
    from agentmtl.trunk.head_module import adapters_of, start_from, trainable_module

    files = tiny_trunk(tmp_path / "trunk")
    first = random_head(files)
    save_head(first, tmp_path / "first")
    module = trainable_module(files, {"score": 1}, 4, 2.0, 0.0, 0, layers=1)
    start_from(module, first)
    found = adapters_of(module)
    assert found and all(name.startswith("encoder.layer.0.") for name in found)
    assert all(np.allclose(found[name][0], first.adapters[name][0]) for name in found)
    with pytest.raises(EncoderError, match="cannot start"):
        start_from(trainable_module(files, {"score": 1}, 2, 2.0, 0.0, 0), first)
    with pytest.raises(EncoderError, match="no 9 layers"):
        trainable_module(files, {"score": 1}, 4, 2.0, 0.0, 0, layers=9)


def test_an_average_stands_between_its_heads(tmp_path: Path) -> None:
    from agentmtl.learn.recipe import average

    files = tiny_trunk(tmp_path / "trunk")
    one, two = random_head(files, seed=1), random_head(files, seed=2)
    found = average(one, two, 0.25)

    def change(head: Head) -> np.ndarray:
        a, b = head.adapters[NAME]
        return np.asarray(head.card.scale * b @ a)

    wanted = 0.25 * change(one) + 0.75 * change(two)  # of twice the rank
    lost = np.linalg.svd(wanted, compute_uv=False)[one.card.rank :]
    assert found.adapters[NAME][0].shape[0] == one.card.rank
    assert np.isclose(np.linalg.norm(change(found) - wanted), np.linalg.norm(lost), rtol=1e-3)
    assert np.allclose(change(average(one, two, 1.0)), change(one), atol=1e-4)
    for part in (0, 1):
        mixed = 0.25 * one.outputs["span"][part] + 0.75 * two.outputs["span"][part]
        assert np.allclose(found.outputs["span"][part], mixed)
    only = Head(one.card, one.adapters, {"span": one.outputs["span"]})
    assert average(only, two, 0.5).outputs["kind"] is two.outputs["kind"]
