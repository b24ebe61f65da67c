"""The bundled sample corpus parses in every format, and its questions are what they claim to be."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentmtl.sample import DEMO_QUESTION, SampleQuestion, corpus_path, load_questions

MAX_BYTES = 60_000


class Sample(NamedTuple):
    title: str
    text: str
    metadata: dict[str, Any]
    form: str


def _markdown(path: Path) -> tuple[str, str]:
    from markdown_it import MarkdownIt

    inline = [t.content for t in MarkdownIt().parse(path.read_text(encoding="utf-8")) if t.type == "inline"]
    assert path.read_text(encoding="utf-8").startswith("# ")
    return inline[0], "\n\n".join(inline[1:])


def _plain(path: Path) -> tuple[str, str]:
    title, _, text = path.read_text(encoding="utf-8").partition("\n\n")
    return title, text.strip()


def _html(path: Path) -> tuple[str, str]:
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    assert soup.title is not None and soup.h1 is not None
    assert soup.title.get_text() == soup.h1.get_text()
    return soup.h1.get_text(), "\n\n".join(p.get_text() for p in soup.find_all("p"))


def _pdf(path: Path) -> tuple[str, str]:
    from pypdf import PdfReader

    reader = PdfReader(path)
    title, _, text = "\n".join(page.extract_text() for page in reader.pages).partition("\n")
    assert reader.metadata is not None
    assert reader.metadata.title == title.strip()
    assert not reader.metadata.author
    return title.strip(), text.strip()


def _docx(path: Path) -> tuple[str, str]:
    from docx import Document

    document = Document(str(path))
    title, *rest = [p.text for p in document.paragraphs if p.text]
    properties = document.core_properties
    assert properties.title == title
    assert not properties.author and not properties.last_modified_by
    return title, "\n\n".join(rest)


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _json(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return records


WHOLE: dict[str, Callable[[Path], tuple[str, str]]] = {
    ".md": _markdown,
    ".txt": _plain,
    ".html": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}
RECORDS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {".csv": _csv, ".jsonl": _jsonl, ".json": _json}


def _records(path: Path) -> list[tuple[str, Sample]]:
    fixed = ("id", "title", "text")
    return [
        (r["id"], Sample(r["title"], r["text"], {k: v for k, v in r.items() if k not in fixed}, path.suffix))
        for r in RECORDS[path.suffix](path)
    ]


@cache
def corpus() -> dict[str, Sample]:
    found: list[tuple[str, Sample]] = []
    for path in sorted(p for p in corpus_path().rglob("*") if p.is_file()):
        if path.suffix in RECORDS:
            found += _records(path)
            continue
        name = f"corpus/{path.relative_to(corpus_path()).as_posix()}"
        found.append((name, Sample(*WHOLE[path.suffix](path), {}, path.suffix)))
    assert len({key for key, _ in found}) == len(found), "source ids are not unique"
    return dict(found)


def questions(hops: int | None = None, answerable: bool = True) -> list[SampleQuestion]:
    return [q for q in load_questions() if q.answerable == answerable and hops in (None, q.hops)]


def test_there_are_enough_documents_in_every_format() -> None:
    forms = Counter(sample.form for sample in corpus().values())
    assert forms.total() >= 38
    assert set(forms) == {*WHOLE, *RECORDS}
    assert min(forms.values()) >= 3


@pytest.mark.parametrize("path", sorted(corpus_path().rglob("*")), ids=lambda p: p.name)
def test_files_are_small_plain_files(path: Path) -> None:
    assert path.is_file() and not path.is_symlink()
    assert 0 < path.stat().st_size < MAX_BYTES


def test_titles_are_unique_and_open_the_document() -> None:
    assert len({sample.title for sample in corpus().values()}) == len(corpus())
    for key, sample in corpus().items():
        first = sample.text.split(". ")[0]
        # Word by word: running text has "The Royal Observatory in Greenwich".
        assert set(re.findall(r"\w+", sample.title)) <= set(re.findall(r"\w+", first)), key


def test_documents_have_the_stated_length() -> None:
    lengths = {key: len(sample.text.split()) for key, sample in corpus().items()}
    assert {key: n for key, n in lengths.items() if not 60 <= n <= 250} == {}


def test_texts_are_clean() -> None:
    for key, sample in corpus().items():
        ligature_or_control = re.search("[\ufb00-\ufb06\ufffd\u00ad\x00-\x08]", sample.text)
        assert ligature_or_control is None, key
        assert "  " not in sample.text, key
        assert sample.text.endswith("."), key


def test_records_carry_a_topic_and_a_time() -> None:
    for key, sample in corpus().items():
        if sample.form not in RECORDS:
            continue
        assert sample.metadata["topic"] and sample.metadata["place"], key
        if "date" in sample.metadata:
            date.fromisoformat(sample.metadata["date"])
        else:
            assert isinstance(sample.metadata["year"], int), key


def test_documents_are_linked_by_the_names_they_mention() -> None:
    titles = {sample.title for sample in corpus().values()}
    linked = [
        key
        for key, sample in corpus().items()
        if any(title in sample.text for title in titles - {sample.title})
        or any(sample.title in other.text for k, other in corpus().items() if k != key)
    ]
    assert len(linked) >= 0.8 * len(corpus())


def test_there_are_enough_questions_of_each_kind() -> None:
    everything = load_questions()
    assert len({q.id for q in everything}) == len(everything)
    assert len({q.question for q in everything}) == len(everything)
    assert len(questions()) >= 24
    assert len(questions(hops=2)) >= 12
    assert len(questions(answerable=False)) >= 8


@pytest.mark.parametrize("question", questions(), ids=lambda q: q.id)
def test_support_is_exact(question: SampleQuestion) -> None:
    assert tuple(source for source, _ in question.supporting_sentences) == question.gold
    for source, sentence in question.supporting_sentences:
        assert corpus()[source].text.count(sentence) == 1
        assert re.fullmatch(r"[A-Z].*[a-z0-9]\.", sentence)
    _, last = question.supporting_sentences[-1]
    assert question.answers
    assert any(answer in last for answer in question.answers)


@pytest.mark.parametrize("question", questions(hops=2), ids=lambda q: q.id)
def test_two_hop_questions_need_both_documents(question: SampleQuestion) -> None:
    first, second = question.supporting_sentences
    assert len(set(question.gold)) == 2
    assert question.bridge
    assert question.bridge in first[1]
    assert question.bridge in second[1]
    assert question.bridge not in question.question
    assert not any(answer in corpus()[first[0]].text for answer in question.answers)


@pytest.mark.parametrize("question", questions(hops=1), ids=lambda q: q.id)
def test_one_hop_questions_have_one_document(question: SampleQuestion) -> None:
    assert len(question.gold) == 1
    assert question.bridge == ""


@pytest.mark.parametrize("question", questions(answerable=False), ids=lambda q: q.id)
def test_unanswerable_questions_claim_nothing(question: SampleQuestion) -> None:
    assert not (question.answers or question.gold or question.supporting_sentences or question.bridge)
    assert question.question.endswith("?")


def test_the_demo_question_is_a_two_hop_question_of_the_set() -> None:
    [demo] = [q for q in load_questions() if q.question == DEMO_QUESTION]
    assert demo.hops == 2
    assert demo.bridge == "John Harrison"
