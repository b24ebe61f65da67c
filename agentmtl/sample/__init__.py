"""The bundled sample corpus: short factual documents in eight formats, and questions about them.

`agentmtl demo` indexes the corpus; the questions measure what was built on it. Both ship inside the
package, which is always installed unpacked, so the corpus is an ordinary folder on disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

__all__ = ["DEMO_QUESTION", "SampleQuestion", "corpus_path", "load_questions"]

# Needs two documents: who built the timekeeper, and where that person was born.
DEMO_QUESTION: str = "Where was the clockmaker who built the H4 marine timekeeper born?"


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question about the sample corpus, and what answers it.

    `gold` holds source ids in the order in which they are needed: ``corpus/<name>`` for a file that is one
    document, the `id` of a record otherwise. `supporting_sentences` pairs each with the exact sentence.
    `bridge` is the name that leads from the first to the second document of a two-hop question. An
    unanswerable question has no answers, no gold and no supporting sentences, and counts as one hop.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    supporting_sentences: tuple[tuple[str, str], ...]
    hops: Literal[1, 2]
    bridge: str = ""

    @property
    def answerable(self) -> bool:
        """Whether the corpus holds the answer."""
        return bool(self.gold)


def corpus_path() -> Path:
    """The folder of the sample corpus, ready to be indexed."""
    return _folder() / "corpus"


def load_questions() -> list[SampleQuestion]:
    """All questions in file order: two-hop, one-hop, unanswerable."""
    lines = (_folder() / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [_question(json.loads(line)) for line in lines if line]


def _folder() -> Path:
    return Path(str(files(__name__)))


def _question(record: dict[str, Any]) -> SampleQuestion:
    support = tuple((source, sentence) for source, sentence in record["supporting_sentences"])
    return SampleQuestion(
        id=record["id"],
        question=record["question"],
        answers=tuple(record["answers"]),
        gold=tuple(record["gold"]),
        supporting_sentences=support,
        hops=record["hops"],
        bridge=record["bridge"],
    )
