"""Operations on a small index, run by `test_store_crash.py` under injected faults."""

from __future__ import annotations

import os
from pathlib import Path

import faiss  # noqa: F401 - imported here, once, and not in every forked case
import numpy as np  # noqa: F401
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from agentmtl.index import merge, transaction
from agentmtl.index.build import rebuild
from agentmtl.index.identifiers import StreamTokenizer
from agentmtl.index.store import Store

from . import toy

# So small that one transaction writes several segments. The server of injected faults, which is told apart
# by its preloaded library, keeps them; in the tests' own process a fixture sets them and takes them back.
SMALL = ((transaction, "FLUSH_UNITS", 20), (transaction, "MAX_SMALL", 3), (merge, "MERGED_UNITS", 80))
if "LD_PRELOAD" in os.environ:
    for module, name, value in SMALL:
        setattr(module, name, value)


def first_build(workdir: Path) -> None:
    toy.build(workdir / "index", toy.several(3), toy.ToyEncoder())


def add(workdir: Path) -> None:
    toy.build(workdir / "index", toy.several(3, start=5), toy.ToyEncoder())


def update(workdir: Path) -> None:
    changed = [toy.document(f"d{i}", [i + 3, i + 1], i, year=2000) for i in (0, 3)]
    toy.build(workdir / "index", changed, toy.ToyEncoder())


def delete(workdir: Path) -> None:
    toy.delete(workdir / "index", ["d1", "d2"])


def compact(workdir: Path) -> None:
    toy.compact(workdir / "index")


def re_encode(workdir: Path) -> None:
    encoder = toy.ToyEncoder("other")
    rebuild(Store(workdir / "index"), toy.settings(encoder), encoder)


def tokenizer() -> StreamTokenizer:
    """Whole words, a handful of them: quick to make in every case."""
    words = ("[UNK]", "ada", "lovelace", "the", "engine", "rivers", "london", "in", "compiler", ".", ",")
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = Lowercase(), Whitespace()
    return StreamTokenizer(made.to_str(), "toy-words")


def add_stream(workdir: Path) -> None:
    with Store(workdir / "index").write() as change:
        change.add_stream(tokenizer())


def add_streamed(workdir: Path) -> None:
    """An index that has a stream grows: the new segment's part of it is written too."""
    add(workdir)


def delete_streamed(workdir: Path) -> None:
    delete(workdir)


def compact_streamed(workdir: Path) -> None:
    compact(workdir)


def prepare_for(operation: str, workdir: Path) -> None:
    prepare(workdir)
    if operation.endswith("_streamed"):
        add_stream(workdir)


def prepare(workdir: Path) -> None:
    """The index every operation but the first build starts from: three generations, some of it deleted."""
    toy.build(workdir / "index", toy.several(3), toy.ToyEncoder())
    toy.build(workdir / "index", toy.several(2, start=3), toy.ToyEncoder())
    toy.delete(workdir / "index", ["d4"])
