"""A document cut into units: document → passages → sentences, and the names mentioned in each passage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.ingest.entities import proper_names, title_names
from agentmtl.ingest.segmenter import best_cuts
from agentmtl.ingest.sentences import MAX_SENTENCE_WORDS, Span, split_sentences, word_count
from agentmtl.ingest.topics import LIKENESS, segmenter_for
from agentmtl.schema import Document, Level, Unit

_ID_BYTES = 12


CHUNKERS = ("sentences", "topics")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How passages are made: runs of whole sentences.

    `chunker` "sentences" fills windows; "topics" cuts where the topic changes, into passages of `min_words`
    to `max_words` without overlap, each cut costing `penalty` in log-odds; `segmenter` is the folder of one
    that was trained, "" for the one that comes with the package.

    `max_words` bounds a passage, counted as `sentences.word_count` does (about 1.35 word pieces a word, so
    the default stays well under an encoder's limit of 256). A sentence longer than that is cut. Neighbours
    share `overlap_sentences` sentences, or as many of them as leave room for one that is new.
    """

    max_words: int = 120
    overlap_sentences: int = 1
    chunker: str = "sentences"
    min_words: int = 40
    penalty: float = 0.0
    segmenter: str = ""

    def __post_init__(self) -> None:
        if self.chunker not in CHUNKERS:
            raise UsageError(f"{self.chunker!r} is not a chunker.", f"Choose one of {', '.join(CHUNKERS)}.")
        if self.max_words < 1 or self.overlap_sentences < 0:
            raise UsageError(
                f"{self.max_words} words with {self.overlap_sentences} shared sentences make no passages.",
                "max_words is at least 1 and overlap_sentences at least 0.",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON. What only topics use is left out for windows, as before there were topics."""
        data = asdict(self)
        return data if self.chunker == "topics" else {n: data[n] for n in ("max_words", "overlap_sentences")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Chunking:
        """The same from JSON. Topics that name no segmenter were cut by likeness, before one was learned, and
        go on to be."""
        return cls(**{"segmenter": LIKENESS if data.get("chunker") == "topics" else "", **data})


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in a passage: `passage` indexes `Cut.passages`; [start, end) is in the document's text.

    The first occurrence in that passage only. An empty span at 0 says that the name is the document's
    title and that the text never has it.
    """

    name: str
    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A document's units. A text of white space alone has a document unit and no others."""

    document: Unit
    passages: tuple[Unit, ...]
    sentences: tuple[Unit, ...]
    mentions: tuple[Mention, ...]
    demonstrations: tuple[Unit, ...] = ()


def unit_id(level: Level, key: str, start: int, end: int, text: str) -> str:
    """24 hexadecimal digits that depend on every argument: BLAKE2b of their length-prefixed encoding.

    `key` is the document's (see `Document.key`), so an id is stable across rebuilds and machines. For an
    entity: unit_id("entity", "", 0, 0, name).
    """
    parts = [part.encode("utf-8", "surrogatepass") for part in (level, key, str(start), str(end), text)]
    encoded = b"".join([len(part).to_bytes(8, "big") + part for part in parts])
    return hashlib.blake2b(encoded, digest_size=_ID_BYTES).hexdigest()


Encode = Callable[[Sequence[str]], NDArray[Any]]  # texts → vectors (n, d)


def cut(
    document: Document, chunking: Chunking | None = None, encode: Encode | None = None, trunk: str = ""
) -> Cut:
    """The units of `document`: every unit's text is document.text[start:end].

    A passage's parent is the document; a sentence's parent is the first passage that holds it. `encode`
    gives sentences their vectors, for topics, and `trunk` names its weights. Raises UsageError where topics
    lack it, or their segmenter is for another.
    """
    if document.is_demonstration:
        span = (0, len(document.text))
        whole = _unit(document, "document", span, None)
        return Cut(whole, (), (), (), (_unit(document, "demonstration", span, None),))
    chunking = chunking or Chunking()
    spans = split_sentences(document.text, min(MAX_SENTENCE_WORDS, chunking.max_words))
    whole = _unit(document, "document", (0, len(document.text)), None)
    sizes = [word_count(document.text[a:b]) for a, b in spans]
    if chunking.chunker == "topics":
        runs = _topics(document.text, spans, sizes, chunking, encode, trunk)
    else:
        runs = list(_runs(sizes, chunking))
    passages = tuple(_unit(document, "passage", (spans[i][0], spans[j - 1][1]), whole.id) for i, j in runs)
    sentences = tuple(
        _unit(document, "sentence", spans[index], parent.id) for index, parent in _firsts(runs, passages)
    )
    return Cut(whole, passages, sentences, tuple(_mentions(document, spans, passages)))


def _unit(document: Document, level: Level, span: Span, parent: str | None) -> Unit:
    start, end = span
    text = document.text[start:end]
    return Unit(
        id=unit_id(level, document.key, start, end, text),
        level=level,
        text=text,
        source_id=document.source_id,
        title=document.title,
        parent=parent,
        start=start,
        end=end,
        metadata=document.metadata,
        file=document.file,
    )


def _runs(sizes: Sequence[int], chunking: Chunking) -> Iterator[tuple[int, int]]:
    """Runs [i, j) of sentences, greedily as long as `max_words` allows, each with something new."""
    start = end = 0
    while end < len(sizes):
        total = sum(sizes[start:end])
        while start < end and total + sizes[end] > chunking.max_words:  # less overlap rather than too long
            total -= sizes[start]
            start += 1
        while end < len(sizes) and (start == end or total + sizes[end] <= chunking.max_words):
            total += sizes[end]
            end += 1
        yield start, end
        start = max(start + 1, end - chunking.overlap_sentences)


def _topics(
    text: str,
    spans: Sequence[Span],
    sizes: Sequence[int],
    chunking: Chunking,
    encode: Encode | None,
    trunk: str,
) -> list[tuple[int, int]]:
    """Runs [i, j) of sentences between the best places to cut; no overlap."""
    if encode is None:
        raise UsageError("Topics are cut by sentence vectors.", "Give an encoder, or chunker sentences.")
    if len(spans) < 2:
        return [(0, len(spans))] if spans else []
    sentences = [text[a:b] for a, b in spans]
    paragraphs = ["\n\n" in text[b:c] for (_, b), (c, _) in zip(spans, spans[1:], strict=False)]
    segmenter = segmenter_for(trunk, chunking.segmenter)
    logits = segmenter.logits(sentences, encode(sentences), paragraphs)
    cuts = best_cuts(logits, sizes, chunking.min_words, chunking.max_words, chunking.penalty)
    return list(zip([0, *cuts], [*cuts, len(spans)], strict=True))


def _firsts(runs: Sequence[tuple[int, int]], passages: Sequence[Unit]) -> Iterator[tuple[int, Unit]]:
    """Each sentence's index once, with the first passage that holds it."""
    done = 0
    for (_, end), passage in zip(runs, passages, strict=True):
        for index in range(done, end):
            yield index, passage
        done = end


def _mentions(document: Document, spans: Sequence[Span], passages: Sequence[Unit]) -> Iterator[Mention]:
    if not passages:
        return
    names = [*_title_mentions(document, passages), *_placed(document, spans, passages)]
    first: dict[tuple[str, int], Mention] = {}
    for mention in names:
        first.setdefault((mention.name, mention.passage), mention)
    yield from sorted(first.values(), key=lambda m: (m.passage, m.start, m.end, m.name))


def _title_mentions(document: Document, passages: Sequence[Unit]) -> Iterator[Mention]:
    for name in title_names(document.title):
        found = False
        for index, passage in enumerate(passages):
            if (at := document.text.find(name, passage.start, passage.end)) >= 0:
                found = True
                yield Mention(name, index, at, at + len(name))
        if not found:
            yield Mention(name, 0, 0, 0)


def _placed(document: Document, spans: Sequence[Span], passages: Sequence[Unit]) -> Iterable[Mention]:
    """Each mention once for every passage that holds it (two, inside an overlap)."""
    lowest = 0
    for name, start, end in proper_names(document.text, spans, document.title):
        while passages[lowest].end < end:
            lowest += 1
        for index in range(lowest, len(passages)):
            if passages[index].start > start:
                break
            yield Mention(name, index, start, end)
