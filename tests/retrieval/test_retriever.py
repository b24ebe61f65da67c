"""The one door: arguments, channels, fusion, laziness. Exactness is in tests/index (state machine)."""

from __future__ import annotations

from pathlib import Path

import bm25s
import numpy as np
import pytest

from agentmtl import Document, Index
from agentmtl.errors import EncoderError, EncoderMismatchError, FilterError, UsageError
from agentmtl.index.tokens import words
from agentmtl.retrieval.fusion import AGAIN, Fused, Fusion, fuse, ranked_again
from agentmtl.retrieval.ranking import Ranking, best
from agentmtl.trunk import HashingEncoder

TEXTS = {
    "ada": "Ada Lovelace wrote the first computer program in 1843.",
    "babbage": "Charles Babbage designed the analytical engine, a mechanical computer.",
    "bread": "Bread is baked from flour, water and salt.",
    "bridge": "The Forth Bridge was opened in 1890 by the Prince of Wales.",
}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "index", encoder="hashing")
    made.add([Document(key, text, key.title(), {"year": i}) for i, (key, text) in enumerate(TEXTS.items())])
    return made


def test_each_channel_finds_the_obvious(index: Index) -> None:
    for channel in ("fused", "dense", "lexical"):
        hits = index.retrieve("Who wrote the first computer program?", channel=channel, k=2)  # type: ignore[arg-type]
        assert hits[0].unit.source_id == "ada"
        assert list(hits.scores) == sorted(hits.scores, reverse=True)


def test_a_hit_explains_itself(index: Index) -> None:
    hit = index.retrieve("mechanical computer", k=1)[0]
    assert set(hit.channels) == {"dense", "lexical", "identifiers"}
    assert hit.keys == ("computer", "mechanical")
    shown = hit.to_json()
    assert {"id", "level", "score", "text", "meta", "channels", "keys"} <= set(shown)
    assert shown["meta"]["title"] == "Babbage" and shown["meta"]["year"] == 1


@pytest.mark.parametrize("level", ["document", "passage", "sentence", "entity"])
def test_every_level_answers(index: Index, level: str) -> None:
    hits = index.retrieve("Ada Lovelace", level=level, k=1)  # type: ignore[arg-type]
    assert hits[0].level == level and "Ada" in hits[0].text


def test_an_entity_lists_the_passages_that_mention_it(index: Index) -> None:
    (hit, *_) = index.retrieve("Ada Lovelace", level="entity", channel="lexical")
    passages = index.snapshot.locate(list(hit.unit.mentions))
    assert len(passages) == len(hit.unit.mentions) == 1
    assert hit.unit.source_id == "ada"


def test_a_vector_is_searched_like_its_text(index: Index) -> None:
    vector = HashingEncoder().encode(["mechanical computer"], "query")[0]
    by_vector = index.retrieve(vector, k=3)
    by_text = index.retrieve("mechanical computer", channel="dense", k=3)
    assert by_vector.ids == by_text.ids and np.array_equal(by_vector.scores, by_text.scores)
    assert index.retrieve(vector.tolist(), k=3).ids == by_vector.ids
    batch = index.retriever.retrieve_batch(np.stack([vector] * 25), k=3)
    assert all(hits.ids == by_vector.ids for hits in batch)


def test_texts_are_read_only_when_looked_at(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = HashingEncoder().encode(["computer"], "query")[0]

    def refuse(*_: object) -> None:
        raise AssertionError("a text was read")

    monkeypatch.setattr(type(index.snapshot), "units", refuse)
    hits = index.retrieve(vector)
    assert len(hits) == 4 and len(hits.ids) == 4 and hits.scores[0] > 0
    with pytest.raises(AssertionError, match="was read"):
        hits[0]


def test_the_encoder_is_loaded_only_for_text(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Index.open(index.folder)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the encoder was loaded")

    monkeypatch.setattr("agentmtl.retrieval.index.load_encoder", refuse)
    assert opened.retrieve("computer", channel="lexical")
    assert opened.retrieve(np.ones(opened.settings.encoder.dimension, np.float32))
    with pytest.raises(AssertionError, match="was loaded"):
        opened.retrieve("computer")


def test_lexical_scores_are_those_of_bm25s(index: Index) -> None:
    """A well-kept implementation as the oracle, over the same words."""
    titled = [
        text if text.startswith(key.title()) else f"{key.title()}\n{text}" for key, text in TEXTS.items()
    ]
    corpus = [words(text) for text in titled]
    oracle = bm25s.BM25(method="lucene", k1=index.settings.k1, b=index.settings.b)
    oracle.index(corpus, show_progress=False)
    query = "the first computer program, and bread"
    expected = dict(zip(TEXTS, oracle.get_scores(words(query)), strict=True))
    hits = index.retrieve(query, channel="lexical")
    assert {h.unit.source_id: pytest.approx(h.score, abs=1e-5) for h in hits} == {
        key: score for key, score in expected.items() if score > 0
    }


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"query": "x", "k": 0}, UsageError),
        ({"query": "x", "k": 10_001}, UsageError),
        ({"query": "x", "level": "chapter"}, UsageError),
        ({"query": "x", "level": "demonstration"}, UsageError),
        ({"query": "x", "channel": "psychic"}, UsageError),
        ({"query": "x", "where": "year >"}, FilterError),
        ({"query": np.ones(7, np.float32)}, EncoderError),
        ({"query": np.full(256, np.nan, np.float32)}, EncoderError),
        ({"query": np.full(256, np.inf, np.float32)}, EncoderError),
    ],
)
def test_bad_arguments_are_clear_errors(index: Index, arguments: dict[str, object], error: type) -> None:
    with pytest.raises(error) as caught:
        index.retrieve(**arguments)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_query_of_no_known_word_still_works(index: Index) -> None:
    assert len(index.retrieve("zzz qqq", channel="lexical")) == 0
    assert len(index.retrieve("?!", k=2)) == 2


