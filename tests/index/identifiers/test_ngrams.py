"""n-grams against a naive scan, through every way an index changes, with two tokenisers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl.errors import IndexDamagedError, UsageError
from agentmtl.index.identifiers import Ngrams, StreamTokenizer, load_tokenizer, ngrams_of
from agentmtl.retrieval.index import Index
from agentmtl.schema import Document

from .naive import Scan
from .tokenizers import BOTH

WORDS = ["cat", "dog", "River", "gold", "mat", "the", "The", "ran", "straw's", "Ünïcode", "  ", "\n", "."]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join).filter(str.strip)
titles = st.lists(st.sampled_from(WORDS[:6]), max_size=2).map(" ".join)
corpora = st.lists(st.tuples(titles, texts), min_size=1, max_size=6)


def _documents(corpus: Sequence[tuple[str, str]], prefix: str = "d") -> list[Document]:
    return [Document(f"{prefix}{i}", text, title) for i, (title, text) in enumerate(corpus)]


def _agrees(ngrams: Ngrams, live: Sequence[Document], tokenizer: StreamTokenizer) -> None:
    scan = Scan(live, tokenizer)
    assert ngrams.tokens == scan.tokens
    some = scan.ngrams()
    for ngram in [(), *some[:: max(1, len(some) // 40)]]:
        following = scan.following(ngram)
        tokens, counts = ngrams.next_distribution(ngram)
        assert dict(zip(tokens.tolist(), counts.tolist(), strict=True)) == dict(following)
        assert list(ngrams.next_tokens(ngram)) == sorted(following)
        if ngram:
            assert ngrams.count(ngram) == scan.count(ngram) == len(ngrams.occurrences(ngram)[0])
    absent = [(tokenizer.end, tokenizer.title), (some[0][0], tokenizer.vocabulary - 1), (10**6,)]
    assert not ngrams.counts(absent).any()
    assert all(not len(ngrams.next_tokens(n)) for n in absent)


@pytest.mark.parametrize("name", BOTH)
@settings(max_examples=12, deadline=None)
@given(first=corpora, second=corpora, data=st.data())
def test_they_equal_a_scan_through_add_delete_update_compact_and_reopening(
    name: str, first: list[tuple[str, str]], second: list[tuple[str, str]], data: st.DataObject
) -> None:
    tokenizer = BOTH[name]()
    with TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "index", encoder="hashing:16", streams=[tokenizer])
        live = {d.key: d for d in _documents(first)}
        index.add(live.values())
        _agrees(ngrams_of(index.snapshot), list(live.values()), tokenizer)
        more = {d.key: d for d in _documents(second, data.draw(st.sampled_from("de")))}
        index.add(more.values())  # a second segment, replacing some of the first where the keys meet
        live |= more
        _agrees(ngrams_of(index.snapshot), list(live.values()), tokenizer)
        doomed = data.draw(st.lists(st.sampled_from(sorted(live)), unique=True, max_size=len(live) - 1))
        if doomed:
            index.delete(doomed)
        left = [d for key, d in live.items() if key not in doomed]
        _agrees(ngrams_of(index.snapshot), left, tokenizer)  # at once, without a rebuild
        index.compact()
        _agrees(ngrams_of(Index.open(index.folder).snapshot), left, tokenizer)
        assert index.verify().ok and not index.verify().unknown


@pytest.mark.parametrize("name", BOTH)
@settings(max_examples=15, deadline=None)
@given(corpus=corpora)
def test_positions_map_back_to_the_stored_text_and_to_every_unit_that_holds_them(
    name: str, corpus: list[tuple[str, str]]
) -> None:
    tokenizer = BOTH[name]()
    with TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "index", encoder="hashing:16", streams=[tokenizer])
        index.add(_documents(corpus))
        ngrams, snapshot = ngrams_of(index.snapshot), index.snapshot
        scan = Scan(_documents(corpus), tokenizer)
        for ngram in [n for n in scan.ngrams(3) if max(n) < tokenizer.vocabulary][::7]:
            segments, positions = ngrams.occurrences(ngram)
            for segment, position in zip(segments.tolist(), positions.tolist(), strict=True):
                row, start, end, in_title = ngrams.span(segment, position, len(ngram))
                sql = "SELECT title, text FROM documents WHERE row = ?"
                stored = snapshot.segments[segment].rows.query(sql, [row])[0][0 if in_title else 1]
                assert tokenizer.encode(stored[start:end]) == list(ngram) or name == "byte-pairs"
            for level in ("passage", "sentence"):
                index_of, where, units = ngrams.units_of(level, segments, positions, len(ngram))
                for i, number, unit in zip(index_of.tolist(), where.tolist(), units.tolist(), strict=True):
                    (found,) = snapshot.units(level, [(number, unit)])
                    row, start, end, in_title = ngrams.span(int(segments[i]), int(positions[i]), len(ngram))
                    assert in_title or (found.start <= start and end <= found.end)
                    assert not in_title or level == "passage"


def test_byte_pair_spans_are_the_text_of_the_key(tmp_path: Path) -> None:
    tokenizer = BOTH["byte-pairs"]()
    index = Index.create(tmp_path / "index", encoder="hashing:16", streams=[tokenizer])
    text = "A small cat ran.\n\nThe dog of gold ran to the river."
    index.add([Document("a", text)])
    ngrams = ngrams_of(index.snapshot)
    key = tokenizer.encode(" dog of gold")
    ((segment,), (position,)) = ngrams.occurrences(key)
    _, start, end, _ = ngrams.span(int(segment), int(position), len(key))
    assert text[start:end].strip() == "dog of gold"


def test_titles_and_names_are_keys_of_their_own(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", encoder="hashing:16")
    index.add(
        [
            Document("a", "Nothing about it here. The keeper left Far Point.", "Long Harbour"),
            Document("b", "Ships reach Long Harbour by night."),
        ]
    )
    ngrams, snapshot = ngrams_of(index.snapshot), index.snapshot
    t = ngrams.tokenizer
    name = t.encode("Long Harbour")
    assert ngrams.count([t.title, *name, t.title_end]) == 1 and ngrams.count(name) == 2
    segments, positions = ngrams.occurrences(name)

    def texts(level: str) -> list[str]:
        _, numbers, units = ngrams.units_of(level, segments, positions, len(name))  # type: ignore[arg-type]
        addresses = list(zip(numbers.tolist(), units.tolist(), strict=True))
        return sorted(u.text[:7] for u in snapshot.units(level, addresses))  # type: ignore[arg-type]

    assert texts("document") == texts("passage") == ["Nothing", "Ships r"]  # by its title, and by its text
    assert texts("sentence") == ["Ships r"]
    assert set(texts("entity")) == {"Long Ha"}
    point = t.encode("Far Point")
    _, numbers, units = ngrams.units_of("entity", *ngrams.occurrences(point), len(point))
    assert [u.text for u in snapshot.units("entity", [(int(numbers[0]), int(units[0]))])] == ["Far Point"]


def test_four_segments_are_one(tmp_path: Path) -> None:
    documents = [Document(f"d{i}", f"The cat number {i} sat. The dog ran {i % 3} times.") for i in range(40)]
    one = Index.create(tmp_path / "one", encoder="hashing:16")
    one.add(documents)
    four = Index.create(tmp_path / "four", encoder="hashing:16")
    for start in range(0, 40, 10):
        four.add(documents[start : start + 10])
    assert len(four.snapshot.segments) == 4
    a, b = ngrams_of(one.snapshot), ngrams_of(four.snapshot)
    for ngram in Scan(documents, a.tokenizer).ngrams(3)[::5]:
        assert a.count(ngram) == b.count(ngram)
        for mine, theirs in zip(a.next_distribution(ngram), b.next_distribution(ngram), strict=True):
            assert np.array_equal(mine, theirs)


def test_another_tokeniser_gets_a_stream_of_its_own_on_demand(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", encoder="hashing:16")
    documents = [Document("a", "The cat sat on the mat.")]
    index.add(documents)
    other = BOTH["byte-pairs"]()
    identity = index.add_stream(other)
    assert index.add_stream(other) == identity == other.identity  # a second time changes nothing
    index.add([Document("b", "A dog ran on.")])  # both streams follow the index
    live = [*documents, Document("b", "A dog ran on.")]
    _agrees(ngrams_of(index.snapshot, identity), live, other)
    _agrees(ngrams_of(index.snapshot), live, load_tokenizer())
    rebuilt = index.rebuild(encoder="hashing:24")
    assert rebuilt.added == 2
    _agrees(ngrams_of(index.snapshot, identity), live, other)


def test_an_index_without_a_stream_says_how_to_add_one(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", encoder="hashing:16", streams=())
    index.add([Document("a", "The cat sat.")])
    with pytest.raises(UsageError) as error:
        ngrams_of(index.snapshot)
    assert "agentmtl index stream" in error.value.hint
    with pytest.raises(UsageError, match="0123"):
        index.add_stream()
        ngrams_of(index.snapshot, "0123")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("suffix", [".arrays", "tokenizer"])
def test_a_damaged_stream_is_never_served(tmp_path: Path, damage: str, suffix: str) -> None:
    index = Index.create(tmp_path / "index", encoder="hashing:16")
    index.add([Document("a", "The cat sat on the mat.")])
    (path,) = (p for p in (index.folder / "streams").rglob("*") if p.name.endswith(suffix))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.unlink()
    if damage != "remove":
        path.write_bytes(bytes(raw) if damage == "flip" else bytes(raw[:-9]))
    with pytest.raises(IndexDamagedError) as error:
        ngrams_of(Index.open(index.folder).snapshot)
    assert path.name in str(error.value)
    assert any(path.name in line for line in index.verify().damaged)
