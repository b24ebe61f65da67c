"""What a query costs beyond FAISS: `retrieve` with a given vector ÷ `IndexFlatIP.search`.

    python benchmarks/overhead.py [--units 1000 20000 200000] [--queries 100] [--rounds 15] [--json]

The same vectors, the same queries one at a time, k = 10, the dense channel. "Lazy" looks at scores and
addresses only; "texts" reads the ten texts too. LangChain's FAISS store, which keeps its texts in a dict,
takes its turn in the same rounds: called with lists, as its documentation shows, and with numpy arrays.
Raw FAISS and LangChain run with FAISS's own settings, `retrieve` with those that opening an index makes.
All must give the same ten units in the same order before anything is timed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
from timing import (
    DIMENSION,
    FAISS_THRESHOLD,
    DigestEncoder,
    K,
    Row,
    Spread,
    langchain_store,
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

LAZY_TARGETS = {1_000: 2.0, 20_000: 1.1}
TEXT_TARGETS = {1_000: 5.0}
MANY = 20_000  # beyond it a round has fewer queries
Search = Callable[[Any], object]


def text(number: int) -> str:
    return f"unit {number} of the corpus, with a few words of text that a hit shows."


def make_index(folder: Path, units: int) -> Index:
    index = Index.create(folder, encoder=DigestEncoder(), levels=("passage",))
    index.add(Document(str(n), text(n)) for n in range(units))
    return index


def lazily(index: Index) -> Search:
    return lambda vector: index.retrieve(vector, k=K).scores


def with_texts(index: Index) -> Search:
    return lambda vector: [hit.text for hit in index.retrieve(vector, k=K)]


def theirs(store: Any) -> Search:
    return lambda vector: store.similarity_search_by_vector(vector, k=K)


def check_equal(index: Index, raw: Any, store: Any, queries: Vectors) -> None:
    """The same units in the same order from all three."""
    for query in queries:
        wanted = raw.search(query[None], K)[1][0].tolist()
        assert [int(hit.unit.source_id) for hit in index.retrieve(query, k=K)] == wanted
        assert [d.metadata["n"] for d in store.similarity_search_by_vector(query.tolist(), k=K)] == wanted


def measure(units: int, queries: Vectors, arguments: argparse.Namespace) -> list[Row]:
    vectors = DigestEncoder().encode([text(n) for n in range(units)])
    raw = faiss.IndexFlatIP(DIMENSION)
    raw.add(vectors)
    store = langchain_store([text(n) for n in range(units)], vectors, [{"n": n} for n in range(units)])
    with tempfile.TemporaryDirectory() as folder:
        index = make_index(Path(folder) / "index", units)
        check_equal(index, raw, store, queries)
        mine = faiss.cvar.distance_compute_blas_threshold
        lists, arrays, rows = queries.tolist(), list(queries), [query[None] for query in queries]
        candidates = {
            "raw": over(rows, lambda q: raw.search(q, K), FAISS_THRESHOLD),
            "lazy": over(arrays, lazily(index), mine),
            "texts": over(arrays, with_texts(index), mine),
            "LangChain, lists": over(lists, theirs(store), FAISS_THRESHOLD),
            "LangChain, arrays": over(arrays, theirs(store), FAISS_THRESHOLD),
        }
        taken = take_turns(candidates, arguments.rounds, arguments.clock)
    bounds = {"lazy": LAZY_TARGETS.get(units), "texts": TEXT_TARGETS.get(units)}
    each = Spread.of([seconds / len(queries) * 1e6 for seconds in taken["raw"]])
    return [Row(f"{units:,} units: raw FAISS", each, "µs")] + [
        Row(f"{units:,} units: {name} ÷ raw FAISS", ratio(taken, name, "raw"), at_most=bounds.get(name))
        for name in candidates
        if name != "raw"
    ]


def main() -> None:
    options = parser(__doc__, rounds=15)
    options.add_argument("--units", type=int, nargs="+", default=[1_000, 20_000, 200_000])
    options.add_argument("--queries", type=int, default=100, help="a fifth of it beyond 20,000 units")
    arguments = options.parse_args()
    pin_threads(arguments.threads)
    rows: list[Row] = []
    for units in arguments.units:
        count = arguments.queries if units <= MANY else max(1, arguments.queries // 5)
        rows += measure(units, random_queries(count), arguments)
    report("overhead", rows, arguments)


if __name__ == "__main__":
    main()
