"""What the ranking phase needs of a set: the sentences that compete with a question's gold ones, and how
often n-grams occur in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentmtl.evaluate.datasets import DataSet
from agentmtl.evaluate.indexes import index_for
from agentmtl.index.identifiers import StreamTokenizer
from agentmtl.ingest import split_sentences
from agentmtl.learn.identifier_examples import KeyExample, Tokens
from agentmtl.learn.identifiers import Frequencies, RankedExample
from agentmtl.retrieval.identifiers.keys import token_kinds

FOUND = 30  # sentences that words alone find for a question
_WORDS_ALONE = "hashing:16"  # the index's vectors are not used


def ranked_examples(
    data: DataSet, examples: Sequence[KeyExample], tokenizer: StreamTokenizer, indexes: Path
) -> list[RankedExample]:
    """The questions with the sentences of their gold passages and those that lexical search finds; without
    questions that have no other sentence. An index of the set is made under `indexes`."""
    index = index_for(data, indexes, encoder=_WORDS_ALONE, levels=("sentence", "passage"))
    texts = {d.source_id: [d.text[a:b] for a, b in split_sentences(d.text)] for d in data.documents}
    encoded: dict[str, Tokens] = {}

    def encode(text: str) -> Tokens:
        if text not in encoded:
            encoded[text] = tuple(tokenizer.encode(text))
        return encoded[text]

    found = []
    for example in examples:
        gold = {_bare(s) for sentences in example.sentences.values() for s in sentences}
        near = [s for source in example.sentences for s in texts[source] if not _is_gold(s, gold)]
        hits = index.retriever.retrieve(example.question, level="sentence", k=FOUND, channel="lexical")
        known = set(near)
        others = [h.text for h in hits if not _is_gold(h.text, gold) and h.text not in known]
        golds = tuple(tokens for unit in example.golds for tokens in unit.sentences if tokens)
        rest = tuple(filter(None, map(encode, near))), tuple(filter(None, map(encode, others)))
        if golds and any(rest):
            found.append(RankedExample(example, golds, *rest))
    return found


def _is_gold(sentence: str, gold: set[str]) -> bool:
    """Whether a sentence is a gold one, or part of one, or holds one: splitters differ."""
    bare = _bare(sentence)
    return any(bare in one or one in bare for one in gold)


def _bare(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


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
