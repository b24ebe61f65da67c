"""The encoder's training: its losses against naive computations, its batches, its merging, a whole run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.learn.encoder import BothTask, IrTask, StsTask, batches_of, drawn_of, wrong_of
from agentmtl.learn.encoder_data import Asked, Graded, is_pairs
from agentmtl.learn.encoder_losses import ir_loss, pairs_loss, pearson_loss, pro_loss, rank_loss, sts_loss
from agentmtl.learn.encoder_recipe import DELTA, JOINT, PLAIN, POSITIONED, EncoderRecipe, train_encoder
from agentmtl.learn.merging import (
    Position,
    change_of,
    delta_guided,
    head_from,
    plain,
    position,
    weighted,
)
from agentmtl.trunk import load_encoder
from agentmtl.trunk.head_module import merged_module
from agentmtl.trunk.heads import load_head
from agentmtl.trunk.means import TokenMeans, unchanged_head
from agentmtl.trunk.pairs import PairCutter

from ..trunk.tiny import embedding_head, tiny_trunk
from .worlds import multihop_set, reading_set

# --- losses -------------------------------------------------------------------------------------------


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.normal(size=shape)
    return np.asarray(made / np.linalg.norm(made, axis=-1, keepdims=True))


def log_softmax(logits: Sequence[float], at: int) -> float:
    return logits[at] - log(sum(exp(x - max(logits)) for x in logits)) - max(logits)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_retrieval_never_sets_positives_against_each_other(n: int, slots: int, hard: int, seed: int) -> None:
    import torch

    q, p, k = unit(n, 6, seed=seed), unit(n, slots, 6, seed=seed + 1), unit(n, hard, 6, seed=seed + 2)
    wrong = np.random.default_rng(seed).random((n, n, slots + hard)) < 0.7
    parts = []
    for slot in range(slots):
        for i in range(n):
            logits = [float(q[i] @ p[i, slot]) / 0.5]
            logits += [float(q[i] @ p[j, slot]) / 0.5 for j in range(n) if j != i and wrong[i, j, slot]]
            logits += [
                float(q[i] @ k[j, m]) / 0.5 for j in range(n) for m in range(hard) if wrong[i, j, slots + m]
            ]
            parts.append(-log_softmax(logits, 0))
    found = ir_loss(*(torch.from_numpy(x) for x in (q, p, k, wrong)), temperature=0.5)
    assert float(found) == pytest.approx(float(np.mean(parts)), rel=1e-6)


GRADES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5, 2.5, 4.0, 5.0]), min_size=2, max_size=7)


@settings(deadline=None, max_examples=40)
@given(GRADES, st.integers(0, 99))
def test_losses_of_similarity_are_what_they_are_by_hand(grades: list[float], seed: int) -> None:
    import torch

    n = len(grades)
    s = np.random.default_rng(seed).uniform(-1, 1, n)
    scores, y = torch.from_numpy(s), torch.tensor(grades, dtype=torch.float64)
    if len(set(grades)) > 1:
        assert float(pearson_loss(scores, y)) == pytest.approx(1 - np.corrcoef(s, grades)[0, 1], abs=1e-6)
    ranks = [sum(o > g for o in grades) + (grades.count(g) - 1) / 2 for g in grades]
    wanted = [(n - 1 - r) / (n - 1) / 0.05 for r in ranks]
    kl = 0.0
    for i in range(n):
        p = log_softmax(wanted, i)
        kl += exp(p) * (p - log_softmax([x / 0.05 for x in s], i))
    assert float(rank_loss(scores, y)) == pytest.approx(kl, rel=1e-5, abs=1e-6)
    parts = []
    for k in range(n):
        lower = [j for j in range(n) if grades[j] < grades[k]]
        if lower:
            weights = [grades[k] - grades[j] for j in lower]
            logits = [max(weights) * s[k] / 0.05]
            logits += [w * s[j] / 0.05 for w, j in zip(weights, lower, strict=True)]
            parts.append(-log_softmax(logits, 0))
    assert float(pro_loss(scores, y)) == pytest.approx(float(np.mean(parts)) if parts else 0.0, rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(GRADES, st.integers(0, 99))
def test_pairs_that_are_alike_find_each_other(grades: list[float], seed: int) -> None:
    import torch

    a, b = unit(len(grades), 5, seed=seed), unit(len(grades), 5, seed=seed + 1)
    kept = [n for n, grade in enumerate(grades) if grade >= 1]
    parts = [
        -log_softmax([float(a[i] @ b[j]) / 0.5 for j in kept], at)
        for at, i in enumerate(kept)
        if len(kept) > 1
    ]
    y = torch.tensor(grades, dtype=torch.float64)
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    found = pairs_loss(first, second, y, 0.5)
    assert float(found) == pytest.approx(float(np.mean(parts)) if parts else 0.0, rel=1e-5, abs=1e-6)
    whole = sts_loss(first, second, (first, second), y)
    scores = (first * second).sum(1)
    total = pairs_loss(first, second, y) + 2 * pearson_loss(scores, y) + 0.5 * pro_loss(scores, y)
    assert float(whole) == pytest.approx(float(total + 5 * rank_loss(scores, y)), rel=1e-9)


# --- batches ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(2, 9))
def test_a_batch_is_of_one_set(sets: list[str], size: int) -> None:
    batches = batches_of(sets, size, "seed")
    assert all(len({sets[n] for n in batch}) == 1 for batch in batches)
    for name in set(sets):
        mine = [batch for batch in batches if sets[batch[0]] == name]
        count = sets.count(name)
        assert len(mine) == max(1, count // size)
        assert all(len(batch) == size for batch in mine) or count < size
    assert len({n for batch in batches for n in batch}) == sum(map(len, batches))


def asked(n: int, positives: int = 1) -> Asked:
    texts = tuple(f"yes {n} {m}" for m in range(positives))
    return Asked(f"q{n}", "set", f"g{n}", f"question {n}", texts, (f"no {n}", "no"), frozenset(texts))


def test_a_text_that_answers_is_never_wrong() -> None:
    from random import Random

    both = [asked(0), Asked("q1", "set", "g", "question 1", ("yes 0 0",), ("no",), frozenset({"yes 0 0"}))]
    drawn = [drawn_of(one, Random(0)) for one in both]
    assert [len(texts) for texts in drawn] == [6, 6]
    wrong = wrong_of(both, drawn)
    assert not wrong[:, :, :2].any() and wrong[:, :, 2:].all()


def test_joint_training_shuffles_the_batches_of_both(tmp_path: Path) -> None:
    cutter = PairCutter(tiny_trunk(tmp_path / "trunk"), 16)
    ir = IrTask(cutter, [asked(n) for n in range(40)], [], batch=8)
    sts = StsTask(cutter, [Graded("x", "a", "b", 1.0)] * 64, [], batch=16)
    both = BothTask(ir, sts).batches(0)
    kinds = [batch[0] < 40 for batch in both]
    assert (kinds.count(True), kinds.count(False)) == (5, 4) and kinds != sorted(kinds, reverse=True)
    assert all(len({n < 40 for n in batch}) == 1 for batch in both)


# --- merging ------------------------------------------------------------------------------------------


def changes(seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"layer": rng.normal(size=(6, 4)).astype(np.float32)} for _ in range(3)]


def test_delta_guided_merging_without_a_power_is_the_plain_mean() -> None:
    made = changes()
    mean = np.mean([c["layer"] for c in made], axis=0)
    np.testing.assert_allclose(plain(made)["layer"], mean, rtol=1e-5)
    np.testing.assert_allclose(delta_guided(made, 0.0)["layer"], mean, rtol=1e-4, atol=1e-6)
    found = delta_guided(made, 1.0)["layer"]
    parts = [np.abs(c["layer"]) + np.abs(c["layer"]).mean() for c in made]
    by_hand = sum(p * c["layer"] for p, c in zip(parts, made, strict=True)) / sum(parts)
    np.testing.assert_allclose(found, by_hand, rtol=1e-4)
    sharp = delta_guided(made, 60.0)["layer"]
    largest = np.argmax(parts, axis=0)
    np.testing.assert_allclose(sharp, np.choose(largest, [c["layer"] for c in made]), atol=0.2)


def test_one_head_alone_is_merged_into_itself(tmp_path: Path) -> None:
    files = tiny_trunk(tmp_path / "trunk")
    head = load_head(embedding_head(files, tmp_path / "head"))
    change = change_of(head)
    again = change_of(head_from(plain([change]), head.card))
    for name, values in change.items():
        np.testing.assert_allclose(again[name], values, atol=1e-4)
    doubled = weighted([change, change], Position((0.5, 0.5), 2.0))
    np.testing.assert_allclose(doubled["output.weight"], 2 * change["output.weight"], rtol=1e-6)


def test_positions_go_to_the_head_that_the_probe_likes(tmp_path: Path) -> None:
    """Of two heads one is what the probe asks for; only the coefficients move, and the same way every
    time."""
    import torch

    files = tiny_trunk(tmp_path / "trunk")
    start = merged_module(files, unchanged_head(files, 16))
    good, bad = (
        change_of(load_head(embedding_head(files, tmp_path / str(seed), seed=seed))) for seed in (1, 2)
    )

    class Like:
        """The loss is how far the output's weight is from the good head's."""

        name, size = "like", 1

        def batches(self, epoch: int) -> list[list[int]]:
            return [[0]]

        def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
            weight = module.now["outputs.vector.weight"]  # type: ignore[index]
            wanted = torch.from_numpy(good["output.weight"]) + torch.eye(32)
            return ((weight - wanted) ** 2).mean()

        def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
            return {}

    found = position(start, [good, bad], [Like()], steps=60)
    assert found.shares[0] > 0.9 and sum(found.shares) == pytest.approx(1) and 0.7 < found.scale < 1.3
    assert position(start, [good, bad], [Like()], steps=60) == found


# --- a whole run --------------------------------------------------------------------------------------


def pairs_set(folder: Path, count: int = 200) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {"a": f"number {n} of the bridge", "b": f"{'number' if n % 3 else 'letter'} {n} of it",
         "score": float(n % 6), "set": f"set-{n % 2}"}
        for n in range(count)
    ]  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


RECIPE = EncoderRecipe(rank=2, batch=4, pairs=8, tokens=16, max_length=32, steps=2)


def test_from_sets_to_an_encoder(tmp_path: Path) -> None:
    trunk = tiny_trunk(tmp_path / "trunk")
    folders = [
        reading_set(tmp_path / "bridges"), multihop_set(tmp_path / "lamps"), pairs_set(tmp_path / "alike")
    ]  # fmt: skip
    head = train_encoder(trunk, folders, tmp_path / "out", RECIPE, tmp_path / "indexes")
    assert head.card.calibration == {"sides": "all"} and head.card.rank == 2
    assert set(head.card.data) == {"bridges", "lamps", "alike"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())["dev"]
    assert set(report) == {"frozen trunk", "ir", "sts", JOINT, PLAIN, DELTA, POSITIONED}
    assert all(set(scores) == {"ir", "sts", "score"} for scores in report.values())
    positioned = load_head(tmp_path / "out" / POSITIONED).card.recipe
    assert positioned["merged"] == POSITIONED and sum(positioned["shares"]) == pytest.approx(1)
    again = train_encoder(trunk, folders, tmp_path / "out", RECIPE, tmp_path / "indexes")
    for name, (a, _) in head.adapters.items():
        np.testing.assert_array_equal(again.adapters[name][0], a)
    made = load_encoder(f"{tmp_path / 'trunk'}+{tmp_path / 'out'}", backend="torch-fp32")
    assert made.encode(["a bridge"], "query").shape == (1, 32)


def test_one_task_alone_is_the_head(tmp_path: Path) -> None:
    trunk = tiny_trunk(tmp_path / "trunk")
    folder = pairs_set(tmp_path / "alike")
    assert is_pairs(folder)
    head = train_encoder(trunk, [folder], tmp_path / "out", RECIPE, tmp_path / "indexes")
    assert set(head.card.metrics["dev"]) == {"score"} and not (tmp_path / "out" / JOINT).exists()
    with pytest.raises(UsageError, match="holds no set"):
        train_encoder(trunk, [tmp_path], tmp_path / "other", RECIPE, tmp_path / "indexes")


def test_a_frozen_trunk_reads_each_text_once_and_is_the_same_head(tmp_path: Path) -> None:
    trunk = tiny_trunk(tmp_path / "trunk")
    means = TokenMeans(trunk, tmp_path / "kept", 32, "torch-fp32")
    texts = ["a bridge", "the lamp of Tarn number 7", "a bridge"]
    found = means.of(texts)
    direct = load_encoder(str(tmp_path / "trunk"), backend="torch-fp32").encode(texts)
    np.testing.assert_allclose(found / np.linalg.norm(found, axis=1, keepdims=True), direct, atol=1e-5)
    again = TokenMeans(trunk, tmp_path / "kept", 32, "torch-fp32")
    again._read = None  # type: ignore[assignment, method-assign]
    np.testing.assert_array_equal(again.of(texts[::-1]), found[::-1])
    recipe = replace(RECIPE, frozen=True, epochs=2, rate=1e-2)
    folders = [pairs_set(tmp_path / "alike"), multihop_set(tmp_path / "lamps")]
    head = train_encoder(trunk, folders, tmp_path / "out", recipe, tmp_path / "indexes")
    assert not head.adapters and not np.allclose(head.outputs["vector"][0], np.eye(32), atol=1e-3)
    scores = json.loads((tmp_path / "out" / "report.json").read_text())["dev"]
    assert set(scores) == {"frozen trunk", "ir", "sts", JOINT, PLAIN, DELTA, POSITIONED}
    made = load_encoder(f"{tmp_path / 'trunk'}+{tmp_path / 'out'}", backend="torch-fp32").encode(texts)
    weight, bias = head.outputs["vector"]
    by_hand = found @ weight.T + bias
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(made, by_hand, atol=2e-3)  # a head is kept in float16
