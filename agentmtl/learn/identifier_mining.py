"""What the ranking phase needs of a set: the first sentences that are found for a question, what the other
channels say of them, and how often n-grams occur."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentmtl.evaluate.datasets import DataSet
from agentmtl.evaluate.identifiers import gold_of
from agentmtl.evaluate.indexes import index_for
from agentmtl.index.identifiers import StreamTokenizer
from agentmtl.learn.identifier_examples import KeyExample
from agentmtl.learn.identifier_ranking import Frequencies, RankedExample
from agentmtl.retrieval.fusion import AGAIN, Fusion
from agentmtl.retrieval.identifiers.keys import token_kinds
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.retriever import Retriever
from agentmtl.trunk.encoder import Vectors


def ranked_examples(
    data: DataSet, examples: Sequence[KeyExample], tokenizer: StreamTokenizer, indexes: Path, encoder: str
) -> list[RankedExample]:
    """The questions with the first sentences that the fused search without a decoder finds; without questions
    for which no gold one is among these, or nothing else. An index of the set is made under `indexes`.

    Raises what building the index raises.
    """
    index = index_for(data, indexes, encoder=encoder)
    index.add_stream()
    retriever = Retriever(index.snapshot, index.encoder, Fusion())
    vectors = index.encoder.encode([one.question for one in examples], "query")
    found = [
        _ranked(index, retriever, tokenizer, one, vector)
        for one, vector in zip(examples, vectors, strict=True)
    ]
    return [one for one in found if one is not None]


def _ranked(
    index: Index, retriever: Retriever, tokenizer: StreamTokenizer, example: KeyExample, vector: Vectors
) -> RankedExample | None:
    hits = retriever.retrieve(example.question, level="sentence", vector=vector, k=AGAIN)
    units = index.snapshot.units("sentence", hits.addresses)
    right = {unit.text for unit in units if gold_of(unit, example.sentences) is not None}
    gold = tuple(unit.text in right for unit in units)  # the same text elsewhere is as good
    if not any(gold) or all(gold):
        return None
    asked = tokenizer.encode(example.question)
    return RankedExample(
        example,
        tuple(tuple(tokenizer.encode(unit.text)) for unit in units),
        gold,
        tuple(np.asarray(hits.scores, np.float64).tolist()),
        frozenset(zip(asked, asked[1:], strict=False)),
    )


def frequencies_of(data: DataSet, tokenizer: StreamTokenizer) -> Frequencies:
    """The n-grams of one and two tokens of a corpus, titles included."""
    size = tokenizer.vocabulary
    ones = np.zeros(size, np.int64)
    codes = []
    for document in data.documents:
        for text in (document.title, document.text):
            tokens = np.array(tokenizer.encode(text), np.int64)
            ones += np.bincount(tokens, minlength=size)
            codes.append(tokens[:-1] * size + tokens[1:])
    pairs, counts = np.unique(np.concatenate(codes), return_counts=True)
    begins, says = token_kinds(tokenizer)
    return Frequencies(ones, pairs, counts, says, begins)
