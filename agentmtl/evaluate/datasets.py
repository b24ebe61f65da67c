"""Evaluation data: folders of JSON Lines.

    multi-hop set   corpus.jsonl {id, title, text, …}, questions.jsonl {id, question, answers, gold, …};
                    or questions.jsonl alone, each with its own candidates [text, …] and gold [index, …]
    reading set     train.jsonl, test.jsonl {id, title, context, question, answers: [{text}], answerable}

`gold` lists ids of the corpus; `supporting_sentences`, where given, lists [id, sentence].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias, TypeVar

from agentmtl.errors import IngestError, UsageError
from agentmtl.evaluate.jsonl import Record, files_hash, read_records
from agentmtl.schema import Document, MetadataValue

Kind: TypeAlias = Literal["multihop", "reading"]
KINDS: tuple[Kind, ...] = ("multihop", "reading")

CORPUS, QUESTIONS = "corpus.jsonl", "questions.jsonl"
_READING_SPLITS = ("test.jsonl", "train.jsonl")
_READING_FIELDS = {"context", "question", "answerable"}
_CONTEXT_DIGITS = 16
_FORMS = {
    "multihop": "A multi-hop set is a folder with corpus.jsonl and questions.jsonl.",
    "reading": "A reading set is a folder with a test.jsonl of {context, question, answerable, …}.",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what is known of its answer.

    `answers`: accepted strings, empty where none is known. `gold`: source ids that are needed.
    `supporting`: (source id, sentence) pairs, empty where the set has none. `answerable`: whether the
    corpus holds the answer.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    gold: tuple[str, ...] = ()
    supporting: tuple[tuple[str, str], ...] = ()
    answerable: bool = True
    where: str | None = None  # a filter, where each question has candidates of its own


@dataclass(frozen=True, slots=True)
class DataSet:
    """A set as read. `corpus_sha256` changes with the documents, `sha256` with any byte of the files."""

    kind: Kind
    name: str
    folder: Path
    files: tuple[str, ...]
    documents: tuple[Document, ...]
    questions: tuple[Question, ...]
    corpus_sha256: str
    sha256: str

    @property
    def uneven_titles(self) -> bool:
        """Whether only some documents have a title: then a title says where the document came from."""
        titled = sum(bool(document.title) for document in self.documents)
        return 0 < titled < len(self.documents)


# --- finding sets -----------------------------------------------------------------------------------


def kind_of(folder: Path) -> Kind | None:
    """The form of the set in a folder, None where there is none."""
    if (folder / QUESTIONS).is_file():
        if (folder / CORPUS).is_file():
            return "multihop"
        first = next(read_records(folder / QUESTIONS), None)
        return "multihop" if first and "candidates" in first.fields else None
    for name in _READING_SPLITS:
        if (folder / name).is_file():
            first = next(read_records(folder / name), None)
            return "reading" if first and first.fields.keys() >= _READING_FIELDS else None
    return None


@dataclass(frozen=True, slots=True)
class Found:
    """The sets of a folder, by name. `skipped` are subfolders without one; `single`: the folder is a set."""

    sets: tuple[Path, ...]
    skipped: tuple[str, ...]
    single: bool


def find_sets(folder: Path, kinds: Sequence[Kind] = KINDS) -> Found:
    """The folder itself where it is a set of one of the kinds, else the sets directly in it.

    Raises UsageError, saying which files a set has, where there is none.
    """
    hint = " ".join(_FORMS[kind] for kind in kinds)
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint)
    if kind_of(folder) in kinds:
        return Found((folder,), (), single=True)
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    sets = tuple(path for path in inside if kind_of(path) in kinds)
    if not sets:
        raise UsageError(f"{folder} holds no evaluation set.", hint)
    return Found(sets, tuple(path.name for path in inside if path not in sets), single=False)


# --- reading them -----------------------------------------------------------------------------------


def read_set(folder: Path, split: str = "test") -> DataSet:
    """The set in a folder, whatever its form; `split` names the file of a reading set."""
    kind = kind_of(folder)
    if kind is None:
        raise UsageError(f"{folder} holds no evaluation set.", " ".join(_FORMS.values()))
    return read_multihop(folder) if kind == "multihop" else read_reading(folder, split)


def read_multihop(folder: Path) -> DataSet:
    """A corpus with questions over it.

    Raises UsageError where a file is missing; IngestError for a bad line, a repeated id, or a gold id that
    is not in the corpus.
    """
    if not (folder / CORPUS).is_file() and kind_of(folder) == "multihop":
        return _read_candidates(folder)
    _need(folder, (CORPUS, QUESTIONS), "multihop")
    corpus = documents(folder / CORPUS)
    known = {document.source_id for document in corpus}
    questions = tuple(_multihop_question(r, known) for r in read_records(folder / QUESTIONS))
    if not questions:
        raise IngestError(f"{folder / QUESTIONS} is empty.", "Give at least one question.")
    paths = [folder / CORPUS, folder / QUESTIONS]
    return DataSet(
        "multihop", _name(folder), folder, (CORPUS, QUESTIONS), corpus, questions,
        corpus_sha256=files_hash(paths[:1]), sha256=files_hash(paths),
    )  # fmt: skip


def _read_candidates(folder: Path) -> DataSet:
    """Questions that each bring their candidates: one corpus of all, and a filter a question."""
    corpus: list[Document] = []
    questions: list[Question] = []
    for record in read_records(folder / QUESTIONS):
        name = record.text("id")
        texts = record.texts("candidates")
        gold = [g for g in record.items("gold") if isinstance(g, int) and 0 <= g < len(texts)]
        corpus += [Document(f"{name}/{i}", t, metadata={"question": name}) for i, t in enumerate(texts)]
        answers, where = record.texts("answers"), f'question == "{name}"'
        wanted = tuple(f"{name}/{g}" for g in gold)
        questions.append(Question(name, record.text("question"), tuple(answers), wanted, where=where))
    sha256 = files_hash([folder / QUESTIONS])
    return DataSet(
        "multihop", _name(folder), folder, (QUESTIONS,), tuple(corpus), tuple(questions), sha256, sha256
    )  # fmt: skip


def documents(corpus: Path) -> tuple[Document, ...]:
    """The records {id, title, text, …} of a file as documents; other plain fields become metadata."""
    found: dict[str, Document] = {}
    for record in read_records(corpus):
        source_id = record.text("id")
        if source_id in found:
            raise record.error(f"repeats the id {source_id!r}")
        found[source_id] = Document(
            source_id, record.text("text"), record.text("title", ""), metadata=_metadata(record)
        )
    if not found:
        raise IngestError(f"{corpus} is empty.", "Give at least one document.")
    return tuple(found.values())


def without_titles(corpus: Iterable[Document]) -> tuple[Document, ...]:
    """The documents with their titles left out."""
    return tuple(replace(document, title="") for document in corpus)


def _metadata(record: Record) -> dict[str, MetadataValue]:
    rest = {k: v for k, v in record.fields.items() if k not in {"id", "title", "text"}}
    return {name: value for name, value in rest.items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(item is None or isinstance(item, str | int | float) for item in value)
    return value is None or isinstance(value, str | int | float)


def _multihop_question(record: Record, known: set[str]) -> Question:
    gold = tuple(dict.fromkeys(record.texts("gold")))
    if missing := [id_ for id_ in gold if id_ not in known]:
        raise record.error(f"has the gold {missing[0]!r}, which the corpus does not hold")
    answers = record.texts("answers") or tuple(filter(None, [record.text("answer", "")]))
    supporting = tuple(_supporting(record, pair) for pair in record.items("supporting_sentences"))
    return Question(record.text("id"), record.text("question"), answers, gold, supporting)


def _supporting(record: Record, pair: object) -> tuple[str, str]:
    if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
        raise record.error("has supporting_sentences that are not [id, sentence] pairs")
    return pair[0], pair[1]


def read_reading(folder: Path, split: str = "test") -> DataSet:
    """Questions over contexts; the corpus is the distinct contexts of the split, named by their hash.

    A question the context does not answer counts as one the corpus does not answer: its article's other
    contexts are there too, so a few of these may have an answer after all.
    Raises UsageError where the file is missing, IngestError for a bad line.
    """
    name = f"{split}.jsonl"
    _need(folder, (name,), "reading")
    corpus: dict[str, Document] = {}
    questions = tuple(_reading_question(record, corpus) for record in read_records(folder / name))
    if not questions:
        raise IngestError(f"{folder / name} is empty.", "Give at least one question.")
    sha256 = files_hash([folder / name])
    contexts = tuple(corpus.values())
    return DataSet("reading", _name(folder), folder, (name,), contexts, questions, sha256, sha256)


def context_source(title: str, context: str) -> str:
    """The source id of a reading set's context."""
    digest = hashlib.sha256(f"{title}\n{context}".encode()).hexdigest()
    return f"context-{digest[:_CONTEXT_DIGITS]}"


