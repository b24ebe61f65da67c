"""Filtered search at 1 % and 10 % selectivity: recall and time, against brute force and LangChain.

    python benchmarks/filtering.py [--units 20000] [--queries 50] [--rounds 11] [--json]

`where` is applied before the search, so recall@10 is 1 by construction: checked against a numpy scan of the
admitted vectors. A filter that this generation has seen is timed against the same queries without one; its
first use, which runs the SQL, is stated. LangChain's FAISS store filters after fetching `fetch_k` hits (20
unless told otherwise): its recall and time with that, and with `fetch_k` = all units, where its recall is 1.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from timing import (
    FAISS_THRESHOLD,
    DigestEncoder,
    K,
    Row,
    Spread,
    langchain_store,
    once,
    over,
    parser,
    pin_threads,
    random_queries,
    ratio,
    report,
    take_turns,
)

from agentmtl import Document, Index
from agentmtl.trunk.encoder import Vectors

GROUPS = {1: "hundredth", 10: "tenth"}  # per cent → the metadata field that is 0 for so many units
Search = Callable[[Vectors], list[int]]


def text(number: int) -> str:
    return f"unit {number} of the corpus, with a few words of text that a hit shows."


def groups(number: int) -> dict[str, int]:
    return {"hundredth": number % 100, "tenth": number % 10}


def ours(index: Index, where: str | None) -> Search:
    return lambda query: [int(hit.unit.source_id) for hit in index.retrieve(query, k=K, where=where)]


def theirs(store: Any, field: str, fetch: int | None) -> Search:
    deeper = {} if fetch is None else {"fetch_k": fetch}

    def search(query: Vectors) -> list[int]:
        found = store.similarity_search_by_vector(query.tolist(), k=K, filter={field: 0}, **deeper)
        return [int(document.id) for document in found]

    return search


def brute_force(vectors: Vectors, admitted: NDArray[np.int64], query: Vectors) -> set[int]:
    scores = vectors[admitted] @ query
    return set(admitted[np.argsort(-scores)[:K]].tolist())


def recall(search: Search, queries: Vectors, gold: list[set[int]]) -> float:
    pairs = zip(queries, gold, strict=True)
    return statistics.mean(len(wanted.intersection(search(query))) / K for query, wanted in pairs)


def first_use(index: Index, where: str, query: Vectors) -> Spread:
    """Milliseconds of the first search with a filter; each variant is a new expression for the same units."""
    taken = []
    for turn in range(9):
        start = time.perf_counter()
        index.retrieve(query, k=K, where=f"{where} and tenth != {-1 - turn}")
        taken.append((time.perf_counter() - start) * 1e3)
    return Spread.of(taken)


def lazily(index: Index, where: str | None) -> Callable[[Vectors], object]:
    return lambda query: index.retrieve(query, k=K, where=where).scores


def measure(
    index: Index, store: Any, vectors: Vectors, per_cent: int, arguments: argparse.Namespace
) -> list[Row]:
    field, queries = GROUPS[per_cent], random_queries(arguments.queries)
    where = f"{field} == 0"
    step = 100 // per_cent
    admitted = np.arange(0, len(vectors), step)
    gold = [brute_force(vectors, admitted, query) for query in queries]
    found = recall(ours(index, where), queries, gold)
    assert found == 1.0, f"recall {found} with a filter that should be exact"
    default, deep = theirs(store, field, None), theirs(store, field, len(vectors))
    mine, free = faiss.cvar.distance_compute_blas_threshold, lazily(index, None)
    taken = take_turns(
        {
            "unfiltered": over(queries, free, mine),
            "filtered": over(queries, lazily(index, where), mine),
            "LangChain": over(queries, default, FAISS_THRESHOLD),
        },
        arguments.rounds,
        arguments.clock,
    )
    few = queries[:2]  # it walks through all units in Python: two queries and three rounds are enough
    slow = take_turns(
        {"unfiltered": over(few, free, mine), "LangChain, all": over(few, deep, FAISS_THRESHOLD)},
        3,
        arguments.clock,
    )
    name = f"{per_cent} %:"
    return [
        once(f"{name} recall@10 of `where`", found, "", at_least=1.0),
        Row(f"{name} filter seen before ÷ unfiltered", ratio(taken, "filtered", "unfiltered"), at_most=1.0),
        Row(f"{name} first use of a filter", first_use(index, where, queries[0]), "ms"),
        once(f"{name} recall@10 of LangChain, fetch_k 20", recall(default, queries, gold), ""),
        Row(f"{name} LangChain, fetch_k 20 ÷ unfiltered", ratio(taken, "LangChain", "unfiltered")),
        once(f"{name} recall@10 of LangChain, fetch_k all", recall(deep, few, gold[:2]), ""),
        Row(f"{name} LangChain, fetch_k all ÷ unfiltered", ratio(slow, "LangChain, all", "unfiltered")),
    ]


def main() -> None:
    options = parser(__doc__, rounds=11)
    options.add_argument("--units", type=int, default=20_000)
    options.add_argument("--queries", type=int, default=50)
    arguments = options.parse_args()
    pin_threads(arguments.threads)
    texts = [text(n) for n in range(arguments.units)]
    vectors = DigestEncoder().encode(texts)
    store = langchain_store(texts, vectors, [groups(n) for n in range(arguments.units)])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "index", encoder=DigestEncoder(), levels=("passage",))
        index.add(Document(str(n), t, metadata=groups(n)) for n, t in enumerate(texts))
        for per_cent in GROUPS:
            rows += measure(index, store, vectors, per_cent, arguments)
    report("filtering", rows, arguments)


if __name__ == "__main__":
    main()
