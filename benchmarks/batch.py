"""A batch of queries: `Retriever.retrieve_batch` ÷ a numpy matrix product with argpartition.

    python benchmarks/batch.py [--units 100000] [--queries 200] [--rounds 9] [--json]

Flat, k = 10, and the same after deleting 1 % of the units, where numpy gets the live vectors as one matrix.
The baseline orders its ten as well. Both must give the same units in the same order before timing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from timing import (
    DigestEncoder,
    K,
    Row,
    Spread,
    parser,
    pin_threads,
    random_queries,
    ratio,
    report,
    take_turns,
)

from agentmtl import Document, Index
from agentmtl.trunk.encoder import Vectors

TARGET = 1.2
DELETED_EVERY = 100


def text(number: int) -> str:
    return f"unit {number} of the corpus"


def numpy_search(vectors: Vectors, queries: Vectors) -> NDArray[np.int64]:
    """(queries, K) rows of `vectors`, best first."""
    scores = queries @ vectors.T
    chosen = np.argpartition(scores, -K, axis=1)[:, -K:]
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
    return np.take_along_axis(chosen, order, axis=1)


def check_equal(index: Index, names: NDArray[np.int64], vectors: Vectors, queries: Vectors) -> None:
    wanted = names[numpy_search(vectors, queries)].tolist()
    found = index.retriever.retrieve_batch(queries, k=K)
    assert [[int(hit.unit.source_id) for hit in hits] for hits in found] == wanted


def measure(
    what: str, index: Index, names: NDArray[np.int64], vectors: Vectors, arguments: argparse.Namespace
) -> list[Row]:
    queries = random_queries(arguments.queries)
    check_equal(index, names, vectors, queries)
    taken = take_turns(
        {
            "numpy": lambda: numpy_search(vectors, queries),
            "batch": lambda: index.retriever.retrieve_batch(queries, k=K),
        },
        arguments.rounds,
        arguments.clock,
    )
    return [
        Row(f"{what}: numpy", Spread.of([seconds * 1e3 for seconds in taken["numpy"]]), "ms"),
        Row(f"{what}: retrieve_batch ÷ numpy", ratio(taken, "batch", "numpy"), at_most=TARGET),
    ]


def main() -> None:
    options = parser(__doc__, rounds=9)
    options.add_argument("--units", type=int, default=100_000)
    options.add_argument("--queries", type=int, default=200)
    arguments = options.parse_args()
    pin_threads(arguments.threads)
    texts = [text(n) for n in range(arguments.units)]
    vectors = DigestEncoder().encode(texts)
    names = np.arange(len(texts))
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "index", encoder=DigestEncoder(), levels=("passage",))
        index.add(Document(str(n), t) for n, t in enumerate(texts))
        rows = measure("all units", index, names, vectors, arguments)
        index.delete(str(n) for n in names[::DELETED_EVERY])
        left = np.delete(names, names[::DELETED_EVERY])
        rows += measure("1 % deleted", index, left, vectors[left], arguments)
    report("batch", rows, arguments)


if __name__ == "__main__":
    main()
