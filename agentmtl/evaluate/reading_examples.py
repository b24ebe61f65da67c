"""Questions over a context, from reading and multi-hop sets: to train a reader on, and to measure it.

A context that does not answer its question is an example too: its answer is "none", or "elsewhere" where it
is not the text that the question is about. Sets whose answers are yes or no teach these. `group` keeps what
belongs together (an article, a question) on one side of a split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias

from agentmtl.evaluate.datasets import kind_of, read_multihop
from agentmtl.evaluate.jsonl import read_records
from agentmtl.schema import Document

AnswerKind: TypeAlias = Literal["span", "none", "elsewhere", "yes", "no"]
DEV_SHARE = 0.05  # of the groups
_LEAST_TITLED = 0.9  # of a corpus's documents; where fewer have one, a title says too much


@dataclass(frozen=True, slots=True)
class ReadingExample:
    """`spans`: [start, end) of accepted answers in `context`, in characters; none where `kind` is no span."""

    id: str
    group: str
    question: str
    context: str
    title: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    kind: AnswerKind = "span"

    @property
    def text(self) -> str:
        """The context as the reader sees it: headed by its title."""
        return headed(self.title, self.context)

    @property
    def text_spans(self) -> tuple[tuple[int, int], ...]:
        """`spans` in `text`."""
        shift = len(self.text) - len(self.context)
        return tuple((start + shift, end + shift) for start, end in self.spans)

    @property
    def accepted(self) -> list[str]:
        """The accepted answers; none where there is none."""
        if self.kind in ("yes", "no"):
            return [self.kind]
        return list(dict.fromkeys(self.context[start:end] for start, end in self.spans))


def headed(title: str, context: str) -> str:
    """A context under its title."""
    return f"{title}. {context}" if title else context


def read_examples(folder: Path, split: str = "train", seed: int = 0) -> list[ReadingExample]:
    """The examples of a set: of a reading set's file for the split, or of a multi-hop set's questions.

    Raises IngestError for a bad line, UsageError where there is no set.
    """
    if kind_of(folder) == "reading":
        return list(_of_reading(folder / f"{split}.jsonl"))
    return list(_of_multihop(folder, Random(f"reader:{folder.name}:{seed}")))


def is_dev(group: str, share: float = DEV_SHARE) -> bool:
    """Whether a group is for choosing when to stop, from its name alone."""
    digest = hashlib.sha256(f"reader-dev:{group}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _of_reading(path: Path) -> Iterator[ReadingExample]:
    for record in read_records(path):
        context, title = record.text("context"), record.text("title", "")
        spans = []
        for answer in record.items("answers") if record.flag("answerable") else ():
            text, start = str(answer.get("text", "")), int(answer.get("start", -1))
            if context[start : start + len(text)] != text or not text:
                raise record.error("has an answer that does not stand at its start")
            spans.append((start, start + len(text)))
        yield ReadingExample(
            record.text("id"), title or context[:80], record.text("question"), context, title,
            tuple(dict.fromkeys(spans)), "span" if spans else "none",
        )  # fmt: skip


def _of_multihop(folder: Path, random: Random) -> Iterator[ReadingExample]:
    """Every question over its gold documents, in random order, one context; and over what lacks the answer.

    Titles are left out where only some documents have one.
    """
    data = read_multihop(folder)
    titled = not data.uneven_titles
    documents = {d.source_id: d for d in data.documents}
    for question in data.questions:
        gold = [documents[id_] for id_ in question.gold if id_ in documents]
        if not gold or not question.answers:
            continue
        random.shuffle(gold)
        context = " ".join(headed(d.title if titled else "", d.text) for d in gold)
        kind = yes_or_no(question.answers) or "span"
        spans = occurrences(context, question.answers) if kind == "span" else ()
        if kind == "span" and not spans:
            continue
        group = f"{data.name}:{question.id}"
        yield ReadingExample(question.id, group, question.question, context, "", spans, kind)
        if kind == "span" and len(gold) > 1:
            yield from _partial(question.id, group, question.question, gold, question.answers, titled)


def _partial(
    id_: str, group: str, question: str, gold: Sequence[Document], answers: Sequence[str], titled: bool
) -> Iterator[ReadingExample]:
    """Each gold document alone: with the answer where it holds it, else without one."""
    for n, document in enumerate(gold):
        title = document.title if titled else ""
        spans = occurrences(document.text, answers)
        kind: AnswerKind = "span" if spans else "none"
        yield ReadingExample(f"{id_}/{n}", group, question, document.text, title, spans, kind)


def yes_or_no(answers: Sequence[str]) -> Literal["yes", "no"] | None:
    """The first of the answers, where it is one of these."""
    first = answers[0].strip().lower() if answers else ""
    return "yes" if first == "yes" else "no" if first == "no" else None


def occurrences(text: str, answers: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Where any of the answers stands in a text as whole words, in any case; in order."""
    found = {
        match.span()
        for answer in answers
        if answer.strip()
        for match in re.finditer(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", text, re.I)
    }
    return tuple(sorted(found))
