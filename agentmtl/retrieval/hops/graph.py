"""The entity–sentence–passage graph that ingest builds, as arrays over one snapshot.

Passages of all segments get one running number, and so do sentences; a name is one node however many
segments mention it, and spelling counts only as the index spells words (`tokens.words`). Three relations:

    mention   name → passage, with the span of its first occurrence there
    title     name → passages of the documents that it is the title of
    within    sentence → passage, by character spans

The part of a segment never changes and is kept while the segment is open; joining the parts of a snapshot
and leaving out what is deleted takes milliseconds for thousands of passages, seconds for millions.
The layout is LinearRAG's (arXiv 2510.10114, section 3.1): names and passages, no relation extraction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from agentmtl.index.rows import LEVEL_NUMBER, Rows
from agentmtl.index.segment import Segment
from agentmtl.index.snapshot import Address, Snapshot
from agentmtl.index.tokens import words
from agentmtl.index.vectors import vectors_of
from agentmtl.ingest.entities import title_names
from agentmtl.retrieval import lexical
from agentmtl.schema import Level
from agentmtl.trunk.encoder import Vectors

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Name = tuple[str, ...]  # the words of a name
LEAD_CHARACTERS = 12  # a name that begins so early in a document is most likely what it is about

_EMPTY = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of numbers in one array: list i is `values[starts[i]:starts[i + 1]]`."""

    starts: Numbers
    values: Numbers

    def at(self, i: int) -> Numbers:
        return self.values[self.starts[i] : self.starts[i + 1]]

    def sizes(self, rows: Numbers) -> Numbers:
        """How long each of these lists is."""
        sizes: Numbers = self.starts[rows + 1] - self.starts[rows]
        return sizes

    def places(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """For all members of these lists: (index into `rows`, index into `values`)."""
        sizes = self.sizes(rows)
        owner = np.repeat(np.arange(len(rows)), sizes)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return owner, self.starts[rows][owner] + offset


def lists_of(owners: Numbers, values: Numbers, count: int) -> Lists:
    """`values` grouped by `owners` (0 … count − 1), in the order they come."""
    order = np.argsort(owners, kind="stable")
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=count), out=starts[1:])
    return Lists(starts, values[order])


@dataclass(frozen=True)
class _Part:
    """A segment's share, deleted units included. Mentions are ordered by passage."""

    names: list[Name]
    mention_names: Numbers
    mention_passages: Numbers
    mention_spans: NDArray[np.int32]  # (m, 2)
    title_names: Numbers
    title_rows: Numbers  # document rows
    passage_spans: NDArray[np.int32]  # (passages, 2)
    sentence_spans: NDArray[np.int32]


_parts: WeakKeyDictionary[Rows, _Part] = WeakKeyDictionary()


def _part_of(segment: Segment, names: Mapping[bytes, str]) -> _Part:
    part = _parts.get(segment.rows)
    if part is None:
        part = _parts[segment.rows] = _read_part(segment, names)
    return part


def _read_part(segment: Segment, spelt: Mapping[bytes, str]) -> _Part:
    mentions = segment.rows.query("SELECT entity, passage, start, end FROM mentions ORDER BY passage, start")
    numbers: dict[Name, int] = {}
    of_entity: dict[bytes, int] = {}
    for entity in {row[0] for row in mentions}:
        name = tuple(words(spelt.get(entity, "")))
        of_entity[entity] = numbers.setdefault(name, len(numbers)) if name else -1
    owners = np.array([of_entity[row[0]] for row in mentions], np.int64)
    rest = np.array([row[1:] for row in mentions], np.int64).reshape(len(mentions), 3)
    named, rest = owners[owners >= 0], rest[owners >= 0]
    titles, rows = _titles(segment, numbers)
    return _Part(
        list(numbers), named, rest[:, 0], rest[:, 1:].astype(np.int32), titles, rows,
        _spans(segment, "passage"), _spans(segment, "sentence"),
    )  # fmt: skip


def _titles(segment: Segment, numbers: dict[Name, int]) -> tuple[Numbers, Numbers]:
    found = [
        (numbers.setdefault(name, len(numbers)), row)
        for row, title in segment.rows.query("SELECT row, title FROM documents WHERE title != ''")
        for name in {tuple(words(spelling)) for spelling in title_names(title)}
        if name
    ]
    pairs = np.array(found, np.int64).reshape(len(found), 2)
    return pairs[:, 0], pairs[:, 1]


def _spans(segment: Segment, level: Level) -> NDArray[np.int32]:
    rows = segment.rows.query(
        "SELECT start, end FROM units WHERE level = ? ORDER BY pos", [LEVEL_NUMBER[level]]
    )
    return np.array(rows, np.int32).reshape(len(rows), 2)


