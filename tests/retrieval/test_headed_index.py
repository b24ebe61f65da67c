"""Labelled examples embedded by a head, beside documents that are not, in one index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmtl import DemonstrationVoter, Document, Index
from agentmtl.errors import EncoderMismatchError, UsageError
from agentmtl.index.vectors import vectors_of
from agentmtl.retrieval import example_encoder
from agentmtl.retrieval.demonstrations import Selection, select
from agentmtl.retrieval.example_encoder import Judged
from agentmtl.schema import Demonstration, Level
from agentmtl.tasks import Task, instructed
from agentmtl.trunk import load_encoder

from ..trunk.tiny import embedding_head, tiny_trunk

COLOURS = Task("colours", "classification", "Say how the colour feels.", labels=("warm", "cold"))
CHOICE = Task("choice", "multiple_choice", "Choose well.")
EXAMPLES = [
    Demonstration("colours", "a red coat of wool", "warm"),
    Demonstration("colours", "a red brick house", "warm"),
    Demonstration("colours", "a blue lake in winter", "cold"),
]
CHOICES = [
    Demonstration("choice", f"Which {n}?\nA. this\nB. that", "this", ("this", "that"), 0) for n in range(3)
]
SAME = "a red coat of wool"  # as an example and as a document


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("headed")
    files = tiny_trunk(place / "trunk")
    return f"{place / 'trunk'}+{embedding_head(files, place / 'head')}"


@pytest.fixture
def index(spec: str, tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "i", encoder=spec, backend="torch-fp32", streams=())
    made.add([Document("d", SAME)])
    made.add_demonstrations(COLOURS, EXAMPLES, by="head")
    made.add_demonstrations(CHOICE, CHOICES, by="head")
    return made


def stored(index: Index, level: Level, source: str) -> np.ndarray:
    (hit,) = [h for h in index.retrieve(np.zeros(32), level=level, k=50) if h.unit.source_id == source]
    for segment in index.snapshot.segments:
        for _, at, position in segment.rows.positions_of([bytes.fromhex(hit.id)]):
            if at == level:
                return np.array(vectors_of(segment.levels[level].flat)[position])
    raise AssertionError("not stored")


def test_examples_are_encoded_by_the_head_under_their_instruction(index: Index) -> None:
    encoder = index.encoder
    wanted = encoder.encode([instructed(COLOURS, SAME)], "demonstration")[0]
    np.testing.assert_allclose(stored(index, "demonstration", EXAMPLES[0].source_id), wanted, atol=1e-3)
    np.testing.assert_allclose(stored(index, "passage", "d"), encoder.encode([SAME])[0], atol=1e-3)


def test_inputs_are_encoded_as_examples_are(index: Index) -> None:
    found = select(
        index.retriever, "a red coat of wool!", "colours", Selection(1, "dense", leakage_filter=False)
    )
    query = index.retriever.encode_inputs(["a red coat of wool!"], "colours")[0]
    by_hand = index.encoder.encode(["Say how the colour feels. a red coat of wool!"], "demonstration")[0]
    np.testing.assert_array_equal(query, by_hand)
    (hit,) = found.hits
    assert hit.score == pytest.approx(
        float(query @ stored(index, "demonstration", hit.unit.source_id)), abs=1e-3
    )
    door = index.retrieve("a red coat of wool!", task="colours", level="demonstration", k=1, channel="dense")
    assert door[0].id == hit.id and door[0].score == pytest.approx(hit.score, abs=1e-6)
    lexical = index.retrieve("wool", task="colours", level="demonstration", k=1, channel="lexical")
    assert lexical[0].unit.source_id == EXAMPLES[0].source_id


def test_the_voter_finds_by_the_head_and_compares_options_by_the_trunk(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[tuple[str, str]] = []
    encode = index.encoder.encode

    def heard(texts: list[str], side: str = "document") -> np.ndarray:
        sides.extend((side, text) for text in texts)
        return encode(texts, side)  # type: ignore[arg-type]

    monkeypatch.setattr(index.encoder, "encode", heard)
    (vote,) = DemonstrationVoter(index.retriever, CHOICE).predict(
        ["Which 9?\nA. this\nB. that"], [["this", "that"]]
    )
    assert vote.output in ("this", "that")
    assert [text for side, text in sides if side == "demonstration"] == [
        "Choose well. Which 9?\nA. this\nB. that"
    ]
    assert ("query", "Which 9? this") in sides and ("query", "that") in sides


def test_adding_again_rebuilding_and_opening_cost_nothing_and_change_nothing(index: Index, spec: str) -> None:
    before = stored(index, "demonstration", EXAMPLES[2].source_id)
    assert index.add_demonstrations(COLOURS, EXAMPLES).unchanged == 3
    index.rebuild()
    np.testing.assert_array_equal(stored(index, "demonstration", EXAMPLES[2].source_id), before)
    again = Index.open(index.folder, backend="torch-fp32")
    assert again.verify().ok and again.encoder.identity == index.encoder.identity
    with pytest.raises(EncoderMismatchError, match="demonstrations"):
        Index.open(index.folder, encoder=spec.partition("+")[0], backend="torch-fp32")


def test_it_is_rebuilt_for_a_head_from_the_trunk_alone(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_encoder, "judge", lambda task, examples, encoder: Judged("head"))
    plain = Index.create(tmp_path / "i", encoder=spec.partition("+")[0], backend="torch-fp32", streams=())
    plain.add_demonstrations(COLOURS, EXAMPLES)
    trunk = stored(plain, "demonstration", EXAMPLES[0].source_id)
    plain.rebuild(encoder=load_encoder(spec, backend="torch-fp32"))
    head = stored(plain, "demonstration", EXAMPLES[0].source_id)
    wanted = plain.encoder.encode([instructed(COLOURS, SAME)], "demonstration")[0]
    np.testing.assert_allclose(head, wanted, atol=1e-3)
    assert not np.allclose(head, trunk, atol=1e-2)


def test_another_instruction_would_part_old_from_new_and_is_refused(index: Index) -> None:
    other = Task("colours", "classification", "Guess.", labels=COLOURS.labels)
    with pytest.raises(UsageError, match="another instruction"):
        index.add_demonstrations(other, EXAMPLES)
    assert index.tasks["colours"] == COLOURS
