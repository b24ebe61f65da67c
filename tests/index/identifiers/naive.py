"""What a scan of all live token sequences says: the oracle for `Ngrams`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from agentmtl.index.identifiers import StreamTokenizer
from agentmtl.schema import Document


class Scan:
    """Every document as the sequence TITLE title TITLE_END text END."""

    def __init__(self, documents: Iterable[Document], tokenizer: StreamTokenizer) -> None:
        t = tokenizer
        self.sequences = [
            [t.title, *t.encode(d.title), t.title_end, *t.encode(d.text), t.end] for d in documents
        ]

    @property
    def tokens(self) -> int:
        return sum(len(s) - 3 for s in self.sequences)

    def following(self, prefix: Sequence[int]) -> Counter[int]:
        """The tokens after each occurrence of `prefix`."""
        found: Counter[int] = Counter()
        for sequence in self.sequences:
            for i in range(len(sequence) - len(prefix)):
                if sequence[i : i + len(prefix)] == list(prefix):
                    found[sequence[i + len(prefix)]] += 1
        return found

    def count(self, ngram: Sequence[int]) -> int:
        return sum(
            sequence[i : i + len(ngram)] == list(ngram)
            for sequence in self.sequences
            for i in range(len(sequence) - len(ngram) + 1)
        )

    def ngrams(self, longest: int = 4) -> list[tuple[int, ...]]:
        """Some n-grams that occur, in a fixed order."""
        found = {
            tuple(s[i : i + n])
            for s in self.sequences
            for n in range(1, longest + 1)
            for i in range(len(s) - n + 1)
        }
        return sorted(found)
