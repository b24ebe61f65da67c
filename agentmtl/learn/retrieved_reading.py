"""Examples to read from what retrieval really brings: every context the reader would be given, labelled.

A context answers where an accepted answer stands in one of its gold passages; in any other the answer is
elsewhere, and those that stand high are the hard ones. So a reader learns to prefer the passage that ends a
chain over those that only lead there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from agentmtl.evaluate.datasets import DataSet, Question, read_multihop, read_reading
from agentmtl.evaluate.indexes import index_for
from agentmtl.evaluate.reading_examples import (
    AnswerKind,
    ReadingExample,
    occurrences,
    read_examples,
    yes_or_no,
)
from agentmtl.experts.reader import Context, contexts_of
from agentmtl.retrieval.hops.evidence import PASSAGES
from agentmtl.retrieval.hops.model import fold_of, shipped
from agentmtl.retrieval.hops.search import search_hops
from agentmtl.retrieval.index import Index

WRONG = 3  # contexts without the answer, of each question


def retrieved_examples(
    folder: Path, indexes: Path, seed: int = 0, fold: int = -1, folds: int = 1
) -> list[ReadingExample]:
    """The examples of a multi-hop set, without the questions of `fold` where one is given.

    The index is that of `agentmtl eval multihop`, built under `indexes` where it is not there; a question is
    looked up with weights that have not seen it. Raises what reading the set and building its index raise.
    """
    data = read_multihop(folder)
    index = index_for(data, indexes)
    index.add_stream()
    found: list[ReadingExample] = []
    for question in data.questions:
        if fold < 0 or fold_of(question.id, folds) != fold:
            found += _of_question(data, question, index, Random(f"retrieved:{question.id}:{seed}"))
    return found


def distractors(folder: Path, indexes: Path, limit: int, seed: int = 0) -> list[ReadingExample]:
    """About `limit` contexts that a search over all texts of a reading set's train file brings although the
    question is not about them: of evenly spread answerable questions one each, drawn from the first hits, in
    which no accepted answer stands.

    Raises what reading the set and building its index raise.
    """
    data = read_reading(folder, "train")
    index = index_for(data, indexes)
    index.add_stream()
    examples = {e.id: e for e in read_examples(folder) if e.kind == "span"}
    asked = [q for q in data.questions if q.id in examples]
    found = []
    for question in asked[:: max(1, len(asked) // limit)] if limit else []:
        hits = index.retriever.retrieve(question.question, k=PASSAGES, where=question.where)
        wrong = [
            hit.unit
            for hit in hits
            if hit.unit.source_id not in question.gold and not occurrences(hit.text, question.answers)
        ]
        if wrong:
            unit = Random(f"distractor:{question.id}:{seed}").choice(wrong)
            of = examples[question.id]
            found.append(
                ReadingExample(
                    f"{of.id}/elsewhere", of.group, of.question, unit.text, unit.title, kind="elsewhere"
                )
            )
    return found


def _of_question(data: DataSet, question: Question, index: Index, random: Random) -> Iterator[ReadingExample]:
    if not question.answers:
        return
    contexts = _contexts(index, question)
    said = yes_or_no(question.answers)
    group = f"{data.name}:{question.id}"
    right, wrong = list[ReadingExample](), list[ReadingExample]()
    for n, context in enumerate(contexts):
        id_ = f"{question.id}/{n}"
        if said is not None:
            if {part.hit.unit.source_id for part in context.parts} & set(question.gold):
                right.append(ReadingExample(id_, group, question.question, context.text, kind=said))
            continue
        spans = _spans(context, question)
        kind: AnswerKind = "span" if spans else "elsewhere"
        example = ReadingExample(id_, group, question.question, context.text, "", spans, kind)
        (right if spans else wrong).append(example)
    yield from right
    yield from random.sample(wrong[: 2 * WRONG], min(WRONG, len(wrong)))


def _contexts(index: Index, question: Question) -> Sequence[Context]:
    model = shipped().without(question.id)
    hits = search_hops(index.retriever, question.question, k=PASSAGES, where=question.where, model=model).hits
    return list(contexts_of(list(hits), question.question))


def _spans(context: Context, question: Question) -> tuple[tuple[int, int], ...]:
    """Accepted answers in the gold passages of a context."""
    return tuple(
        (part.at + start, part.at + end)
        for part in context.parts
        if part.hit.unit.source_id in question.gold
        for start, end in occurrences(part.hit.text, question.answers)
    )
