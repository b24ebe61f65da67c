"""Labelled examples in the index beside documents, and how demonstrations are chosen for an input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl import Document, Index
from agentmtl.errors import UsageError
from agentmtl.retrieval.demonstrations import LEAK, Selection, alike, select, shingles
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task

COLOURS = Task("colours", "classification", labels=("warm", "cold"))
ANIMALS = Task("animals", "classification", labels=("pet", "wild"))
EXAMPLES = [
    ("a red coat of wool", "warm"),
    ("an orange sunset over hills", "warm"),
    ("a red brick house in town", "warm"),
    ("a blue lake in winter", "cold"),
    ("green ice on the pond", "cold"),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Two documents and two tasks."""
    made = Index.create(tmp_path_factory.mktemp("demos") / "index", encoder="hashing:256", streams=())
    made.add([Document("d", "A red fox crossed the road. It was cold.", "Fox"), Document("e", "Ice melts.")])
    made.add_demonstrations(COLOURS, [Demonstration("colours", *e) for e in EXAMPLES])
    made.add_demonstrations(
        ANIMALS, [Demonstration("animals", f"the red fox number {i} in the woods", "wild") for i in range(9)]
    )
    return made


def outputs(index: Index, text: str, selection: Selection, task: str = "colours") -> list[str]:
    return [str(h.unit.metadata["output"]) for h in select(index.retriever, text, task, selection).hits]


# --- in the index -----------------------------------------------------------------------------------


def test_examples_are_units_of_their_own_level_and_of_no_other(index: Index) -> None:
    live = index.snapshot.manifest.live
    assert live["demonstration"] == len(EXAMPLES) + 9
    assert (live["document"], live["passage"], live["sentence"]) == (2, 2, 3)
    for level in ("document", "passage", "sentence"):
        hits = index.retrieve("red fox in the woods", level=level)  # type: ignore[arg-type]
        assert {hit.unit.source_id for hit in hits} <= {"d", "e"}


def test_one_door_finds_them_by_task(index: Index) -> None:
    hits = index.retrieve("a red coat", task="colours", level="demonstration", k=3)
    assert hits[0].text == "a red coat of wool" and hits[0].unit.metadata["output"] == "warm"
    assert {hit.unit.metadata["task"] for hit in hits} == {"colours"}
    assert Demonstration.from_unit(hits[0].unit) == Demonstration("colours", *EXAMPLES[0])


def test_adding_again_changes_nothing_and_cards_are_kept(index: Index) -> None:
    before = index.snapshot.sha256
    report = index.add_demonstrations(COLOURS, [Demonstration("colours", *e) for e in EXAMPLES])
    assert (report.added, report.unchanged) == (0, len(EXAMPLES)) and index.snapshot.sha256 == before
    assert index.tasks == {"colours": COLOURS, "animals": ANIMALS}