@dataclass(frozen=True)
class PassageGraph:
    """The graph of one snapshot. `bases[s]` is the first passage number of segment s."""

    snapshot: Snapshot
    bases: Numbers
    sentence_bases: Numbers
    alive: Flags  # (passages,)
    documents: Numbers  # (passages,) running number of the document
    spans: NDArray[np.int32]  # (passages, 2) characters of the document
    sentence_documents: Numbers
    sentence_spans: NDArray[np.int32]
    names: Mapping[Name, int]
    mentions: Lists  # passage → rows of `mention_names` and `mention_spans`
    mention_names: Numbers
    mention_passages: Numbers
    mention_spans: NDArray[np.int32]
    mentioned_in: Lists  # name → rows of the mentions, live passages only
    titled: Lists  # name → live passages of the documents with that title
    titles: Lists  # passage → names that are its document's title

    @property
    def passages(self) -> int:
        """Passages, deleted ones included."""
        return len(self.alive)

    @cached_property
    def longest_name(self) -> int:
        """In words."""
        return max(map(len, self.names), default=0)

    @cached_property
    def spellings(self) -> list[Name]:
        """The words of each name, by its number."""
        return list(self.names)

    @cached_property
    def _passage_words(self) -> dict[int, Numbers]:
        return {}

    @cached_property
    def _word_numbers(self) -> dict[str, int]:
        return {}

    def number(self, address: Address) -> int:
        return int(self.bases[address[0]]) + address[1]

    def addresses(self, passages: Numbers) -> list[Address]:
        """(segment number, position) of these passages."""
        segments = np.searchsorted(self.bases, passages, side="right") - 1
        return list(zip(segments.tolist(), (passages - self.bases[segments]).tolist(), strict=True))

    def leads(self, mentions: Numbers) -> Flags:
        """Whether a mention opens its document, as the name of what the document is about does."""
        spans = self.mention_spans[mentions]
        return (spans[:, 1] > spans[:, 0]) & (spans[:, 0] <= LEAD_CHARACTERS)

    def vectors(self, passages: Numbers) -> Vectors:
        """(n, d)"""
        return self._gather("passage", self.bases, passages)

    def sentence_vectors(self, sentences: Numbers) -> Vectors:
        """(n, d)"""
        return self._gather("sentence", self.sentence_bases, sentences)

    def _gather(self, level: Level, bases: Numbers, numbers: Numbers) -> Vectors:
        found = np.empty((len(numbers), self.snapshot.settings.encoder.dimension), np.float32)
        owner = np.searchsorted(bases, numbers, side="right") - 1
        for segment in np.unique(owner).tolist():
            mine = owner == segment
            files = self.snapshot.segments[segment].levels[level]
            found[mine] = vectors_of(files.flat)[numbers[mine] - bases[segment]]
        return found

    def sentence_of(self, mentions: Numbers) -> Numbers:
        """(n,): the sentence each mention begins in; the passage's first for a name that only the title has;
        −1 where there is none."""
        passages = self.mention_passages[mentions]
        spans = self.mention_spans[mentions]
        starts = np.where(spans[:, 1] > spans[:, 0], spans[:, 0], self.spans[passages, 0])
        found = (
            np.searchsorted(self._sentence_keys, self._keys(self.documents[passages], starts), "right") - 1
        )
        found = np.maximum(found, 0)
        if not len(self.sentence_documents):
            return np.full(len(mentions), -1, np.int64)
        return np.where(self.sentence_documents[found] == self.documents[passages], found, -1)

    @cached_property
    def _sentence_keys(self) -> Numbers:
        return self._keys(self.sentence_documents, self.sentence_spans[:, 0])

    @staticmethod
    def _keys(documents: Numbers, starts: NDArray[np.integer]) -> Numbers:
        return (documents << 32) + starts

    def words_of(self, passage: int) -> Numbers:
        """The distinct words of a passage with its title, as numbers; remembered."""
        known = self._passage_words.get(passage)
        if known is None:
            (unit,) = self.snapshot.units("passage", self.addresses(np.array([passage])))
            numbers = self._word_numbers
            found = {numbers.setdefault(w, len(numbers)) for w in words(f"{unit.title}\n{unit.text}")}
            known = self._passage_words[passage] = np.fromiter(sorted(found), np.int64, len(found))
        return known

    def word_counts(self, passages: Numbers) -> Numbers:
        """(n,): how many distinct words these passages have."""
        return np.array([len(self.words_of(p)) for p in passages.tolist()], np.int64)

    def word(self, word: str) -> int:
        """The number of a word, as `words_of` uses it."""
        return self._word_numbers.setdefault(word, len(self._word_numbers))

    def idf(self, numbers: Numbers) -> NDArray[np.float64]:
        """(n,): how rare the words with these numbers are among the live passages; remembered."""
        known = self._idf
        spelt = self._word_list
        if len(spelt) < len(self._word_numbers):
            spelt.extend(list(self._word_numbers)[len(spelt) :])
        units = max(self.snapshot.count("passage"), 1)
        for number in numbers.tolist():
            if number not in known:
                count = lexical.document_frequency(self.snapshot, "passage", spelt[number])
                known[number] = lexical.idf(units, count)
        return np.array([known[n] for n in numbers.tolist()])

    @cached_property
    def _idf(self) -> dict[int, float]:
        return {}

    @cached_property
    def _word_list(self) -> list[str]:
        return []


