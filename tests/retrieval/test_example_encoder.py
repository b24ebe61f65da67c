"""Who reads a task's examples: the head of an encoder, or its trunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl import DemonstrationVoter, Index
from agentmtl.errors import UsageError
from agentmtl.index import transaction
from agentmtl.index.vectors import vectors_of
from agentmtl.retrieval.demonstrations import Bank, Selection, select
from agentmtl.retrieval.example_encoder import ASKED, FEWEST, Judged, compared, judge, left_out, overlap
from agentmtl.retrieval.retriever import Channel
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import EncoderIdentity, Side, Vectors

SIZE = 16
MOOD = Task("mood", "classification", "Say the mood.", labels=("glad", "sad"))
SHAPE = Task("shape", "classification", "Say the shape.", labels=("round", "square"))


class TwoSided:
    """The trunk sees the first word of a text, the head the last: both as a direction."""

    def __init__(self) -> None:
        identity = load_encoder("hashing").identity
        self.identity: EncoderIdentity = replace(
            identity, dimension=SIZE, name="two-sided", demonstrations="instructed sha256:0"
        )
        self.sides: list[tuple[str, str]] = []

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        self.sides += [(side, text) for text in texts]
        seen = [text.split()[-1 if side == "demonstration" else 0] for text in texts]
        return np.stack([direction(word) for word in seen]) if texts else np.empty((0, SIZE), np.float32)


def direction(word: str) -> Vectors:
    row = np.random.default_rng(sum(map(ord, word))).normal(size=SIZE)
    return np.asarray(row / np.linalg.norm(row), np.float32)


def examples(task: Task, told_by: str, count: int = 80) -> list[Demonstration]:
    """Of which the label is told by the "first" or the "last" word."""
    made = []
    for n in range(count):
        words = [f"x{n % 7}", "and", f"y{(n // 2) % 5}"]
        words[0 if told_by == "first" else 2] = f"is{n % 2}"
        made.append(Demonstration(task.name, f"{words[0]} n{n} {words[1]} {words[2]}", task.labels[n % 2]))
    return made


@pytest.fixture
def encoder() -> TwoSided:
    return TwoSided()


@pytest.fixture
def index(encoder: TwoSided, tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "i", encoder=encoder, streams=())
    made.add_demonstrations(MOOD, examples(MOOD, "last"))
    made.add_demonstrations(SHAPE, examples(SHAPE, "first"))
    return made


def read_by(index: Index, task: Task) -> str:
    return str(index.snapshot.manifest.tasks[task.name]["examples"]["by"])


def stored(index: Index, demonstration: Demonstration) -> Vectors:
    for segment in index.snapshot.segments:
        for hit in index.retrieve(np.ones(SIZE), level="demonstration", k=500):
            if hit.unit.source_id == demonstration.source_id:
                for _, _, place in segment.rows.positions_of([bytes.fromhex(hit.id)]):
                    return np.array(vectors_of(segment.levels["demonstration"].flat)[place])
    raise AssertionError("not stored")


def test_each_task_is_read_by_what_predicts_it(index: Index) -> None:
    assert (read_by(index, MOOD), read_by(index, SHAPE)) == ("head", "trunk")
    told = index.snapshot.manifest.tasks["mood"]["examples"]
    assert told["asked"] == 80 and told["head"] == 1.0 and told["trunk"] < 0.9
    assert index.tasks["mood"] == MOOD  # the card itself is what it was
    by_head, by_trunk = examples(MOOD, "last")[3], examples(SHAPE, "first")[3]
    np.testing.assert_allclose(stored(index, by_head), direction(by_head.input.split()[-1]), atol=1e-3)
    np.testing.assert_allclose(stored(index, by_trunk), direction(by_trunk.input.split()[0]), atol=1e-3)


def test_inputs_are_read_as_the_examples_are_and_votes_follow(index: Index, encoder: TwoSided) -> None:
    encoder.sides.clear()
    moods = DemonstrationVoter(index.retriever, MOOD).predict(["x0 new and is1", "x0 new and is0"])
    shapes = DemonstrationVoter(index.retriever, SHAPE).predict(["is1 new and y1", "is0 new and y1"])
    assert [vote.output for vote in (*moods, *shapes)] == ["sad", "glad", "square", "round"]
    assert ("demonstration", "Say the mood. x0 new and is1") in encoder.sides
    assert ("query", "is1 new and y1") in encoder.sides
    assert not any(side == "demonstration" and "Say the shape" in text for side, text in encoder.sides)


def test_further_examples_are_read_as_those_that_are_there(index: Index) -> None:
    late = [
        Demonstration("shape", f"is{n % 2} late{n} and is{n % 2}", SHAPE.labels[n % 2]) for n in range(60)
    ]
    index.add_demonstrations(SHAPE, late)
    assert read_by(index, SHAPE) == "trunk"
    np.testing.assert_allclose(stored(index, late[1]), direction("is1"), atol=1e-3)
    with pytest.raises(UsageError, match="by the trunk"):
        index.add_demonstrations(SHAPE, late, by="head")
    index.add_demonstrations(replace(SHAPE, instruction="Else."), late)  # the trunk reads no instruction
    with pytest.raises(UsageError, match="another instruction"):
        index.add_demonstrations(replace(MOOD, instruction="Else."), [])


class Turned(TwoSided):
    """Head and trunk the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = replace(self.identity, demonstrations="instructed sha256:1")

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        return super().encode(texts, "document" if side == "demonstration" else "demonstration")


