"""What several hops cost: `search_hops` ÷ one query encoding and one fused search.

    python benchmarks/hops.py --data ../shared/data/multihop/2wiki [--indexes DIR] [--rounds 5] [--json]

The questions of the set, one at a time, the encoder inside the time on both sides, ten hits with their texts.
The index is that of `agentmtl eval multihop`, built where it is not there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from timing import FAISS_THRESHOLD, Row, Spread, over, parser, ratio, report, take_turns

from agentmtl.evaluate.datasets import read_multihop
from agentmtl.evaluate.indexes import index_for
from agentmtl.retrieval.hops import HopSettings, search_hops


def main() -> None:
    options = parser(__doc__, rounds=5, threads=2)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--indexes", type=Path, default=Path("indexes") / "eval")
    arguments: argparse.Namespace = options.parse_args()
    data = read_multihop(arguments.data)
    index = index_for(data, arguments.indexes)
    index.add_stream()
    retriever, questions = index.retriever, [q.question for q in data.questions]
    three = HopSettings(hops=3)
    taken = take_turns(
        {
            "fused": over(questions, lambda q: list(retriever.retrieve(q, k=10)), FAISS_THRESHOLD),
            "two": over(questions, lambda q: list(search_hops(retriever, q, k=10).hits), FAISS_THRESHOLD),
            "three": over(
                questions,
                lambda q: list(search_hops(retriever, q, k=10, settings=three).hits),
                FAISS_THRESHOLD,
            ),
        },
        arguments.rounds,
    )
    each = [1000 * seconds / len(questions) for seconds in taken["two"]]
    single = [1000 * seconds / len(questions) for seconds in taken["fused"]]
    rows = [
        Row("two hops ÷ one encoding and one fused search", ratio(taken, "two", "fused"), at_most=5.0),
        Row("three hops ÷ the same", ratio(taken, "three", "fused")),
        Row("two hops, a question", Spread.of(each), "ms"),
        Row("one encoding and one fused search", Spread.of(single), "ms"),
    ]
    report("hops", rows, arguments)


if __name__ == "__main__":
    main()
