"""The demonstration retriever's training: what ranks candidates, what is mined, what the losses ask for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.experts.scoring import Pair, Score
from agentmtl.learn.demonstrations import RankingTask, batch_loss, best_loss, dev_of, list_loss
from agentmtl.learn.demonstrations_recipe import DemonstrationsRecipe, train_demonstrations
from agentmtl.learn.feedback import FLOOR, TEMPERATURE, KernelScorer, LikelihoodScorer, OverlapScorer, Pool
from agentmtl.learn.mining import NEAREST, OF_OUTPUT, mine
from agentmtl.retrieval.voting import voted
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task
from agentmtl.trunk import load_encoder
from agentmtl.trunk.pairs import PairCutter

from ..trunk.tiny import tiny_trunk

TASK = Task("fruit", "classification", "Name the fruit.", labels=("apple", "pear"))


def pool(count: int = 80, seed: int = 0) -> Pool:
    """Two labels; vectors on a circle, the labels' halves overlapping."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    angle = rng.normal(label * 0.8, 0.5, count)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    examples = tuple(
        Demonstration("fruit", f"example {n}", TASK.labels[kind]) for n, kind in enumerate(label.tolist())
    )
    return Pool(TASK, examples, vectors, count)


def test_an_example_of_the_label_helps_the_more_the_nearer_it_is() -> None:
    found, mine_ = pool(), KernelScorer(pool())
    utilities = mine_.utilities([0], range(1, 80))[0]
    near = found.vectors[1:] @ found.vectors[0]
    right = np.array([e.output == found.examples[0].output for e in found.examples[1:]])
    assert (utilities[right] >= 0).all() and (utilities[~right] <= 0).all()
    for of, sign in ((right, 1), (~right, -1)):
        order = np.argsort(near[of])
        assert (np.diff(sign * utilities[of][order]) >= -1e-12).all()


def test_a_utility_is_what_the_kernel_predictor_gains() -> None:
    """One background, by hand."""
    found = pool(6)
    scorer = KernelScorer(found)
    background = scorer._backgrounds[0]
    scorer._backgrounds = [background]
    labels = np.array([e.output == "apple" for e in found.examples])

    def predicted(rows: Sequence[int], query: int) -> float:
        kept = [row for row in rows if row != query]
        weights = np.exp(np.float64(found.vectors[kept]) @ np.float64(found.vectors[query]) / TEMPERATURE)
        return float(max(weights[labels[kept] == labels[query]].sum() / weights.sum(), FLOOR))

    for query in range(6):
        for candidate in (n for n in range(6) if n != query):
            rows = background.tolist()
            others = [row for row in rows if row != query]
            wanted = np.log(predicted([*others, candidate], query)) - np.log(predicted(others, query))
            assert scorer.utilities([query], [candidate])[0, 0] == pytest.approx(wanted, abs=1e-6)


def test_overlap_is_the_f1_of_words() -> None:
    outputs = ("a b c", "a b d", "x", "a a")
    examples = tuple(Demonstration("t", str(n), text) for n, text in enumerate(outputs))
    scorer = OverlapScorer(Pool(Task("t", "generation"), examples, np.zeros((4, 2), np.float32), 4))
    assert scorer.utilities([0], [0, 1, 2, 3])[0].tolist() == pytest.approx([1, 2 / 3, 0, 0.4])


class Model:
    """Likes an output more, the oftener its words stand in the prompt; counts what it reads."""

    def __init__(self) -> None:
        self.read: list[Pair] = []

    def score(self, prompt: str, continuations: Sequence[str]) -> list[Score]:
        return self.score_pairs([(prompt, one) for one in continuations])

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Score]:
        self.read += pairs
        return [Score(-2.0 * len(c) / (1 + p.count(c)), len(c)) for p, c in pairs]