def test_they_survive_rebuild_compact_and_deletion(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:64", streams=())
    index.add([Document("d", "A red fox.")])
    examples = [Demonstration("colours", *e) for e in EXAMPLES]
    index.add_demonstrations(COLOURS, examples)
    index.delete([examples[0].source_id])
    index.compact()
    index.rebuild()
    again = Index.open(tmp_path / "i")
    assert again.verify().ok and again.tasks == {"colours": COLOURS}
    found = again.retrieve("a red coat of wool", level="demonstration", k=10)
    assert {hit.text for hit in found} == {text for text, _ in EXAMPLES[1:]}


def test_an_index_without_examples_says_so(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:64", streams=())
    with pytest.raises(UsageError, match="no demonstrations"):
        index.retrieve("x", level="demonstration")
    assert b"tasks" not in (tmp_path / "i" / index.snapshot.manifest.name).read_bytes()


def test_an_error_half_way_adds_nothing(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:64", streams=())

    def broken():  # type: ignore[no-untyped-def]
        yield Demonstration("colours", *EXAMPLES[0])
        raise UsageError("broken")

    with pytest.raises(UsageError, match="broken"):
        index.add_demonstrations(COLOURS, broken())
    index.refresh()
    assert not index.tasks and "demonstration" not in index.snapshot.manifest.live


# --- choosing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["dense", "lexical", "fused"])
def test_the_best_stands_last(index: Index, channel: str) -> None:
    first = select(
        index.retriever, "a red coat", "colours", Selection(3, channel, "best_first")  # type: ignore[arg-type]
    )  # fmt: skip
    last = select(index.retriever, "a red coat", "colours", Selection(3, channel))  # type: ignore[arg-type]
    assert [h.id for h in last.hits] == [h.id for h in first.hits][::-1]
    assert last.hits[-1].score == max(h.score for h in last.hits)
    assert last.cosines == first.cosines[::-1]


def test_cosines_are_of_input_and_example(index: Index) -> None:
    found = select(index.retriever, "a red coat", "colours", Selection(4))
    query, *rows = index.encoder.encode(["a red coat", *(h.text for h in found.hits)])
    np.testing.assert_allclose(found.cosines, np.stack(rows) @ query, atol=1e-5)


def test_balance_takes_the_outputs_in_turn(index: Index) -> None:
    text = "a red orange coat of wool, brick and sunset"
    assert outputs(index, text, Selection(2, order="best_first")) == ["warm", "warm"]
    assert sorted(outputs(index, text, Selection(2, balance=True))) == ["cold", "warm"]
    assert sorted(outputs(index, text, Selection(4, balance=True))) == ["cold", "cold", "warm", "warm"]


def test_diversity_prefers_what_is_unlike(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:256", streams=())
    near = [Demonstration("t", f"red coat of wool {word}", "a") for word in ("here", "there")]
    index.add_demonstrations(Task("t", "classification"), [*near, Demonstration("t", "red lake", "b")])
    plain = select(index.retriever, "red coat of wool", "t", Selection(2, "dense"))
    assert {h.unit.metadata["output"] for h in plain.hits} == {"a"}
    mixed = select(index.retriever, "red coat of wool", "t", Selection(2, "dense", diversity=0.7))
    assert {h.unit.metadata["output"] for h in mixed.hits} == {"a", "b"}


@pytest.mark.parametrize("channel", ["dense", "lexical"])
def test_banks(index: Index, channel: str) -> None:
    """The task's own; all tasks; and all with the task's own raised, the more the higher the prior."""
    text = "a red fox in the cold woods"

    def tasks(bank: str, prior: float = 0.0) -> list[str]:
        chosen = Selection(4, channel, bank=bank, prior=prior)  # type: ignore[arg-type]
        return [str(h.unit.metadata["task"]) for h in select(index.retriever, text, "colours", chosen).hits]

    assert tasks("task") == ["colours"] * 4
    assert "animals" in tasks("all")
    assert tasks("prior", 0.0) == tasks("all")
    assert tasks("prior", 100.0) == ["colours"] * 4


def test_a_selection_of_nothing_is_refused() -> None:
    for wrong in ({"k": 0}, {"diversity": 1.5}):
        with pytest.raises(UsageError):
            Selection(**wrong)  # type: ignore[arg-type]


# --- leakage ----------------------------------------------------------------------------------------


def test_what_says_the_same_as_the_input_is_left_out(index: Index) -> None:
    for text in ("a red coat of wool", "A  RED coat, of wool!"):
        found = select(index.retriever, text, "colours", Selection(5))
        assert "a red coat of wool" not in {h.text for h in found.hits} and len(found.hits) == 4
        kept = select(index.retriever, text, "colours", Selection(5, leakage_filter=False))
        assert "a red coat of wool" in {h.text for h in kept.hits}


def test_many_copies_of_the_input_do_not_use_up_the_demonstrations(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:64", streams=())
    copies = [Demonstration("t", "what is my balance", f"label {i}") for i in range(60)]
    others = [Demonstration("t", f"what is the price of number {i}", "price") for i in range(9)]
    index.add_demonstrations(Task("t", "classification"), [*copies, *others])
    assert outputs(index, "What is my balance?", Selection(8), "t") == ["price"] * 8


def test_texts_without_words_are_compared_by_their_signs() -> None:
    assert alike(shingles("!!!"), shingles("!!!")) and not alike(shingles("???"), shingles("!!!"))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=40), st.integers(0, 39))
def test_leaks_is_shingle_jaccard(spelt: list[str], at: int) -> None:
    changed = [*spelt]
    changed[at % len(spelt)] = "z"
    mine, other = ({tuple(x[i : i + 3]) for i in range(len(x) - 2)} for x in (spelt, changed))
    expected = len(mine & other) / len(mine | other) >= LEAK
    assert alike(shingles(" ".join(spelt)), shingles(" ".join(changed))) == expected
    assert alike(shingles(" ".join(spelt)), shingles(" ".join(spelt).upper() + " !"))
