"""What the heads cost: reranking, judging chains, and a whole answer stage by stage.

    python benchmarks/heads.py --data ../shared/data/multihop/2wiki [--indexes DIR] [--rounds 5] [--json]

The questions of the set, one at a time, over its index (that of `agentmtl eval multihop`, built where it is
not there). Reranking is of twenty passages of at most 128 tokens, and of twenty sentences, against the same
head in torch at full precision. An answer is that of `agentmtl ask` with its defaults, two hops.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from timing import FAISS_THRESHOLD, Row, Spread, over, parser, ratio, report, take_turns

from agentmtl.agent.agent import Agent
from agentmtl.evaluate.datasets import read_multihop
from agentmtl.evaluate.indexes import index_for
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.hops import HopSettings, search_hops
from agentmtl.retrieval.hops.judge import load_judge
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.rerank import DEPTH, Reranker, load_reranker
from agentmtl.schema import Unit

LONGEST = 128  # tokens of a passage that is reranked
_WORDS_A_TOKEN = 0.75


def reranking(index: Index, questions: Sequence[str], head: Path | None, rounds: int) -> list[Row]:
    """Milliseconds of reading twenty passages, and twenty sentences, with each question."""
    fast, slow = load_reranker(head), load_reranker(head, "torch-fp32")
    rows = []
    for level, limit in (("passage", 100.0), ("sentence", 40.0)):
        found = [index.retrieve(q, level=level, k=3 * DEPTH) for q in questions]  # type: ignore[arg-type]
        units = [_short(hits) for hits in found]
        pairs = [(q, mine) for q, mine in zip(questions, units, strict=True) if len(mine) == DEPTH]

        def read(reranker: Reranker, pairs: Sequence[tuple[str, list[Unit]]] = tuple(pairs)) -> None:
            for question, mine in pairs:
                reranker.score(question, mine)

        taken = take_turns({"fast": lambda: read(fast), "torch": lambda: read(slow)}, rounds)
        each = [1000 * seconds / len(pairs) for seconds in taken["fast"]]
        rows += [
            Row(f"reranking {DEPTH} {level}s", Spread.of(each), "ms", at_most=limit),
            Row(f"the same ÷ torch at full precision ({level}s)", ratio(taken, "fast", "torch")),
        ]
    return rows


def _short(hits: Hits) -> list[Unit]:
    return [hit.unit for hit in hits if len(hit.text.split()) <= LONGEST * _WORDS_A_TOKEN][:DEPTH]


def judging(index: Index, questions: Sequence[str], head: Path | None, rounds: int) -> list[Row]:
    """What reading the beam's chains adds to the hop search."""
    judge, retriever = load_judge(head), index.retriever
    if judge is None:
        raise SystemExit("No hops head is installed: give --judge DIR.")
    settings = {"without": HopSettings(), "with": HopSettings(judge=judge)}
    taken = take_turns(
        {
            name: over(
                questions,
                lambda q, s=s: list(search_hops(retriever, q, k=10, settings=s).hits),  # type: ignore[misc]
                FAISS_THRESHOLD,
            )
            for name, s in settings.items()
        },
        rounds,
    )
    each = {name: [1000 * t / len(questions) for t in seconds] for name, seconds in taken.items()}
    added = [a - b for a, b in zip(each["with"], each["without"], strict=True)]
    return [
        Row("judging adds, a question", Spread.of(added), "ms", at_most=60.0),
        Row("hop search without it", Spread.of(each["without"]), "ms"),
    ]


def asking(index: Index, questions: Sequence[str], expert: str, judge: str, rounds: int) -> list[Row]:
    """Milliseconds of whole answers: the median question of each round, and its stages' medians."""
    agent = Agent(index, expert=expert, judge=judge)
    agent.ask(questions[0])
    whole, stages = list[float](), dict[str, list[float]]()
    for _ in range(rounds):
        took, parts = list[float](), dict[str, list[float]]()
        for question in questions:
            started = time.perf_counter()
            answer = agent.ask(question)
            took.append(1000 * (time.perf_counter() - started))
            for step in answer.trace:
                if "seconds" in step:
                    parts.setdefault(str(step["step"]), []).append(1000 * float(step["seconds"]))
        whole.append(statistics.median(took))
        for name, values in parts.items():
            stages.setdefault(name, []).append(statistics.median(values))
    return [
        Row("whole ask, the median question", Spread.of(whole), "ms", at_most=350.0),
        *(
            Row(f"of it: {name}", Spread.of(values), "ms")
            for name, values in stages.items()
            if name != "sample"
        ),
    ]


def main() -> None:
    options = parser(__doc__, rounds=5, threads=2)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--indexes", type=Path, default=Path("indexes") / "eval")
    options.add_argument("--reranker", type=Path, help="a head's folder; the shipped one without it")
    options.add_argument("--judge", type=Path, help="the same, of the hops head")
    options.add_argument("--expert", default="auto", help="auto, or the folder of a reader's head")
    arguments: argparse.Namespace = options.parse_args()
    data = read_multihop(arguments.data)
    index = index_for(data, arguments.indexes)
    index.add_stream()
    questions = [q.question for q in data.questions]
    judge = str(arguments.judge) if arguments.judge else "none"
    rows = [
        *reranking(index, questions, arguments.reranker, arguments.rounds),
        *judging(index, questions, arguments.judge, arguments.rounds),
        *asking(index, questions, arguments.expert, judge, arguments.rounds),
    ]
    report("heads", rows, arguments)


if __name__ == "__main__":
    main()