def test_a_rebuild_asks_again(index: Index) -> None:
    index.rebuild(encoder=Turned())
    assert (read_by(index, MOOD), read_by(index, SHAPE)) == ("trunk", "head")
    one = examples(MOOD, "last")[5]
    np.testing.assert_allclose(stored(index, one), direction(one.input.split()[-1]), atol=1e-3)
    index.rebuild(encoder="hashing")
    assert "examples" not in index.snapshot.manifest.tasks["mood"]


def test_a_rebuild_asks_of_all_examples_and_keeps_what_a_person_chose(index: Index) -> None:
    late = Task("late", "classification", "Say it.", labels=("glad", "sad"))
    index.add_demonstrations(late, examples(late, "last", 5))
    index.add_demonstrations(late, examples(late, "last", 90))
    assert read_by(index, late) == "trunk"  # by the first five
    forced = Task("forced", "classification", "Say it.", labels=("glad", "sad"))
    index.add_demonstrations(forced, examples(forced, "last"), by="trunk")
    index.rebuild()
    assert (read_by(index, late), read_by(index, forced), read_by(index, SHAPE)) == ("head", "trunk", "trunk")
    np.testing.assert_allclose(stored(index, examples(late, "last", 5)[1]), direction("is1"), atol=1e-3)
    index.rebuild(by="head")
    assert {read_by(index, task) for task in (late, forced, SHAPE, MOOD)} == {"head"}
    index.rebuild(by="auto")
    assert (read_by(index, forced), read_by(index, SHAPE)) == ("head", "trunk")


QUERY = "is1 new and is0"  # the trunk sees is1, the head is0


@pytest.mark.parametrize("bank", ["all", "prior"])
def test_a_bank_is_of_the_tasks_that_are_read_alike(index: Index, bank: Bank) -> None:
    other = Task("other", "classification", "Say it.", labels=("round", "square"))
    index.add_demonstrations(other, examples(other, "first"))
    wanted = Selection(k=100, channel="dense", bank=bank, leakage_filter=False)
    found = select(index.retriever, QUERY, "shape", wanted)
    assert {hit.unit.metadata["task"] for hit in found.hits} == {"shape", "other"}
    mine = {"shape": 2.0, "other": 0.0} if bank == "prior" else {"shape": 0.0, "other": 0.0}
    raised = [mine[str(hit.unit.metadata["task"])] for hit in found.hits]
    np.testing.assert_allclose(np.array(found.cosines) + raised, [hit.score for hit in found.hits], atol=1e-3)
    assert {hit.unit.metadata["task"] for hit in select(index.retriever, QUERY, "mood", wanted).hits} == {
        "mood"
    }


@pytest.mark.parametrize("channel", ["dense", "fused"])
def test_of_no_task_each_example_is_found_by_the_vector_that_it_has(index: Index, channel: Channel) -> None:
    hits = index.retrieve(QUERY, level="demonstration", k=80, channel=channel)
    words = [(hit.unit.metadata["task"], hit.text.split()[0], hit.text.split()[-1]) for hit in hits]
    assert {last for task, _, last in words[:60] if task == "mood"} == {"is0"}
    assert {first for task, first, _ in words[:60] if task == "shape"} == {"is1"}
    if channel == "dense":
        assert [hit.score for hit in hits][:79] == pytest.approx([1.0] * 79, abs=1e-3)
    only = index.retrieve(QUERY, level="demonstration", k=9, where='task == "shape"', channel=channel)
    assert {hit.text.split()[0] for hit in only} == {"is1"}


