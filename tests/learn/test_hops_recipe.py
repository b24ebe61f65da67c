"""The hops head over a tiny trunk: what it learns from, its folds and weights, and the beam."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agentmtl.errors import EncoderError, UsageError
from agentmtl.evaluate.datasets import read_multihop
from agentmtl.evaluate.held_out import open_folds
from agentmtl.evaluate.indexes import index_for as real_index_for
from agentmtl.evaluate.multihop import evaluate_multihop
from agentmtl.learn.hop_chains import CHAINS, chains_of, first_right
from agentmtl.learn.hops_recipe import HopsRecipe, Scored, fit_weights, train_hops_head
from agentmtl.retrieval.hops import HopSettings, search_hops
from agentmtl.retrieval.hops.judge import HopJudge
from agentmtl.retrieval.hops.model import fold_of
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import load_head, save_head
from agentmtl.trunk.model_files import ModelFiles
from tests.learn.worlds import multihop_set, reading_set
from tests.trunk.tiny import tiny_trunk

RECIPE = HopsRecipe(rank=4, max_length=64, epochs=1, rate=2e-3, limit=60)


def hashing_index(data, root, **others):  # type: ignore[no-untyped-def]
    return real_index_for(data, root, **{**others, "encoder": "hashing:64"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in "set", its index under "ix", and the head with its folds in "head"."""
    folder = tmp_path_factory.mktemp("hops")
    data = multihop_set(folder / "set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentmtl.learn.hop_chains.index_for", hashing_index)
        train_hops_head(tiny_trunk(folder / "trunk"), [data], folder / "head", RECIPE, folder / "ix")
    return folder


def judge(folder: Path, head: str = "head") -> HopJudge:
    files: ModelFiles = tiny_trunk(folder / "again")
    return HopJudge(HeadNetwork(folder / head, files, ("torch-fp32",), folder / "cache"))