def test_the_task_keeps_to_its_own_units(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing")
    index.add([Document("a", "Good film.", metadata={"task": 'say "yes"'}), Document("b", "Good film too.")])
    assert [h.unit.source_id for h in index.retrieve("film", task='say "yes"')] == ["a"]
    assert len(index.retrieve("film")) == 2


def test_another_encoder_is_refused_with_the_command_that_fixes_it(index: Index) -> None:
    with pytest.raises(EncoderMismatchError, match="agentmtl index rebuild"):
        Index.open(index.folder, encoder=HashingEncoder(dimension=64))


def test_rebuild_changes_the_encoder_from_the_stored_text(index: Index) -> None:
    before = index.retrieve("mechanical computer", channel="lexical").ids
    index.rebuild(encoder=HashingEncoder(dimension=64))
    assert index.settings.encoder.dimension == 64
    assert index.retrieve("mechanical computer", channel="lexical").ids == before
    assert index.retrieve("mechanical computer", k=1)[0].unit.source_id == "babbage"


@pytest.mark.parametrize("factory", ["HNSW16", "IVF8,Flat", "SQ8"])
def test_a_faiss_factory_finds_what_flat_finds(
    tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmtl.index.segment.MIN_ANN_UNITS", 100)
    made = Index.create(tmp_path / "i", encoder="hashing", factory=factory, levels=("passage",))
    made.add(
        [Document(f"d{i}", f"Item {i} is number {i * 7919 % 1000}.", metadata={"i": i}) for i in range(400)]
    )
    assert any("ann" in f for s in made.snapshot.segments for f in s.manifest.files)
    for i in (3, 77, 250):
        query = f"Item {i} is number {i * 7919 % 1000}."
        assert made.retrieve(query, channel="dense", k=1)[0].unit.source_id == f"d{i}"
        assert (
            made.retrieve(query, channel="dense", k=1, where=f"i == {i + 1}")[0].unit.source_id == f"d{i + 1}"
        )


def test_best_cuts_ties_by_id() -> None:
    scores = np.array([1.0, 3.0, 3.0, 3.0, 2.0])
    numbers, positions = np.zeros(5, np.int64), np.arange(5)
    ids = {1: b"c", 2: b"a", 3: b"b"}
    ranked = best(scores, numbers, positions, 2, lambda n, p: ids.get(p, b"z"))
    assert ranked.positions.tolist() == [2, 3]


@pytest.mark.parametrize("method", ["rrf", "zsum"])
def test_fusion_prefers_what_both_channels_like(index: Index, method: str) -> None:
    zeros = np.zeros(3, np.int64)
    rankings = {
        "dense": Ranking(np.array([0.9, 0.8, 0.1]), zeros, np.array([0, 1, 2])),
        "lexical": Ranking(np.array([5.0, 4.9, 1.0]), zeros, np.array([3, 1, 2])),
    }
    fused = fuse(index.snapshot, "passage", rankings, 4, Fusion(method=method))  # type: ignore[arg-type]
    assert fused.ranking.positions[0] == 1
    assert fused.channels["lexical"][0, 3] == 5.0 and (0, 3) not in fused.channels["dense"]


@pytest.mark.parametrize(("method", "wide"), [("zsum", 2.0), ("rrf", 1e-4)])
def test_proposed_keys_order_the_first_again_and_the_rest_stay_behind(
    tmp_path: Path, method: str, wide: float
) -> None:
    made = Index.create(tmp_path / "many", encoder="hashing")
    made.add([Document(f"{n:02}", f"Lamp number {n} burns.") for n in range(AGAIN + 5)])
    count, k = AGAIN + 5, AGAIN + 4
    falling = Ranking(np.linspace(wide, -wide, count), np.zeros(count, np.int64), np.arange(count))
    fusion = Fusion(method=method, proposed={"sentence": 5.0})  # type: ignore[arg-type]
    fused = Fused(falling, {"dense": {}})
    said = Ranking(np.array([9.0, 4.0]), np.zeros(2, np.int64), np.array([AGAIN + 2, 7]))
    again = ranked_again(made.snapshot, "sentence", fused, said, k, fusion)
    assert again.ranking.positions.tolist() == [7, *(n for n in range(k) if n != 7)]
    assert set(again.channels) == {"dense", "proposed"} and len(again.channels["proposed"]) == AGAIN
    assert again.channels["proposed"][0, 7] == 4.0 and again.channels["proposed"][0, 0] == 0.0
    nothing = Ranking(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))
    if method == "zsum":
        same = ranked_again(made.snapshot, "sentence", fused, nothing, k, fusion)
        assert same.ranking.positions.tolist() == list(range(k))
    off = ranked_again(made.snapshot, "passage", fused, said, k, fusion)
    assert off.ranking.positions.tolist() == list(range(k))


async def test_the_async_twin_agrees(index: Index) -> None:
    assert (await index.aretrieve("computer", k=2)).ids == index.retrieve("computer", k=2).ids