def build_graph(snapshot: Snapshot) -> PassageGraph:
    """Join the parts of a snapshot's segments."""
    spelt = _entity_names(snapshot)
    parts = [_part_of(segment, spelt) for segment in snapshot.segments]
    bases = _bases([len(p.passage_spans) for p in parts])
    sentence_bases = _bases([len(p.sentence_spans) for p in parts])
    rows = _bases([s.manifest.documents for s in snapshot.segments])
    documents = _documents(snapshot, "passage", rows)
    alive = _alive(snapshot, bases)
    names: dict[Name, int] = {}
    renumbered = [np.fromiter((names.setdefault(n, len(names)) for n in p.names), np.int64) for p in parts]
    joined = list(zip(parts, renumbered, bases.tolist(), strict=False))
    mention_names = _joined([new[p.mention_names] for p, new, _ in joined])
    mention_passages = _joined([p.mention_passages + base for p, _, base in joined])
    live = np.flatnonzero(alive[mention_passages]) if len(mention_passages) else _EMPTY
    titled_names = _joined([new[p.title_names] for p, new, _ in joined])
    titled_rows = _joined([p.title_rows + r for p, r in zip(parts, rows.tolist(), strict=False)])
    titles, titled = _title_lists(titled_names, titled_rows, documents, alive, len(names), int(rows[-1]))
    every = np.arange(len(mention_names))
    return PassageGraph(
        snapshot=snapshot,
        bases=bases,
        sentence_bases=sentence_bases,
        alive=alive,
        documents=documents,
        spans=_stacked([p.passage_spans for p in parts]),
        sentence_documents=_documents(snapshot, "sentence", rows),
        sentence_spans=_stacked([p.sentence_spans for p in parts]),
        names=names,
        mentions=lists_of(mention_passages, every, len(alive)),
        mention_names=mention_names,
        mention_passages=mention_passages,
        mention_spans=_stacked([p.mention_spans for p in parts]),
        mentioned_in=lists_of(mention_names[live], live, len(names)),
        titled=titled,
        titles=titles,
    )


def _entity_names(snapshot: Snapshot) -> dict[bytes, str]:
    """The spelling of every entity; its unit may be in another segment than its mentions."""
    sql = "SELECT id, name FROM units WHERE level = ?"
    found: dict[bytes, str] = {}
    for segment in snapshot.segments:
        found.update(segment.rows.query(sql, [LEVEL_NUMBER["entity"]]))
    return found


def _title_lists(
    names: Numbers, rows: Numbers, documents: Numbers, alive: Flags, name_count: int, row_count: int
) -> tuple[Lists, Lists]:
    """(passage → title names, title name → live passages)."""
    passages_of = lists_of(documents, np.arange(len(documents)), row_count)
    owner, place = passages_of.places(rows)
    passages, names = passages_of.values[place], names[owner]
    live = alive[passages]
    return lists_of(passages, names, len(alive)), lists_of(names[live], passages[live], name_count)


def _bases(sizes: Sequence[int]) -> Numbers:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _joined(arrays: Sequence[Numbers]) -> Numbers:
    return np.concatenate(arrays) if arrays else _EMPTY


def _stacked(arrays: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate(arrays) if arrays else np.empty((0, 2), np.int32)


def _documents(snapshot: Snapshot, level: Level, rows: Numbers) -> Numbers:
    """The running document number of every unit of a level, segment after segment."""
    found: defaultdict[int, Numbers] = defaultdict(lambda: _EMPTY)
    for view in snapshot.views(level):
        found[view.number] = view.files.docs.astype(np.int64) + rows[view.number]
    return _joined([found[n] for n in range(len(snapshot.segments))])


def _alive(snapshot: Snapshot, bases: Numbers) -> Flags:
    alive = np.ones(int(bases[-1]), np.bool_)
    for view in snapshot.views("passage"):
        alive[view.dead + bases[view.number]] = False
    return alive