def test_it_learns_from_the_beams_best_chains(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentmtl.learn.hop_chains.index_for", hashing_index)
    found = chains_of(place / "set", place / "ix", limit=10)
    assert len({c.id for c in found}) == 10
    for chains in found:
        assert 1 <= len(chains.gold) <= CHAINS
        assert len(set(zip(chains.firsts, chains.seconds, strict=True))) == len(chains.gold)
    second = [c for c in found if all(text.count(" | ") == 1 for text in c.firsts)]
    assert any(any(c.gold) for c in second)
    right = next((c, c.gold.index(True)) for c in second if any(c.gold))
    assert " | Lamp Number" in right[0].firsts[right[1]] or " | " in right[0].firsts[right[1]]


def test_a_run_leaves_a_head_and_its_folds(place: Path) -> None:
    head = load_head(place / "head")
    assert head.card.task == "hops" and set(head.card.calibration) == {"score", "head", "bias"}
    assert head.card.data["set"]["train"] + head.card.data["set"]["dev"] == 60
    parts = [load_head(place / "head" / f"fold-{fold}") for fold in range(2)]
    assert not np.allclose(parts[0].outputs["step"][0], parts[1].outputs["step"][0])
    assert (place / "head" / "curves.png").stat().st_size > 5_000
    json.loads((place / "head" / "report.json").read_text())


def test_the_weights_are_fitted_without_the_fold_that_is_left_out() -> None:
    rng = np.random.default_rng(3)
    logits, gold = rng.normal(size=400), rng.random(400) < 0.5
    features = np.stack([rng.normal(size=400), logits + 3.0 * gold], axis=1)
    folds = np.arange(400) % 2
    wrong = np.where(folds == 1, ~gold, gold)  # in fold 1 the head says the opposite of what is right
    scored = Scored(features, wrong, np.ones(400), folds)
    assert fit_weights(scored, 1).head > 0.5 and fit_weights(scored, 0).head < -0.5
    assert abs(fit_weights(scored, 1).score) < 0.5
    with pytest.raises(UsageError, match="No chain"):
        fit_weights(Scored(features, np.zeros(400, bool), np.ones(400), folds), -1)


def test_what_the_judge_says_moves_the_beam(place: Path) -> None:
    index = hashing_index(read_multihop(place / "set"), place / "ix")

    class Says:
        read = 3

        def __init__(self, worth: float) -> None:
            self.worth, self.seen = worth, 0

        def __call__(self, graph, question, chains):  # type: ignore[no-untyped-def]
            self.seen += len(chains)
            assert len(chains) <= 3 and question == asked
            return [self.worth] * len(chains)

    asked = "Where did the family of the builder of Lamp Number 7 live?"
    against, without = Says(-30.0), search_hops(index.retriever, asked, k=5)
    found = search_hops(index.retriever, asked, k=5, settings=HopSettings(judge=against))
    assert against.seen == 3 and found.hits.ids != without.hits.ids
    chains = [chain["score"] for chain in found.trace[1]["found"]]
    assert -30.0 not in chains[:1]
    stopped = search_hops(
        index.retriever, asked, settings=HopSettings(hops=4, judge=Says(30.0), least_gain=0.5)
    )
    assert stopped.stopped in ("hops", "nothing new", "no gain")


def test_the_head_reads_the_same_way_as_it_was_trained(place: Path) -> None:
    index = hashing_index(read_multihop(place / "set"), place / "ix")
    used = judge(place)
    asked = "Where did the family of the builder of Lamp Number 7 live?"
    found = search_hops(index.retriever, asked, k=5, settings=HopSettings(judge=used))
    again = search_hops(index.retriever, asked, k=5, settings=HopSettings(judge=used))
    assert found.hits.ids == again.hits.ids and len(found.hits) == 5
    assert used.is_trained_on(read_multihop(place / "set").sha256) and not used.is_trained_on("x")


def test_each_question_is_judged_by_a_head_that_has_not_seen_it(place: Path) -> None:
    folds = open_folds(place / "head", lambda path: judge(place, f"head/{path.name}"))
    report = evaluate_multihop(
        place / "set",
        index_root=place / "ix",
        encoder="hashing:64",
        limit=8,
        judge=judge(place),
        judges=folds,
    )
    assert report.default == "hops + judge" and report.n == 8  # type: ignore[union-attr]
    assert "hops + judge - hops" in report.differences and "hops - fused" in report.differences
    assert {fold_of(f"q{n}", 2) for n in range(20)} == {0, 1}
    assert folds.of("q1") is folds.parts[fold_of("q1", 2)]
    with pytest.raises(UsageError, match="no heads"):
        open_folds(place / "set", lambda path: path)


def test_what_does_not_fit_is_refused(place: Path, tmp_path: Path) -> None:
    files = tiny_trunk(tmp_path / "trunk")
    with pytest.raises(UsageError, match="multihop"):
        train_hops_head(files, [reading_set(tmp_path / "r")], tmp_path / "out", RECIPE, tmp_path)
    bare = load_head(place / "head")
    bare.card.calibration.clear()  # type: ignore[attr-defined]
    save_head(bare, tmp_path / "bare")
    with pytest.raises(EncoderError, match="no calibration"):
        HopJudge(HeadNetwork(tmp_path / "bare", files, ("torch-fp32",), tmp_path / "cache"))


def test_first_right_is_a_reciprocal_rank() -> None:
    assert first_right((False, True, True), (3.0, 2.0, 1.0)) == 0.5
    assert first_right((True, False), (1.0, 1.0)) == 1.0


def test_folds_that_are_not_all_there_are_refused(place: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place / "head" / "fold-1", tmp_path / "fold-1")
    with pytest.raises(UsageError, match="all folds"):
        open_folds(tmp_path, lambda path: path)
    shutil.copytree(place / "head" / "fold-0", tmp_path / "fold-0")
    assert [path.name for path in open_folds(tmp_path, lambda path: path).parts] == ["fold-0", "fold-1"]
    (tmp_path / "fold-0" / "card.json").unlink()
    with pytest.raises(UsageError, match="all folds"):
        open_folds(tmp_path, lambda path: path)


def test_a_fold_is_left_out_of_every_example(tmp_path: Path) -> None:
    from agentmtl.learn.reader_recipe import ReaderRecipe, gather

    data = multihop_set(tmp_path / "set", 200)
    replayed = ReaderRecipe(fold=1, folds=2, replays=(str(data),), replay=1_000)
    for recipe, sets in ((ReaderRecipe(fold=1, folds=2), [data]), (replayed, [reading_set(tmp_path / "r")])):
        examples = gather(sets, recipe)
        asked = [e for e in (*examples.train, *examples.dev) if e.group.startswith("set:")]
        assert asked and all(fold_of(e.group.removeprefix("set:"), 2) == 0 for e in asked)


def test_another_tasks_head_is_refused(place: Path) -> None:
    from agentmtl.retrieval.query_tower import QueryTower
    from agentmtl.retrieval.rerank import Reranker

    network = judge(place)._network
    for expected in (Reranker, QueryTower):
        with pytest.raises(EncoderError, match="has no output"):
            expected(network)
