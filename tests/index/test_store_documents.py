"""Documents and encoders out of the ordinary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentmtl.errors import EncoderError, EncoderMismatchError, UsageError
from agentmtl.index.build import stored_documents
from agentmtl.index.manifest import IndexSettings
from agentmtl.index.store import Store
from agentmtl.index.verify import verify
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Document
from agentmtl.trunk.encoder import Side, Vectors

from . import toy
from .toy import keys

# --- encoders


class BadEncoder(toy.ToyEncoder):
    """Spoils its vectors in one way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        good: Any = super().encode(texts, side)
        if self.how in ("nan", "inf"):
            good[-1, 3] = float(self.how)
        return {
            "short": good[:-1],
            "wide": np.hstack([good, good]),
            "flat": good.ravel(),
            "none": None,
            "ragged": [[1.0], [1.0, 2.0]],
            "words": ["x"] * len(good),
        }.get(self.how, good)


@pytest.mark.parametrize("how", ["nan", "inf", "short", "wide", "flat", "none", "ragged", "words"])
def test_bad_vectors_change_nothing(folder: Path, encoder: toy.ToyEncoder, how: str) -> None:
    toy.build(folder, toy.several(2), encoder)
    before = Store(folder).open().sha256
    with pytest.raises(EncoderError):
        toy.build(folder, toy.several(3, start=2), BadEncoder(how))
    assert Store(folder).open().sha256 == before
    toy.build(folder, toy.several(3, start=2), encoder)
    assert keys(folder) == {f"d{i}" for i in range(5)} and verify(folder).unknown == ()


def test_an_error_of_the_encoder_is_not_called_a_full_disk(folder: Path, encoder: toy.ToyEncoder) -> None:
    class Unreachable(toy.ToyEncoder):
        def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
            raise ConnectionError("no answer")

    with pytest.raises(ConnectionError):
        toy.build(folder, toy.several(1), Unreachable())


def test_another_encoder_is_refused(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(1), encoder)
    with pytest.raises(EncoderMismatchError, match="rebuild"):
        toy.build(folder, toy.several(2), toy.ToyEncoder("other"))


# --- odd documents


def test_an_empty_index_finds_nothing(folder: Path, encoder: toy.ToyEncoder) -> None:
    Store(folder).create(toy.settings(encoder))
    assert not any(toy.answers(Store(folder).open(), encoder).values())
    toy.build(folder, toy.several(2), encoder)
    toy.delete(folder, ["d0", "d1"])
    assert not any(toy.answers(Store(folder).open(), encoder).values())
    toy.compact(folder)
    snapshot = Store(folder).open()
    assert not any(toy.answers(snapshot, encoder).values()) and snapshot.segments == ()


def test_unicode_short_texts_and_long_ids(folder: Path, encoder: toy.ToyEncoder) -> None:
    documents = [
        Document(
            "ключ/東京#1",
            "Ärger in São Paulo. 東京は大きい。 Emoji 🙂 too.",
            "Τίτλος",
            {"Straße": "große", "emoji": "🙂"},
        ),
        Document("x", "x"),
        Document("q", "?"),
        Document("one", "東"),
        Document("zero width", "\u200b"),
        Document("k" * 20_000, "A long key.", "t" * 5_000),
        Document("pair", "e\u0301 🏳️‍🌈."),
    ]
    report = toy.build(folder, documents, encoder)
    assert report.added == len(documents)
    stored = {d.key: d for d in stored_documents(Store(folder).open())}
    assert stored == {d.key: d for d in documents}
    for unit in toy.content(Store(folder).open())["units"].values():
        if unit.level != "entity":
            whole = next(d for d in documents if d.source_id == unit.source_id)
            assert unit.text == whole.text[unit.start : unit.end]
    hits = Retriever(Store(folder).open(), encoder).retrieve(
        "東京", channel="lexical", where='`Straße` == "große"'
    )
    assert [h.unit.source_id for h in hits] == ["ключ/東京#1"]


@pytest.mark.parametrize(
    "bad",
    [
        Document("a", " \n"),
        Document("", "text"),
        Document("a", "half \ud800 pair"),
        Document("a\udfff", "text"),
        Document("nul", "a\0b. c"),
        Document("a", "text", "\ud800"),
        Document("a", "text", "", {"x": float("nan")}),
        Document("a", "text", "", {"x": object()}),
        Document("a", "text", "", {"x": "\ud800"}),
    ],  # type: ignore[dict-item]
    ids=range(9),
)
def test_documents_that_cannot_be_stored_are_skipped_with_the_reason(
    folder: Path, encoder: toy.ToyEncoder, bad: Document
) -> None:
    report = toy.build(folder, [bad, Document("good", "Good text.")], encoder)
    assert report.added == 1 and len(report.skipped) == 1 and report.skipped[0].reason
    assert keys(folder) == {"good"}


@pytest.mark.parametrize(
    "levels", [("document",), ("sentence",), ("passage", "entity"), ("document", "sentence")]
)
def test_some_levels_only(folder: Path, encoder: toy.ToyEncoder, levels: tuple[Any, ...]) -> None:
    toy.build(folder, toy.several(4), encoder, levels=levels)
    toy.build(folder, toy.several(2, start=4), encoder, levels=levels)
    toy.delete(folder, ["d1", "d5"])
    found = toy.answers(Store(folder).open(), encoder)
    toy.compact(folder)
    toy.assert_same_answers(toy.answers(Store(folder).open(), encoder), found)
    assert {name.split("/")[0] for name in found} == set(levels)


@pytest.mark.parametrize("levels", [(), ("entity",), ("document", "document"), ("chapter",)])
def test_levels_that_do_not_go_together(encoder: toy.ToyEncoder, levels: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError):
        IndexSettings(encoder.identity, levels=levels)