def _reading_question(record: Record, corpus: dict[str, Document]) -> Question:
    context = record.text("context")
    title = record.text("title", "")
    source_id = context_source(title, context)
    corpus.setdefault(source_id, Document(source_id, context, title))
    answers = tuple(_answer_text(record, answer) for answer in record.items("answers"))
    answerable = record.flag("answerable")
    if answerable and not answers:
        raise record.error("is answerable but has no answers")
    gold = (source_id,) if answerable else ()
    return Question(
        record.text("id"), record.text("question"), answers if answerable else (), gold, (), answerable
    )


def _answer_text(record: Record, answer: object) -> str:
    text = answer.get("text") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise record.error("has answers that are not {text, start} objects")
    return text


def _need(folder: Path, names: Sequence[str], kind: Kind) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise UsageError(f"There is no {name} in {folder}.", _FORMS[kind])


def _name(folder: Path) -> str:
    return folder.resolve().name


# --- part of a set ----------------------------------------------------------------------------------

_Item = TypeVar("_Item")


def sample(items: Sequence[_Item], limit: int | None, seed: int) -> tuple[_Item, ...]:
    """`limit` of the items, drawn by `seed`, in their own order; all where there are no more than that.

    Files are often sorted by article or type, so the first ones would stand for little.
    Raises UsageError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} leaves no question.", "Give 1 or more.")
    if limit is None or limit >= len(items):
        return tuple(items)
    chosen = sorted(Random(f"agentmtl-sample:{seed}").sample(range(len(items)), limit))
    return tuple(items[i] for i in chosen)


def answered(found: DataSet, limit: int | None, seed: int) -> tuple[Question, ...]:
    """`sample` of the questions that have answers, in documents that hold them.

    Raises UsageError where there are none.
    """
    questions = sample([q for q in found.questions if q.answers and q.answerable], limit, seed)
    if not questions:
        raise UsageError(f"{found.name} has no questions with answers.", "Give a set such as hotpotqa.")
    return questions