def test_examples_without_a_card_are_the_heads(index: Index) -> None:
    """As `Index.add` of an example's document leaves them."""
    index.add([Demonstration("bare", f"x{n} new and is{n % 2}", "a").to_document() for n in range(6)])
    wanted = Selection(k=3, channel="dense", leakage_filter=False)
    found = select(index.retriever, QUERY, "bare", wanted)
    assert [hit.score for hit in found.hits] == pytest.approx([1.0] * 3, abs=1e-3)
    assert {hit.text.split()[-1] for hit in found.hits} == {"is0"}


def test_an_example_of_another_task_is_refused_and_nothing_changes(index: Index) -> None:
    before = index.snapshot.sha256
    with pytest.raises(UsageError, match="An example of mood was given as one of shape"):
        index.add_demonstrations(SHAPE, [*examples(SHAPE, "first", 90), *examples(MOOD, "last", 1)])
    index.refresh()
    assert index.snapshot.sha256 == before


def test_a_person_may_say_who_reads_them(encoder: TwoSided, tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder=encoder, streams=())
    index.add_demonstrations(SHAPE, examples(SHAPE, "first"), by="head")
    assert read_by(index, SHAPE) == "head"
    index.add_demonstrations(SHAPE, examples(SHAPE, "first", 90), by="auto")  # asks nobody again
    assert read_by(index, SHAPE) == "head"
    with pytest.raises(UsageError, match="Nothing is called 'me'"):
        index.add_demonstrations(MOOD, examples(MOOD, "first"), by="me")  # type: ignore[arg-type]
    plain = Index.create(tmp_path / "p", encoder="hashing", streams=())
    with pytest.raises(UsageError, match="no head for examples"):
        plain.add_demonstrations(MOOD, examples(MOOD, "first"), by="head")
    plain.add_demonstrations(MOOD, examples(MOOD, "first"), by="trunk")
    assert "mood" not in index.tasks and len(plain.tasks) == 1


def test_what_a_crash_left_is_not_taken_over_for_another_reader(
    encoder: TwoSided, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "FLUSH_UNITS", 20)
    index = Index.create(tmp_path / "i", encoder=encoder, streams=())

    def breaking(count: int) -> Iterator[Demonstration]:
        yield from examples(SHAPE, "first")[:count]
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        index.add_demonstrations(SHAPE, breaking(50), by="head")
    assert len(list((tmp_path / "i" / "segments").iterdir())) == 2  # 40 examples, read by the head
    encoder.sides.clear()
    index.add_demonstrations(SHAPE, examples(SHAPE, "first"), by="trunk")
    assert {side for side, _ in encoder.sides} == {"document"} and len(encoder.sides) == 80
    for n in (0, 30, 60):
        one = examples(SHAPE, "first")[n]
        np.testing.assert_allclose(stored(index, one), direction(one.input.split()[0]), atol=1e-3)


def test_few_examples_and_options_are_read_by_the_trunk_and_many_are_drawn_from(encoder: TwoSided) -> None:
    few = [(d.input, d.output) for d in examples(MOOD, "last", FEWEST - 1)]
    assert judge(MOOD, few, encoder) == Judged("trunk")
    many = [(d.input, d.output) for d in examples(MOOD, "last", ASKED + 50)]
    assert judge(replace(MOOD, kind="multiple_choice"), many, encoder) == Judged("trunk")
    assert judge(MOOD, many, encoder).asked == ASKED
    assert judge(replace(MOOD, kind="generation"), many, encoder).by == "head"


def test_the_head_must_be_surely_better() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = [str(n % 2) for n in range(200)]
    other = vectors[rng.permutation(200)]
    judged = compared(other, vectors, labels, exact=True)  # both know nothing
    assert judged.by == "trunk" and judged.asked == 200
    told = np.where(np.arange(200)[:, None] % 2 == 0, vectors[0], vectors[1])
    assert compared(told, vectors, labels, exact=True) == Judged("head", False, 200, 1.0, judged.trunk)
    assert compared(told, told, labels, exact=True).by == "trunk"  # as good: the trunk


@given(st.integers(3, 12), st.integers(0, 3))
def test_no_example_predicts_itself(count: int, seed: int) -> None:
    """Where every output is another, none can be right."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, SIZE)).astype(np.float32)
    assert left_out(vectors, [f"o{n}" for n in range(count)], exact=True) == [0.0] * count


@given(st.text("ab ", max_size=12), st.text("ab ", max_size=12))
def test_overlap_is_symmetric_and_whole_for_the_same(a: str, b: str) -> None:
    assert overlap(a, b) == overlap(b, a) and 0 <= overlap(a, b) <= 1 and overlap(a, a) == 1
