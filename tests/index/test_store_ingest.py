"""What adding, adding again, deleting and compacting cost and leave behind."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from agentmtl.errors import UsageError
from agentmtl.index.build import stored_documents
from agentmtl.index.store import Store
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Document

from . import toy
from .toy import distinct_texts, keys, read, write_lines

# --- adding, again


def test_the_same_documents_again_cost_nothing(folder: Path, encoder: toy.ToyEncoder) -> None:
    documents = toy.several(12)
    toy.build(folder, documents, encoder)
    assert sorted(encoder.texts) == sorted(distinct_texts(documents, encoder)), "equal texts are encoded once"
    before, count = Store(folder).open(), len(encoder.texts)
    report = toy.build(folder, documents, encoder)
    assert (report.unchanged, report.added, report.updated) == (12, 0, 0)
    assert Store(folder).open().sha256 == before.sha256 and len(encoder.texts) == count


def test_a_change_costs_the_changed_texts(folder: Path, encoder: toy.ToyEncoder) -> None:
    documents = [
        Document(f"d{i}", f"Number {i} is here. It stands at place {i}.", f"T{i}") for i in range(100)
    ]
    toy.build(folder, documents, encoder)
    known = distinct_texts(documents, encoder)
    changed = Document("d7", "Number 7 is here. It has moved to place 1007.", "T7")
    encoder.texts.clear()
    report = toy.build(folder, [*documents[:7], changed, *documents[8:]], encoder)
    assert (report.unchanged, report.updated) == (99, 1)
    assert sorted(encoder.texts) == sorted(distinct_texts([changed], encoder) - known)


def test_new_metadata_or_another_file_costs_no_encoding(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, [Document("a", "Text of a.", "A", {"year": 1})], encoder)
    encoder.texts.clear()
    for changed in (
        Document("a", "Text of a.", "A", {"year": 2}),
        Document("a", "Text of a.", "A", {"year": 2}, file="f"),
    ):
        assert toy.build(folder, [changed], encoder).updated == 1
    (stored,) = stored_documents(Store(folder).open())
    assert (stored.metadata, stored.file, encoder.texts) == ({"year": 2}, "f", [])


def test_one_key_twice_in_one_go(folder: Path, encoder: toy.ToyEncoder) -> None:
    first, second = Document("a", "First text."), Document("a", "Second text.")
    report = toy.build(folder, [first, first, second], encoder)
    assert (report.added, report.unchanged, report.updated) == (1, 1, 1)
    assert [d.text for d in stored_documents(Store(folder).open())] == ["Second text."]


# --- files


def test_unchanged_files_are_not_even_read(folder: Path, source: Path, encoder: toy.ToyEncoder) -> None:
    first = read(folder, source, encoder)
    assert (first.files, first.added) == (3, 5)
    before, count = Store(folder).open().sha256, len(encoder.texts)
    again = read(folder, source, encoder)
    assert (again.files, again.unchanged_files, again.unchanged) == (0, 3, 5)
    assert (Store(folder).open().sha256, len(encoder.texts)) == (before, count)


def test_prune_drops_vanished_files_and_records(folder: Path, source: Path, encoder: toy.ToyEncoder) -> None:
    read(folder, source, encoder)
    toy.build(folder, [Document("mine", "Not from a file.")], encoder)
    (source / "a.txt").unlink()
    write_lines(source / "c.jsonl", {"one": "The first record.", "three": "The third."})
    assert read(folder, source, encoder).deleted == 0, "without prune all stays"
    report = read(folder, source, encoder, prune=True)
    assert report.deleted == 2
    assert keys(folder) == {"source/b.txt", "source/c.jsonl#one", "source/c.jsonl#three", "mine"}
    before = Store(folder).open().sha256
    assert read(folder, source, encoder, prune=True).unchanged_files == 2
    assert Store(folder).open().sha256 == before
    assert (
        Retriever(Store(folder).open(), encoder)
        .retrieve("Ada Lovelace", level="entity", channel="lexical")
        .ids
        == []
    )


def test_prune_keeps_what_could_not_be_read(folder: Path, source: Path, encoder: toy.ToyEncoder) -> None:
    read(folder, source, encoder)
    (source / "b.txt").unlink()
    (source / "b.txt").symlink_to(source / "a.txt")
    report = read(folder, source, encoder, prune=True)
    assert report.deleted == 0 and [s.file for s in report.skipped] == ["source/b.txt"]


@pytest.mark.parametrize("how", ["delete", "replace", "merge"])
def test_a_file_is_unchanged_only_if_the_index_holds_what_it_gives(
    folder: Path, source: Path, encoder: toy.ToyEncoder, how: str
) -> None:
    """Its note names the documents it gave: no other history makes a file count as done."""
    read(folder, source, encoder)
    old = (source / "c.jsonl").read_text()
    wanted = toy.content(Store(folder).open())
    if how == "delete":
        toy.delete(folder, ["source/c.jsonl#two"])
    elif how == "replace":
        toy.build(
            folder,
            [Document("two", "Other text.", origin="source/c.jsonl#two", file="source/c.jsonl")],
            encoder,
        )
    else:
        write_lines(
            source / "c.jsonl", {"one": "Changed.", "two": "The second record.", "three": "The third."}
        )
        read(folder, source, encoder)
        toy.compact(folder)
        (source / "c.jsonl").write_text(old)
    assert toy.content(Store(folder).open()) != wanted
    assert read(folder, source, encoder).files == 1
    assert toy.content(Store(folder).open()) == wanted


# --- ids, entities, erasure


def test_ids_are_stable_across_folders_and_compaction(
    folder: Path, tmp_path: Path, encoder: toy.ToyEncoder
) -> None:
    toy.build(folder, toy.several(6), encoder)
    ids = set(toy.content(Store(folder).open())["units"])
    toy.build(tmp_path / "other", reversed(toy.several(6)), encoder)
    assert set(toy.content(Store(tmp_path / "other").open())["units"]) == ids
    toy.build(folder, toy.several(3, start=6), encoder)
    toy.delete(folder, ["d6", "d7", "d8"])
    toy.compact(folder)
    assert set(toy.content(Store(folder).open())["units"]) == ids


def test_entities_go_with_their_last_mention(folder: Path, encoder: toy.ToyEncoder) -> None:
    texts = {
        "a": "We saw Ada Lovelace here.",
        "b": "We met Ada Lovelace and Grace Hopper there.",
        "c": "Nobody came.",
    }

    def names() -> dict[str, int]:
        units = toy.content(Store(folder).open())["units"].values()
        return {u.text: len(u.mentions) for u in units if u.level == "entity"}

    for key in texts:
        toy.build(folder, [Document(key, texts[key])], encoder)
    assert names() == {"Ada Lovelace": 2, "Grace Hopper": 1}
    toy.delete(folder, ["a"])  # its segment holds the entity's unit, and only that from now on
    assert names() == {"Ada Lovelace": 1, "Grace Hopper": 1}
    toy.compact(folder)
    assert names() == {"Ada Lovelace": 1, "Grace Hopper": 1}
    toy.build(folder, [Document("b", "We met Grace Hopper there.")], encoder)
    assert names() == {"Grace Hopper": 1}
    toy.build(folder, [Document("a", texts["a"])], encoder)
    toy.delete(folder, ["b"])
    assert names() == {"Ada Lovelace": 1}


def test_an_entity_outlives_the_segment_it_came_with(
    folder: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentmtl.index import merge

    monkeypatch.setattr(merge, "MERGED_UNITS", 4)
    toy.build(folder, [Document("a", "We saw Ada Lovelace here.")], encoder)
    toy.build(folder, [Document("b", "We met Ada Lovelace there. It was cold.")], encoder)
    toy.delete(folder, ["a"])
    toy.compact(folder)
    found = Retriever(Store(folder).open(), encoder).retrieve(
        "Ada Lovelace", level="entity", channel="lexical"
    )
    assert [h.text for h in found] == ["Ada Lovelace"]


def test_compact_erases_the_bytes(folder: Path, tmp_path: Path, encoder: toy.ToyEncoder) -> None:
    source = tmp_path / "papers"
    source.mkdir()
    (source / "kept.txt").write_text("An ordinary text stays.")
    (source / "Zanzibarfile.txt").write_text("Qwertzuiop Sentence about Xylophonia Place.")
    read(folder, source, encoder)
    secret = Document(
        "vanishing-key",
        "Uncommonword was written by Erasable Person.",
        "Titleofsecret",
        {"note": "Metavalue"},
    )
    toy.build(folder, [secret, *toy.several(3)], encoder)
    toy.delete(folder, ["vanishing-key", "source/none", "papers/Zanzibarfile.txt"])
    needles = [
        b"Uncommonword",
        b"uncommonword",
        b"Erasable",
        b"erasable",
        b"Titleofsecret",
        b"titleofsecret",
        b"Metavalue",
        b"vanishing-key",
        b"Qwertzuiop",
        b"qwertzuiop",
        b"Xylophonia",
        b"Zanzibarfile",
    ]
    gone = distinct_texts([secret], encoder) - distinct_texts(toy.several(3), encoder)
    needles += [encoder.vector(text).tobytes() for text in gone]

    def held() -> list[bytes]:
        data = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
        return [needle for needle in needles if needle in data]

    assert len(held()) > len(needles) - 4, "the search finds what is there"
    toy.compact(folder)
    assert held() == []
    before = Store(folder).open().sha256
    toy.compact(folder)
    assert Store(folder).open().sha256 == before, "nothing is left to do"


def test_open_files_are_closed_with_the_last_reference(folder: Path, encoder: toy.ToyEncoder) -> None:
    toy.build(folder, toy.several(4), encoder)
    gc.collect()  # what earlier tests left open is not counted
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = [Store(folder).open() for _ in range(5)]
    assert len(list(Path("/proc/self/fd").iterdir())) > before
    del held
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- the public face


def test_index_deletes_by_source_id_key_file_and_document_unit(folder: Path, encoder: toy.ToyEncoder) -> None:
    index = Index.create(folder, encoder=encoder, chunking=toy.CHUNKING)
    index.add(
        [
            Document("s1", "One text.", origin="f#s1", file="f"),
            Document("s2", "Two text.", origin="f#s2", file="f"),
            Document("s3", "Three text.", origin="g#s3", file="g"),
            Document("s4", "Four text."),
            Document("s5", "Five text."),
        ]
    )
    unit = index.retrieve("Four", level="document", channel="lexical", k=1).ids[0]
    assert index.delete(["s1"]) == 1 and index.delete(["f#s2"]) == 1 and index.delete(["g"]) == 1
    for wrong in ("nothing", "s1", "\ud800", index.retrieve("Four", channel="lexical", k=1).ids[0]):
        with pytest.raises(UsageError):
            index.delete([wrong])
    assert index.delete([unit]) == 1
    assert [d.key for d in stored_documents(index.snapshot)] == ["s5"]
    with pytest.raises(UsageError):
        index.update([Document("s5", "New."), Document("s6", "New.")])
    assert [d.text for d in stored_documents(index.snapshot)] == ["Five text."]