def test_a_language_model_ranks_by_the_share_of_the_right_label_and_reads_no_pair_twice() -> None:
    found, model = pool(), Model()
    scorer = LikelihoodScorer(found, model)
    utilities = scorer.utilities([0], [1, 2, 3])[0]
    assert len(model.read) == 6 and model.read[0] == ("example 1\tpear\nexample 0\t", "apple")
    assert utilities[1] > utilities[0] == pytest.approx(utilities[2])
    shares = np.exp(utilities)
    assert ((shares > 0) & (shares < 1)).all()
    scorer.utilities([0], [1, 2, 4])
    assert len(model.read) == 8 and scorer.scored == 4


def test_rounds_keep_what_was_scored() -> None:
    found = pool(200)
    scorer, read = KernelScorer(found), list[int]()

    class Counting:
        whole = False

        def utilities(self, queries: Sequence[int], candidates: Sequence[int]) -> np.ndarray:
            read.append(len(candidates))
            return scorer.utilities(queries, candidates)

    first = mine(found, found.vectors, Counting(), [0, 5], {}, first=True)
    assert set(first) == {0, 5} and 0 not in first[0].rows
    assert NEAREST <= len(first[0].rows) <= NEAREST + OF_OUTPUT
    assert list(first[0].utilities) == sorted(first[0].utilities, reverse=True)
    read.clear()
    again = mine(found, found.vectors, Counting(), [0], first, first=False)
    assert read == [] and again[0].rows == first[0].rows and again[5] is first[5]
    more = mine(found, pool(200, seed=1).vectors, Counting(), [0], first, first=False)
    assert sum(read) == len(more[0].rows) - len(first[0].rows) > 0


@given(st.integers(2, 30), st.integers(0, 9))
def test_a_list_shows_its_best_and_its_worst(count: int, seed: int) -> None:
    found = pool()
    lists = mine(found, found.vectors, KernelScorer(found), [3], {}, first=True)
    drawn = lists[3].drawn(count, Random(seed))
    assert len(set(drawn)) == len(drawn) == min(count, len(lists[3].rows))
    assert set(drawn) & set(lists[3].rows[:5]) and set(drawn) & set(lists[3].rows[-5:])


def test_losses_are_least_where_scores_follow_utilities() -> None:
    import torch

    utilities = torch.tensor([0.9, 0.5, 0.1, -0.4])
    along, against = 20 * utilities, -20 * utilities
    assert float(list_loss(along, utilities)) < 0.05 < 1 < float(list_loss(against, utilities))
    assert float(list_loss(along, torch.ones(4))) == 0  # nothing to tell apart
    by_hand = {(i, j): abs(1 / (i + 1) - 1 / (j + 1)) for i in range(4) for j in range(i + 1, 4)}
    apart = {p: float(np.logaddexp(0, -float(along[p[0]] - along[p[1]]))) for p in by_hand}
    wanted = sum(by_hand[p] * apart[p] for p in by_hand) / sum(by_hand.values())
    assert float(list_loss(along, utilities)) == pytest.approx(wanted, rel=1e-5)


def test_the_same_label_is_no_wrong_answer_and_a_vote_is_marginal() -> None:
    import torch

    labels = torch.tensor([0, 0, 0, 1])
    scores = torch.tensor([[0.0, 2, 1, 3], [2, 0, 1, 0], [1, 1, 0, 0], [3, 0, 0, 0]])
    utilities = torch.full((4, 4), float("nan"))
    utilities[0, 1], utilities[0, 2], utilities[0, 3] = 1.0, 0.5, -1.0
    found = float(best_loss(scores.masked_fill(torch.eye(4).bool(), -1e4), utilities, labels))
    assert found == pytest.approx(float(np.log(np.exp(2) + np.exp(3)) - 2), rel=1e-5)  # 2 is left out
    lists = float(list_loss(scores[0][1:], utilities[0][1:]))
    votes = []
    for row in range(3):
        others = [n for n in range(4) if n != row]
        every = np.logaddexp.reduce([float(scores[row, n]) for n in others])
        mine_ = np.logaddexp.reduce([float(scores[row, n]) for n in others if n < 3])
        votes.append(every - mine_)
    total = float(batch_loss(scores, utilities, labels))
    assert total == pytest.approx(lists + found + float(np.mean(votes)), rel=1e-5)


