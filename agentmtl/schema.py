"""The nouns every part of agentmtl speaks: what is stored, what is found, what is answered.

    Document   a record as read from a source, before it is cut into units
    Unit       anything that can be retrieved: document | passage | sentence | entity | demonstration
    Hit        a unit with its score, each channel's own score and the hop that found it
    Evidence   the hits an expert may use, hop by hop
    Citation   an exact span of a stored document
    Candidate  one answer an expert proposes
    Answer     what the agent returns
    Usage      what was spent, as measured; Budget: what may be
    Turn       a question of a conversation with its answer
    Stage      a step that may be given a model and a number of samples; Allocation: what each was given

Spans are half-open [start, end) offsets in Unicode characters of the *stored* document text.
This module imports nothing of agentmtl.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["document", "passage", "sentence", "entity", "demonstration"]
LEVELS: tuple[Level, ...] = ("document", "passage", "sentence", "entity", "demonstration")

Scalar: TypeAlias = str | int | float | bool | None
MetadataValue: TypeAlias = Scalar | list[Scalar]
Metadata: TypeAlias = Mapping[str, MetadataValue]

DEMONSTRATION_MARK = "_demonstration"  # metadata of a document that is a labelled example

SCHEMA_VERSION = 1  # of every JSON object the command line prints


@dataclass(frozen=True, slots=True)
class Document:
    """A record as read from a source: a whole file, or one row of a .csv, .json or .jsonl file.

    `origin` names it uniquely inside an index (``docs/a.md``, ``corpus.jsonl#2w-00001``); where it is
    empty the `source_id` serves. `file` is the file it came from, relative to the folder the user gave
    (with that folder's name in front), or "" for a record given from Python; `file_sha256` is of its bytes.
    """

    source_id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    origin: str = ""
    file: str = ""
    file_sha256: str = ""

    @property
    def key(self) -> str:
        """The name under which an index holds this record once."""
        return self.origin or self.source_id

    @property
    def is_demonstration(self) -> bool:
        """Whether this is a labelled example: one unit of that level, and no passages."""
        return bool(self.metadata.get(DEMONSTRATION_MARK))


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A labelled example of a task. For multiple choice `choices` are the options and `answer_index` says
    which one `output` is."""

    task: str
    input: str
    output: str
    choices: tuple[str, ...] = ()
    answer_index: int | None = None

    @property
    def source_id(self) -> str:
        """Task and content: the same example has the same id wherever it is read."""
        content = json.dumps([self.input, self.output, self.choices], ensure_ascii=False)
        return f"{self.task}/{hashlib.sha256(content.encode('utf-8', 'replace')).hexdigest()[:16]}"

    def to_document(self) -> Document:
        """The form in which an index holds it: found by its input, with the rest as metadata."""
        metadata: dict[str, MetadataValue] = {
            "task": self.task, "output": self.output, DEMONSTRATION_MARK: True,
        }  # fmt: skip
        if self.choices:
            metadata |= {"choices": list(self.choices), "answer_index": self.answer_index}
        return Document(self.source_id, self.input, metadata=metadata)

    @classmethod
    def from_unit(cls, unit: Unit) -> Demonstration:
        """The example that a unit of level demonstration holds."""
        data = unit.metadata
        choices, answer = data.get("choices"), data.get("answer_index")
        return cls(
            str(data.get("task", "")),
            unit.text,
            str(data.get("output", "")),
            tuple(map(str, choices)) if isinstance(choices, list) else (),
            answer if isinstance(answer, int) else None,
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """A retrievable piece of a document. `text` is the document's text[start:end].

    An entity has no document of its own: its text is the name, `source_id` is that of the first record
    that mentions it, and `mentions` lists the ids of the passages where it occurs.
    """

    id: str
    level: Level
    text: str
    source_id: str
    title: str = ""
    parent: str | None = None
    start: int = 0
    end: int = 0
    metadata: Metadata = field(default_factory=dict)
    file: str = ""
    mentions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MatchedKey:
    """An n-gram that occurs in a unit: its text, its `count` in the whole index, its weight for the query,
    and one place, [start, end) in the stored text or, with `in_title`, in the title."""

    text: str
    count: int
    weight: float
    start: int
    end: int
    in_title: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Hit:
    """A retrieved unit.

    `channels` holds each channel's own score (dense: inner product of unit vectors; lexical: BM25), and
    only those channels that found the unit. `keys` are the words or n-grams that matched; `identifiers`
    the keys of the identifiers channel, with counts and places.
    """

    unit: Unit
    score: float
    channels: Mapping[str, float] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    hop: int = 1
    identifiers: tuple[MatchedKey, ...] = ()

    @property
    def id(self) -> str:
        return self.unit.id

    @property
    def level(self) -> Level:
        return self.unit.level

    @property
    def text(self) -> str:
        return self.unit.text

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl search --json`)."""
        unit = self.unit
        told = {name: value for name, value in unit.metadata.items() if name != DEMONSTRATION_MARK}
        meta = {"title": unit.title, "source": unit.source_id, "file": unit.file, **told}
        span = {"start": unit.start, "end": unit.end, "parent": unit.parent}
        return {
            "id": unit.id,
            "level": unit.level,
            "score": self.score,
            "text": unit.text,
            "meta": meta,
            "channels": dict(self.channels),
            "keys": list(self.keys),
            "hop": self.hop,
            "identifiers": [key.to_json() for key in self.identifiers],
            **span,
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was gathered for a question, best first.

    `sentences` are those of all hops, each by its best score; `first_hop` those that the question alone
    found, in `passages`. `idf` weighs the question's words by how rare they are in the index.
    """

    question: str
    passages: tuple[Hit, ...] = ()
    sentences: tuple[Hit, ...] = ()
    first_hop: tuple[Hit, ...] = ()
    idf: Mapping[str, float] = field(default_factory=dict)
    bridges: tuple[str, ...] = ()  # entity names that led from one hop to the next


@dataclass(frozen=True, slots=True)
class Citation:
    """An exact span: the stored text of `unit_id`'s document reads `text` at [start, end).

    `hop`: the retrieval step that found the unit. `quote`: the stored sentence around the span, where the
    span is no sentence itself.
    """

    marker: int
    unit_id: str
    source: str
    start: int
    end: int
    text: str
    title: str = ""
    file: str = ""
    hop: int = 1
    quote: str = ""

    @property
    def sentence(self) -> str:
        """What the span says in its place: the quote, or the span where there is none."""
        return self.quote or self.text

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl ask --json`)."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One proposed answer. `confidence` is the calibrated probability that the evidence answers."""

    text: str
    citations: tuple[Citation, ...]
    confidence: float
    expert: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent: measured, never estimated. FLOPs and money stay 0 where no model was called."""

    calls: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    money: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, n) + getattr(other, n) for n in self.__slots__))

    def to_json(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on one answer; None: no limit. `tokens` are those of prompts and outputs together,
    `usd` money, `seconds` a deadline for the whole."""

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, float]:
        """The limits that are set."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


SETTING = "setting"  # as an aggregator: the number is a setting of the stage, which runs once


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a pipeline that may be given a model and a number of samples, declared as data.

    `models`: names of experts that can take it; `samples`: numbers that may be drawn. `aggregator`: how
    several become one.
    """

    name: str
    models: tuple[str, ...] = ()
    samples: tuple[int, ...] = (1,)
    aggregator: str = "majority"


@dataclass(frozen=True, slots=True)
class Share:
    """What a stage is given: a model ("": the stage's own), samples of it, and how they become one."""

    model: str = ""
    samples: int = 1
    aggregator: str = "majority"


@dataclass(frozen=True, slots=True)
class Allocation:
    """The share of every stage, by its name; a stage that is not named has the share of one sample."""

    shares: Mapping[str, Share] = field(default_factory=dict)

    def of(self, stage: str) -> Share:
        return self.shares.get(stage, Share())

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {
            stage: {name: getattr(share, name) for name in share.__slots__}
            for stage, share in self.shares.items()
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of a conversation, as it stands alone, with what was answered and by whom."""

    question: str
    answer: str
    expert: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent returns. `abstained` answers carry the best evidence but no claim."""

    question: str
    text: str
    citations: tuple[Citation, ...]
    confidence: float
    abstained: bool
    route: str
    usage: Usage
    trace: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl ask --json`)."""
        return {
            "schema": SCHEMA_VERSION,
            "question": self.question,
            "answer": self.text,
            "abstained": self.abstained,
            "confidence": self.confidence,
            "route": self.route,
            "citations": [c.to_json() for c in self.citations],
            "usage": self.usage.to_json(),
            "trace": [dict(step) for step in self.trace],
        }
