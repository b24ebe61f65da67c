"""What the retriever's heads add to a query: that of labelled examples, the bank, and a proposer.

    python benchmarks/retrieval_heads.py --task ../shared/data/demonstrations/trec [--head DIR] [--rounds 7]
    python benchmarks/retrieval_heads.py --task … --data ../shared/data/reading/squad --proposer DIR

The task's first 2,000 examples in two indexes, one made with the trunk and one with the head; 100 of its test
inputs, one at a time. Each is asked for its eight examples. The bank votes from 16 examples, against the vote
of the same. With --proposer, sentences of the set's index (that of `agentmtl eval identifiers`), against
n-grams of the query alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from timing import FAISS_THRESHOLD, Row, Spread, over, parser, pin_threads, report, take_turns

from agentmtl.evaluate.datasets import read_reading
from agentmtl.evaluate.demonstrations import TaskData, read_task
from agentmtl.evaluate.indexes import index_for
from agentmtl.experts.bank import SHIPPED, FewVoter, open_bank
from agentmtl.experts.demonstrations import DemonstrationVoter
from agentmtl.retrieval.demonstrations import Selection, select
from agentmtl.retrieval.example_encoder import By
from agentmtl.retrieval.identifiers.channel import Identifiers
from agentmtl.retrieval.identifiers.trained import trained_keys
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Demonstration

EXAMPLES, SHOTS, ASKED = 2_000, 16, 100

Search = Callable[[str], object]


def index_of(data: TaskData, shown: Sequence[Demonstration], folder: Path, encoder: str) -> Index:
    """An index of these examples alone."""
    index = Index.create(folder, encoder=encoder, levels=("passage",), streams=())
    by: By = "head" if index.settings.encoder.demonstrations else "auto"
    index.add_demonstrations(data.task, shown, by=by)
    return index


def added(what: str, texts: Sequence[str], pair: dict[str, Search], rounds: int, limit: float) -> list[Row]:
    """Milliseconds of a query "without" and "with" a head, and what it adds."""
    runs = {name: over(texts, search, FAISS_THRESHOLD) for name, search in pair.items()}
    taken = take_turns(runs, rounds)
    each = {name: [1000 * t / len(texts) for t in seconds] for name, seconds in taken.items()}
    more = [a - b for a, b in zip(each["with"], each["without"], strict=True)]
    return [
        Row(f"{what} adds, a query", Spread.of(more), "ms", at_most=limit),
        Row(f"  a query without {what}", Spread.of(each["without"]), "ms"),
    ]


def demonstrating(data: TaskData, head: str, folder: Path, rounds: int) -> list[Row]:
    """Eight examples by the trunk's vectors and words, and by the head's."""
    texts = [one.input for one in data.test[:ASKED]]
    made = {"without": "default", "with": f"default+{head}"}
    indexes = {
        name: index_of(data, data.train[:EXAMPLES], folder / name, encoder) for name, encoder in made.items()
    }

    def search(name: str) -> Search:
        retriever = indexes[name].retriever
        return lambda text: select(retriever, text, data.task.name, Selection(k=8))

    return added("the head of examples", texts, {name: search(name) for name in made}, rounds, 10.0)


def few(data: TaskData, folder: Path, rounds: int) -> list[Row]:
    """A prediction from 16 examples by their vote, and by the bank."""
    retriever = index_of(data, data.train[:SHOTS], folder / "few", "default").retriever
    voters = {
        "without": DemonstrationVoter(retriever, data.task),
        "with": FewVoter(retriever, data.task, open_bank(SHIPPED)),
    }
    texts = [one.input for one in data.test[:ASKED]]
    pair: dict[str, Search] = {
        name: (lambda text, voter=voter: voter.predict([text]))  # type: ignore[misc]
        for name, voter in voters.items()
    }
    return added("the bank", texts, pair, rounds, 10.0)


def proposing(folder: Path, proposer: str, indexes: Path, rounds: int) -> list[Row]:
    """Ten sentences by all channels, identifiers by the query's n-grams, and by the decoder's."""
    data = read_reading(folder, "test")
    index = index_for(data, indexes)
    index.add_stream()
    keys = trained_keys(proposer)
    settings = Identifiers((keys,), stream=keys.stream)
    trained = Retriever(index.snapshot, index.encoder, None, settings)
    texts = [question.question for question in data.questions[:ASKED]]
    pair: dict[str, Search] = {
        "without": lambda text: list(index.retriever.retrieve(text, level="sentence", k=10)),
        "with": lambda text: list(trained.retrieve(text, level="sentence", k=10)),
    }
    return added("the proposer", texts, pair, rounds, 60.0)


def main() -> None:
    options = parser(__doc__, rounds=7, threads=2)
    options.add_argument("--task", type=Path, required=True, help="a classification")
    options.add_argument("--head", default="demonstrations", help="a folder, or the shipped one by its name")
    options.add_argument("--data", type=Path, help="a reading set, for --proposer")
    options.add_argument("--proposer", help="a folder of `train identifiers`")
    options.add_argument("--indexes", type=Path, default=Path("indexes") / "eval")
    arguments: argparse.Namespace = options.parse_args()
    if arguments.proposer and not arguments.data:
        options.error("--proposer needs --data")
    pin_threads(arguments.threads)
    data = read_task(arguments.task)
    with tempfile.TemporaryDirectory() as place:
        rows = demonstrating(data, arguments.head, Path(place), arguments.rounds)
        rows += few(data, Path(place), arguments.rounds)
    if arguments.proposer:
        rows += proposing(arguments.data, arguments.proposer, arguments.indexes, arguments.rounds)
    report("retrieval heads", rows, arguments)


if __name__ == "__main__":
    main()
