"""Two tokenisers: the bundled uncased WordPiece, and a byte-level BPE trained on a few lines."""

from __future__ import annotations

from functools import lru_cache

from agentmtl.index.identifiers import StreamTokenizer, load_tokenizer

LINES = [
    "The cat sat on the mat and the dog ran to the river.",
    "A river of gold, a mat of straw; the cat's dog ran on.",
    "Gold and straw, cat and dog, river and mat!",
]


@lru_cache
def wordpiece() -> StreamTokenizer:
    return load_tokenizer()


@lru_cache
def byte_pairs() -> StreamTokenizer:
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(LINES, vocab_size=320, min_frequency=1, show_progress=False)
    return StreamTokenizer(trained.to_str(), "byte-pairs")


BOTH = {"wordpiece": wordpiece, "byte-pairs": byte_pairs}
