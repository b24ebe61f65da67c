"""Learning over tasks: episodes, the search for weights, and a bank from folders to predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl import Index
from agentmtl.errors import EncoderError, UsageError
from agentmtl.evaluate.bootstrap import paired_difference
from agentmtl.experts.bank import SHIPPED, BankVoter, FewVoter, LearnedBank, has_few, load_learned, open_bank
from agentmtl.experts.bank_expert import BankExpert
from agentmtl.experts.demonstrations import DemonstrationVoter
from agentmtl.experts.few_shot import BankWeights
from agentmtl.experts.voter import VoterExpert, voting_evidence
from agentmtl.learn.bank import (
    SHOTS,
    Choices,
    View,
    episodes_of,
    in_turn,
    learn_choice,
    loss,
    penalty,
    search,
)
from agentmtl.learn.bank_recipe import BankRecipe, read_source, remembering, train_bank
from agentmtl.learn.bank_report import Measuring, drawn, evaluate_bank, over_both
from agentmtl.retrieval.bank import DemonstrationBank, Entry, build_bank
from agentmtl.schema import Demonstration, Evidence
from agentmtl.tasks import Task
from agentmtl.trunk.hashing import HashingEncoder
from agentmtl.trunk.heads import shipped_head

ENCODER = HashingEncoder(64)
RECIPE = BankRecipe(examples=80, questions=40, kept=20, episodes=2)


def quiet(step: int, steps: int, note: str) -> None:
    """Nobody watches."""


def task_folder(folder: Path, kind: str, family: str, seed: int = 0, count: int = 90) -> Path:
    """A task whose inputs name their label among other words; questions whose right option is in them."""
    random, labels = Random(seed), [f"{folder.name}{n}" for n in range(3)]
    folder.mkdir(parents=True)
    card = {"name": folder.name, "kind": kind, "family": family, "licence": "CC0"}
    records = []
    for n in range(count):
        words = " ".join(random.sample(["big", "old", "new", "far", "low", "hot", "dry", "odd"], 3))
        label = labels[n % 3]
        said = f"{words} {label.upper()} number {n}"  # no option as it is spelt: there a question ends
        record: dict[str, object] = {"input": said, "output": label}
        if kind == "multiple_choice":
            record |= {"choices": labels, "answer_index": n % 3}
        records.append(record)
    for name, part in (("train", records), ("test", records[:12])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    (folder / "card.json").write_text(
        json.dumps({**card, "labels": labels} if kind == "classification" else card)
    )
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("tasks")
    return [
        task_folder(place / "colours", "classification", "one", 1),
        task_folder(place / "animals", "classification", "two", 2),
        task_folder(place / "places", "classification", "two", 3),
        task_folder(place / "quiz", "multiple_choice", "three", 4),
    ]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 99))
def test_labels_are_taken_in_turn(y: list[int], count: int, seed: int) -> None:
    rows = in_turn(y, count, Random(seed))
    assert len(rows) == len(set(rows)) == min(count, len(y))
    taken = {label: sum(y[row] == label for row in rows) for label in set(y)}
    for label, times in taken.items():  # none is behind another that it could have kept up with
        assert times == y.count(label) or times >= max(taken.values()) - 1


def view(seed: int = 0, labels: int = 4, name: str = "t") -> View:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(labels, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    y = np.arange(120) % labels
    content = centres[y] + 0.3 * rng.normal(size=(120, 16))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    return View(name, "f", tuple(f"text {n} of {name}" for n in range(120)), content, None, y, centres)


def strangers(of: str, said: np.ndarray) -> DemonstrationBank:
    entries = [Entry(of, f"another {n}", str(n % 2)) for n in range(10)]
    vectors = np.asarray(said[:10], np.float32)
    return build_bank(entries, vectors, [vectors[n % 2] for n in range(10)])


def test_an_episode_predicts_examples_from_others_and_never_asks_its_own_bank() -> None:
    one = view()
    own, other = strangers("t", one.content), strangers("relative", one.content)
    for bank, relatives in ((own, []), (other, ["relative"])):
        for episode in episodes_of(one, bank, relatives, 4, 0):
            assert episode.shots.votes is None and episode.asked.votes is None
    for episode in episodes_of(one, other, [], 4, 0):
        assert episode.asked.votes is not None and len(episode.y) == SHOTS
        assert 2 <= len(episode.labels) <= 4 and episode.answers.max() < len(episode.labels)
        shown = {tuple(row) for row in episode.shots.content}
        assert not shown & {tuple(row) for row in episode.asked.content}


def test_the_search_only_gets_better_and_stays_near() -> None:
    episodes = [
        e
        for n in range(3)
        for e in episodes_of(view(n, name=f"t{n}"), strangers("x", view(9).content), [], 2, 0)
    ]
    start = BankWeights(content=0.5)
    found, lowest = search(episodes, start)
    assert lowest == pytest.approx(loss(episodes, found) + penalty(found, start))
    assert lowest < loss(episodes, start) and found.content > start.content
    assert search(episodes, start) == (found, lowest)
    assert penalty(start, start) == 0 < penalty(replace(start, voting=1.0), start)


def test_what_says_that_an_option_fits_is_learned_over_tasks() -> None:
    rng = np.random.default_rng(0)
    tasks = []
    for n in range(3):
        features = tuple(rng.normal(size=(4, 4)) for _ in range(60))
        tasks.append(Choices(f"t{n}", features, tuple(int(f[:, 2].argmax()) for f in features)))
    found = learn_choice(tasks, BankWeights(choice=(1.0, 1.0, 0.0, 0.0)), 0)
    assert int(np.abs(found.choice).argmax()) == 2
    assert learn_choice([], found, 0) == found


def test_a_text_is_encoded_once() -> None:
    asked: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return ENCODER.encode(texts)

    encoded = remembering(encode)  # type: ignore[arg-type]
    first = encoded(["a b", "c d", "a b"])
    again = encoded(["c d", "e f"])
    assert asked == ["a b", "c d", "e f"] and np.array_equal(first[1], again[0])


def test_from_folders_to_predictions(folders: list[Path], tmp_path: Path) -> None:
    train_bank(ENCODER, folders[1:], tmp_path / "bank", RECIPE, "a command", quiet)
    learned = load_learned(tmp_path / "bank")
    assert learned.card["data"]["animals"]["licence"] == "CC0" and "colours" not in learned.card["data"]
    assert {entry.task for entry in learned.bank.entries} == {"animals", "places"}
    assert len(learned.bank) == 2 * RECIPE.kept and learned.card["command"] == "a command"
    index = Index.create(tmp_path / "ix", encoder=ENCODER, streams=())
    task = Task("colours", "classification", labels=("colours0", "colours1", "colours2"))
    lines = [json.loads(line) for line in (folders[0] / "train.jsonl").read_text().splitlines()]
    shots = [Demonstration("colours", r["input"], r["output"]) for r in lines[:9]]
    index.add_demonstrations(task, shots)
    assert has_few(index.retriever, "colours") and not has_few(index.retriever, "animals")
    voter = FewVoter(index.retriever, task, learned)
    votes = voter.predict([r["input"] for r in lines[30:60]])
    assert np.mean([v.output == r["output"] for v, r in zip(votes, lines[30:60], strict=True)]) > 0.8
    for vote in votes:
        assert sum(vote.probabilities.values()) == pytest.approx(1)
        assert {hit.unit.metadata["task"] for hit in vote.demonstrations} == {"colours"}
    assert voter.predict([]) == []
    picky = FewVoter(index.retriever, task, learned, replace(voter.settings, threshold=0.999999))
    assert any(vote.abstained and vote.output == "" for vote in picky.predict([lines[40]["input"]]))


def test_options_are_chosen(folders: list[Path], tmp_path: Path) -> None:
    learned = train_bank(ENCODER, folders[:3] + folders[3:], tmp_path / "bank", RECIPE, "", quiet)
    lines = [json.loads(line) for line in (folders[3] / "train.jsonl").read_text().splitlines()]
    shots = [
        Demonstration("quiz", r["input"], r["output"], tuple(r["choices"]), r["answer_index"]) for r in lines
    ]
    voter = BankVoter(learned, ENCODER.encode, Task("quiz", "multiple_choice"), shots[:16])
    found = voter.predict([s.input for s in shots[20:50]], [s.choices for s in shots[20:50]])
    right = [
        next(iter(one.probabilities)) == shot.output for one, shot in zip(found, shots[20:50], strict=True)
    ]
    assert np.mean(right) > 0.8
    assert voter.read() == {}


def test_an_expert_reads_few_examples_and_counts_many(folders: list[Path], tmp_path: Path) -> None:
    learned = train_bank(ENCODER, folders[1:], tmp_path / "bank", RECIPE, "", quiet)
    lines = [json.loads(line) for line in (folders[0] / "train.jsonl").read_text().splitlines()]
    task = Task("colours", "classification", labels=("colours0", "colours1", "colours2"))
    index = Index.create(tmp_path / "ix", encoder=ENCODER, streams=())
    few = [Demonstration("colours", r["input"], r["output"]) for r in lines[:9]]
    index.add_demonstrations(task, few)
    expert = BankExpert(task, learned, ENCODER.encode)
    asked = lines[40]["input"]
    evidence = voting_evidence(index.retriever, asked, "colours", expert.selection)
    found = expert.propose(asked, evidence, n=3)
    voted = BankVoter(learned, ENCODER.encode, task, few).predict([asked])[0].probabilities
    assert [c.confidence for c in found] == pytest.approx(list(voted.values()))
    assert lines[40]["output"] in found[0].text and found[0].citations
    many = [Demonstration("colours", f"{r['input']} {n}", r["output"]) for n in (1, 2) for r in lines]
    index.add_demonstrations(task, many)
    evidence = voting_evidence(index.retriever, asked, "colours", expert.selection)
    plain = VoterExpert(task).propose(asked, Evidence(asked, evidence.passages[:8]))
    assert expert.propose(asked, evidence)[0].confidence == pytest.approx(plain[0].confidence)


def test_what_a_bank_cannot_do_is_refused(folders: list[Path], tmp_path: Path) -> None:
    learned = LearnedBank(strangers("x", view().content))
    for task in (Task("t", "generation"), Task("t", "classification", labels=("a",))):
        with pytest.raises(UsageError, match="cannot answer t"):
            BankVoter(learned, ENCODER.encode, task, [Demonstration("t", "x", "y")])
    with pytest.raises(UsageError, match="has no example"):
        BankVoter(learned, ENCODER.encode, Task("t", "multiple_choice"), [])
    with pytest.raises(EncoderError, match="was made with the trunk"):
        learned.check_trunk(ENCODER.identity)
    with pytest.raises(UsageError, match="two tasks or more"):
        train_bank(ENCODER, folders[:1], tmp_path / "one", RECIPE, "", quiet)
    few = task_folder(tmp_path / "few", "classification", "x", count=10)
    with pytest.raises(UsageError, match="10 examples"):
        read_source(few, ENCODER.encode, RECIPE)
    with pytest.raises(EncoderError, match="cannot be read"):
        load_learned(tmp_path)


def test_the_evaluation_leaves_the_family_out(folders: list[Path]) -> None:
    how = Measuring(shots=6, seeds=2, limit=10)
    (report,) = evaluate_bank(ENCODER, folders, ["animals"], how, RECIPE, ("a command",), quiet)
    assert set(report.methods) == {"voter", "examples", "labels", "bank", "same family"} and report.n == 10
    assert report.details["learned from"] is False
    assert set(report.differences) >= {"bank - voter", "bank - labels", "same family - voter"}
    (alone,) = evaluate_bank(ENCODER, folders, ["colours"], how, RECIPE, (), quiet)
    assert "same family" not in alone.methods
    with pytest.raises(UsageError, match="no task nothing"):
        evaluate_bank(ENCODER, folders, ["nothing"], how, RECIPE, (), quiet)


def test_intervals_over_inputs_and_draws_are_wider_than_over_inputs_alone() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(10, 1)) + 0.1 * rng.normal(size=(10, 50))
    both, inputs = over_both(values, 0), paired_difference(values.mean(axis=0), np.zeros(50), 0)
    assert both.mean == pytest.approx(inputs.mean) == pytest.approx(float(values.mean()))
    assert both.high - both.low > 3 * (inputs.high - inputs.low)


def test_draws_differ_by_seed_and_repeat(folders: list[Path]) -> None:
    from agentmtl.evaluate.demonstrations import read_task

    data = read_task(folders[0])
    assert drawn(data, 7, 0) == drawn(data, 7, 0) != drawn(data, 7, 1)
    assert sorted(sum(e.output == label for e in drawn(data, 7, 3)) for label in data.task.labels) == [
        2,
        2,
        3,
    ]


def test_few_are_not_many(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "ix", encoder=ENCODER, streams=())
    many = [Demonstration("t", f"text {n}", str(n % 2)) for n in range(120)]
    index.add_demonstrations(Task("t", "classification"), many)
    assert not has_few(index.retriever, "t")
    assert len(DemonstrationVoter(index.retriever, Task("t", "classification")).predict(["text 3"])) == 1


def test_the_bank_that_comes_with_the_package() -> None:
    """It is small, was made of what may be given on, and opens."""
    learned = open_bank(SHIPPED)
    folder = shipped_head("bank")
    assert folder is not None and sum(file.stat().st_size for file in folder.iterdir()) <= 1_000_000
    licences = [facts["licence"] for facts in learned.card["data"].values()]
    assert all(licence.startswith(("CC BY", "CC0", "MIT")) and "NC" not in licence for licence in licences)
    assert {entry.task for entry in learned.bank.entries} <= set(learned.card["data"])
    with pytest.raises(UsageError, match="is not a bank"):
        open_bank("nowhere")