def test_dev_is_apart_and_the_vote_is_the_voters() -> None:
    examples = pool().examples
    learned, dev = dev_of(examples, TASK, 10, 8, 0)
    assert not set(learned) & set(dev.asked) and set(dev.shown) <= set(learned)
    assert len(learned) + len(dev.asked) == len(examples)
    shown = np.eye(4, dtype=np.float32)
    assert voted(shown @ shown.T, ["a", "b", "c", "d"]) == ["a", "b", "c", "d"]


def task_folder(folder: Path, name: str, kind: str, count: int = 60) -> Path:
    folder = folder / name
    folder.mkdir(parents=True)
    card = {"name": name, "kind": kind, "instruction": f"Do {name}.", "licence": "CC0"}
    labels = ["red", "blue"]
    rows = []
    for n in range(count):
        color = labels[n % 2]
        row: dict[str, object] = {"input": f"number {n} is {('warm', 'cold')[n % 2]}", "output": color}
        if kind == "multiple_choice":
            row |= {"input": f"{row['input']}\nA. red\nB. blue", "choices": labels, "answer_index": n % 2}
        rows.append(row)
    if kind == "classification":
        card["labels"] = labels  # type: ignore[assignment]
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_batch_never_holds_one_output_alone(tmp_path: Path) -> None:
    """Examples that all share the label would teach to copy it."""
    found = pool()
    scorer = KernelScorer(found)
    lists = mine(found, found.vectors, scorer, range(40), {}, first=True)
    cutter = PairCutter(tiny_trunk(tmp_path / "trunk"), 32)
    dev = dev_of(found.examples, TASK, 5, 5, 0)[1]
    task = RankingTask(found, lists, scorer, cutter, dev, load_encoder("hashing").encode)
    for epoch in range(3):
        batches = task.batches(epoch)
        assert all(len({found.examples[row].output for row in batch}) == 2 for batch in batches)
        assert all(len(set(batch)) == len(batch) for batch in batches)
        assert {row for batch in batches for row in batch} >= set(range(40))
    assert task.batches(0) == task.batches(0) != task.batches(1)


def test_training_goes_through_its_rounds_and_again_from_where_it_was(tmp_path: Path) -> None:
    trunk = tiny_trunk(tmp_path / "trunk")
    folders = [
        task_folder(tmp_path, "colors", "classification"),
        task_folder(tmp_path, "choice", "multiple_choice"),
        task_folder(tmp_path, "said", "generation"),
    ]
    recipe = DemonstrationsRecipe(rank=2, rounds=2, queries=14, asked=8, shown=20, max_length=24)
    told: list[str] = []
    head = train_demonstrations(
        trunk, folders, tmp_path / "out", recipe, watch=lambda step, steps, note: told.append(note)
    )
    assert head.card.task == "demonstrations" and head.card.calibration == {"instruct": True}
    assert set(head.card.data) == {"colors", "choice", "said"}
    assert head.card.data["colors"]["licence"] == "CC0"
    assert set(head.card.metrics["dev"]) == {"colors", "choice", "said", "score"}
    assert any("round 2: candidates of colors" in note for note in told)
    again = train_demonstrations(trunk, folders, tmp_path / "out", recipe)
    for name, (a, b) in head.adapters.items():
        np.testing.assert_array_equal(again.adapters[name][0], a)
        np.testing.assert_array_equal(again.adapters[name][1], b)


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    trunk = tiny_trunk(tmp_path / "trunk")
    with pytest.raises(UsageError, match="39 examples"):
        train_demonstrations(
            trunk, [task_folder(tmp_path, "few", "generation", 39)], tmp_path / "out", DemonstrationsRecipe()
        )
