"""Interrupted builds go on where they stopped; a rebuild needs no source files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentmtl.errors import EncoderMismatchError, IndexMissingError
from agentmtl.index import transaction
from agentmtl.index.build import add_paths, rebuild, stored_documents
from agentmtl.index.rows import content_hash
from agentmtl.index.store import Store
from agentmtl.index.verify import verify
from agentmtl.ingest import Chunking
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Document
from agentmtl.trunk.encoder import Side, Vectors

from . import toy
from .toy import distinct_texts, keys, read, write_lines

# --- killed and resumed

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.index import toy
from agentmtl.index import transaction
from agentmtl.index.build import add_paths
from agentmtl.index.store import Store
transaction.FLUSH_UNITS = 40
encoder = toy.ToyEncoder()
plain = encoder.encode
def encode(texts, side="document"):
    if len(encoder.texts) > 150:
        print(len(encoder.texts), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(texts, side)
encoder.encode = encode
with Store(Path(sys.argv[1])).write(toy.settings(encoder), encoder) as changing:
    add_paths(changing, [sys.argv[2]])
"""


@pytest.mark.parametrize("kind", ["records", "files"])
def test_a_killed_build_resumes(
    folder: Path, tmp_path: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = tmp_path / "many"
    source.mkdir()
    texts = {
        f"r{i}": f"Record {i} tells of Place {i}. It has {i * 3} lines. Nobody counts them, {i} or not."
        for i in range(80)
    }
    if kind == "records":
        write_lines(source / "all.jsonl", texts)
    else:
        for name, text in texts.items():
            (source / f"{name}.txt").write_text(text)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(source)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": toy.python_path()},
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    killed = int(process.stdout)
    with pytest.raises(IndexMissingError, match="again"):
        Store(folder).open()
    monkeypatch.setattr(transaction, "FLUSH_UNITS", 40)
    read(folder, source, encoder)
    fresh = toy.ToyEncoder()
    read(tmp_path / "fresh", source, fresh)
    assert killed + len(encoder.texts) <= len(fresh.texts) + 50, (
        killed,
        len(encoder.texts),
        len(fresh.texts),
    )
    assert toy.content(Store(folder).open()) == toy.content(Store(tmp_path / "fresh").open())
    assert verify(folder).unknown == ()
    count = len(encoder.texts)
    assert read(folder, source, encoder).files == 0 and len(encoder.texts) == count


def test_an_interrupted_build_resumed_with_less_keeps_the_entities(
    folder: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the crash left holds the entity's unit; the document that first named it is not wanted now."""
    monkeypatch.setattr(transaction, "FLUSH_UNITS", 3)
    first, second = Document("a", "We saw Ada Lovelace here."), Document("b", "We met Ada Lovelace there.")

    class StopError(Exception):
        pass

    with pytest.raises(StopError), Store(folder).write(toy.settings(encoder), encoder) as changing:
        changing.put(first)
        changing.put(second)
        raise StopError
    toy.build(folder, [second], encoder)
    found = Retriever(Store(folder).open(), encoder).retrieve(
        "Ada Lovelace", level="entity", channel="lexical"
    )
    assert [hit.text for hit in found] == ["Ada Lovelace"] and len(found[0].unit.mentions) == 1


def test_an_interrupted_update_resumed_replaces_the_old(
    folder: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "FLUSH_UNITS", 1)
    toy.build(folder, [Document("a", "Old text."), Document("b", "Old b.")], encoder)
    for then in ("same", "back", "delete"):
        with (
            pytest.raises(ZeroDivisionError),
            Store(folder).write(toy.settings(encoder), encoder) as changing,
        ):
            changing.put(Document("a", f"New text, then {then}."))
            raise ZeroDivisionError
        if then == "same":
            assert toy.build(folder, [Document("a", f"New text, then {then}.")], encoder).updated == 1
        elif then == "back":
            assert toy.build(folder, [Document("a", "Old text.")], encoder).updated == 1
        else:
            assert toy.delete(folder, ["a"]) == 1
        texts = {d.key: d.text for d in stored_documents(Store(folder).open())}
        assert (
            texts
            == {
                "same": {"a": "New text, then same.", "b": "Old b."},
                "back": {"a": "Old text.", "b": "Old b."},
                "delete": {"b": "Old b."},
            }[then]
        )


# --- rebuilding from stored text


def test_rebuild_equals_a_fresh_build_with_that_encoder(
    folder: Path, tmp_path: Path, source: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "FLUSH_UNITS", 15)
    read(folder, source, encoder)
    toy.build(folder, toy.several(6), encoder)
    toy.delete(folder, ["d2"])
    held = list(stored_documents(Store(folder).open()))
    other = toy.ToyEncoder("other")
    config = toy.settings(other)
    report = rebuild(Store(folder), config, other)
    assert report.added == len(held) == 10
    toy.build(tmp_path / "fresh", held, other)
    found, wanted = Store(folder).open(), Store(tmp_path / "fresh").open()
    assert toy.content(found) == toy.content(wanted) and found.settings == wanted.settings
    toy.assert_same_answers(toy.answers(found, other), toy.answers(wanted, other))
    assert verify(folder).unknown == () and found.generation == 4
    count = len(other.texts)
    with Store(folder).write(config, other) as changing:
        assert add_paths(changing, [source]).unchanged_files == 3
    assert len(other.texts) == count and Store(folder).open().sha256 == found.sha256


def test_stored_documents_are_the_documents_that_were_put(folder: Path, encoder: toy.ToyEncoder) -> None:
    documents = [
        *toy.several(150),
        Document(
            "id", "Text.", "Title", {"a": [1, None, "x"], "b": True}, origin="f.jsonl#id", file="f.jsonl"
        ),
    ]
    toy.build(folder, documents, encoder)
    stored = list(stored_documents(Store(folder).open()))
    assert stored == documents
    assert [content_hash(d) for d in stored] == [content_hash(d) for d in documents]


def test_a_rebuild_that_fails_leaves_the_old_and_resumes(
    folder: Path, encoder: toy.ToyEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "FLUSH_UNITS", 30)
    documents = toy.several(20)
    toy.build(folder, documents, encoder)
    toy.delete(folder, ["d3"])
    before = toy.answers(Store(folder).open(), encoder)

    class Tired(toy.ToyEncoder):
        def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
            if len(self.texts) > 30:
                raise MemoryError
            return super().encode(texts, side)

    tired, fit = Tired("other"), toy.ToyEncoder("other")
    with pytest.raises(MemoryError):
        rebuild(Store(folder), toy.settings(tired), tired)
    toy.assert_same_answers(toy.answers(Store(folder).open(), encoder), before)
    assert verify(folder).ok and verify(folder).unknown
    rebuild(Store(folder), toy.settings(fit), fit)
    live = [d for d in documents if d.key != "d3"]
    assert len(tired.texts) + len(fit.texts) <= len(distinct_texts(live, fit)) + 40
    assert len(fit.texts) < len(distinct_texts(live, fit)), "finished segments are used again"
    assert keys(folder) == {d.key for d in live} and verify(folder).unknown == ()


def test_rebuild_can_change_the_chunking_and_checks_its_encoder(
    folder: Path, encoder: toy.ToyEncoder
) -> None:
    with pytest.raises(IndexMissingError):
        rebuild(Store(folder), toy.settings(encoder), encoder)
    assert not folder.exists()
    toy.build(folder, toy.several(3), encoder)
    passages = Store(folder).open().count("passage")
    rebuild(Store(folder), toy.settings(encoder, chunking=Chunking(6, 0)), encoder)
    assert Store(folder).open().count("passage") > passages
    with pytest.raises(EncoderMismatchError):
        rebuild(Store(folder), toy.settings(encoder), toy.ToyEncoder("other"))
