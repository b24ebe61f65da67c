"""Which engine holds the words: bm25s, tantivy, SQLite FTS5 or postings of our own.

    python benchmarks/lexical_engines.py [--passages 100000] [--rounds 3] [--data DIR] [--json]

Each engine gets the same passages and the same questions, both already tokenised (lower-cased runs of letters
and digits, each query term once). The exact reference is BM25 in its Lucene form, in float64:
weight = idf * tf / (tf + k1 * (1 - b + b * length / mean length)), idf = ln(1 + (N - n + 0.5) / (n + 0.5)).

Every (engine, round) runs in its own forked process with one thread, the engines taking turns. Besides cost,
two properties are measured once: the index in four pieces, and the index after deleting 1 %, each against a
fresh index of the same live passages built by the same engine. FTS5 takes most of the time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from lexical_candidates import ENGINES, K1, Apart, B, Engine, Hits, Part, Tokens

SEED = 20250
TOP, DEEP = 10, 200  # hits compared; hits of a reference kept, lest ties at rank 10 look like errors
PIECES = 4
SETS = ("2wiki", "hotpotqa", "musique")
BASELINE = "bm25s"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "multihop"

Row: TypeAlias = dict[str, float]


# --- the passages and questions


def tokenise(text: str, seen: dict[str, str]) -> Tokens:
    """Lower-cased runs of letters and digits; equal tokens are one object, which keeps the corpus small."""
    return [seen.setdefault(token, token) for token in re.findall(r"[^\W_]+", text.lower())]


def records(data: Path, name: str) -> Iterator[dict[str, Any]]:
    for folder in SETS:
        with (data / folder / name).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def windows(sentences: list[str]) -> Iterator[str]:
    """Runs of 4, 3, 5, ... neighbouring sentences, at every offset of that width."""
    for width in (4, 3, 5, 6, 7, 8):
        for offset in range(width):
            for i in range(offset, len(sentences) - width + 1, width):
                yield " ".join(sentences[i : i + width])


def passages(data: Path, limit: int) -> list[str]:
    """`limit` distinct texts: the corpora as they are, then windows cut from them; shuffled by SEED."""
    texts = [record["text"] for record in records(data, "corpus.jsonl")]
    sentences = [s for text in texts for s in re.split(r"(?<=[.!?])\s+", text) if s]
    distinct = dict.fromkeys(texts)
    for window in windows(sentences):
        if len(distinct) >= limit:
            break
        distinct.setdefault(window)
    if len(distinct) < limit:
        raise SystemExit(f"only {len(distinct)} distinct passages can be cut; ask for fewer with --passages")
    chosen = list(distinct)[:limit]
    random.Random(SEED).shuffle(chosen)
    return chosen


def load(data: Path, limit: int, questions: int) -> tuple[Part, list[Tokens]]:
    seen: dict[str, str] = {}
    tokens = [tokenise(text, seen) for text in passages(data, limit)]
    asked = [record["question"] for record in records(data, "questions.jsonl")]
    sample = random.Random(SEED).sample(asked, min(questions, len(asked)))
    return Part(list(range(len(tokens))), tokens), [list(dict.fromkeys(tokenise(q, seen))) for q in sample]


# --- the exact reference


def term_counts(corpus: Part, wanted: set[str]) -> dict[str, dict[int, int]]:
    """For every wanted term, how often each passage holds it (plain dictionaries, no engine's code)."""
    counts: dict[str, dict[int, int]] = {term: {} for term in wanted}
    for number, tokens in zip(corpus.numbers, corpus.tokens, strict=True):
        for token in tokens:
            if token in wanted:
                counts[token][number] = counts[token].get(number, 0) + 1
    return counts


def exact(corpus: Part, queries: list[Tokens]) -> list[Hits]:
    """The DEEP best passages of each query under the reference formula."""
    lengths = np.zeros(max(corpus.numbers) + 1)
    lengths[corpus.numbers] = [len(tokens) for tokens in corpus.tokens]
    norms = K1 * (1 - B + B * lengths / lengths[corpus.numbers].mean())
    counts = term_counts(corpus, {token for query in queries for token in query})
    holders = {term: np.fromiter(found, np.int64, len(found)) for term, found in counts.items()}
    weights: dict[str, Any] = {}
    for term, found in counts.items():
        idf = np.log(1 + (len(corpus.numbers) - len(found) + 0.5) / (len(found) + 0.5))
        tf = np.fromiter(found.values(), np.float64, len(found))
        weights[term] = idf * tf / (tf + norms[holders[term]])
    return [deepest(query, holders, weights, len(lengths)) for query in queries]


def deepest(query: Tokens, holders: dict[str, Any], weights: dict[str, Any], size: int) -> Hits:
    scores = np.zeros(size)
    for term in query:
        np.add.at(scores, holders[term], weights[term])
    order = np.lexsort((np.arange(size), -scores))[:DEEP]
    return [(int(n), float(scores[n])) for n in order if scores[n] > 0]


# --- comparing rankings


@dataclass(frozen=True)
class Agreement:
    """`hits`: share of the top 10 that belongs there (or ties); `error`: largest relative score gap."""

    hits: float
    error: float

    @classmethod
    def of(cls, found: list[Hits], reference: list[Hits]) -> Agreement:
        pairs = list(zip(found, reference, strict=True))
        shares = [share_of_top(hits[:TOP], deep) for hits, deep in pairs]
        errors = [score_error(hits[:TOP], deep[:TOP]) for hits, deep in pairs]
        return cls(statistics.mean(shares), max(errors))


def share_of_top(hits: Hits, reference: Hits) -> float:
    last = reference[:TOP][-1][1]
    belongs = {number for number, score in reference if score >= last * (1 - 1e-6)}
    return sum(number in belongs for number, _ in hits) / len(reference[:TOP])


def score_error(hits: Hits, reference: Hits) -> float:
    """Rank by rank, relative: unlike passage by passage it needs no score of what one side did not return."""
    if len(hits) != len(reference):
        return 1.0
    return max(abs(a - b) / b for (_, a), (_, b) in zip(hits, reference, strict=True))


# --- measuring


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed in a forked process: no engine inherits another's memory or threads."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(work, send))
    child.start()
    send.close()
    try:
        return receive.recv()
    except EOFError as error:
        raise SystemExit("a measuring process ended without a result; its error is above") from error
    finally:
        child.join()


def _send(work: Callable[[], Any], send: Connection) -> None:
    send.send(work())
    send.close()


def resident() -> int:
    """Bytes of this process in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def built(engine: Engine, folder: Path, parts: list[Part]) -> Engine:
    folder.mkdir(parents=True)
    engine.build(folder, parts)
    engine.open(folder)
    return engine


def rankings(engine: Engine, queries: list[Tokens], k: int = DEEP) -> list[Hits]:
    return [engine.search(query, k) for query in queries]


def cost(name: str, corpus: Part, queries: list[Tokens]) -> Row:
    """Build, size and latency, after a small build and search that pay for imports and compilation."""
    with tempfile.TemporaryDirectory() as base:
        rankings(built(ENGINES[name](), Path(base, "warm"), [corpus.split(100)[0]]), queries[:5], 5)
        before, started = resident(), time.perf_counter()
        Path(base, "index").mkdir()
        ENGINES[name]().build(Path(base, "index"), [corpus])
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        engine = ENGINES[name]()
        engine.open(Path(base, "index"))
        return {
            "build_us_per_passage": seconds / len(corpus.numbers) * 1e6,
            "build_extra_rss_mb": max(0, peak) / 1e6,
            "disk_mb": folder_bytes(Path(base, "index")) / 1e6,
            "query_ms": latency(engine, queries),
        }


def latency(engine: Engine, queries: list[Tokens]) -> float:
    """Median milliseconds of one query for its top 10, after 50 untimed ones."""
    rankings(engine, queries[:50], TOP)
    times = []
    for query in queries:
        started = time.perf_counter()
        engine.search(query, TOP)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def properties(name: str, corpus: Part, queries: list[Tokens], reference: list[Hits]) -> Row:
    """Agreement with the reference, and of a split and a thinned index with a fresh one of the engine."""
    make = ENGINES[name]
    removed = set(random.Random(SEED).sample(corpus.numbers, max(1, len(corpus.numbers) // 100)))
    gone, live = corpus.where(removed.__contains__), corpus.where(lambda number: number not in removed)
    with tempfile.TemporaryDirectory() as base:
        thinned = built(make(), Path(base, "one"), [corpus])
        fresh = rankings(thinned, queries)
        segments = rankings(built(make(), Path(base, "segments"), corpus.split(PIECES)), queries, TOP)
        apart = rankings(built(Apart(make), Path(base, "apart"), corpus.split(PIECES)), queries, TOP)
        thinned.delete(gone)
        after = rankings(thinned, queries, TOP)
        fresh_live = rankings(built(make(), Path(base, "live"), [live]), queries)
    compared = {
        "exact": Agreement.of(fresh, reference),
        "segments": Agreement.of(segments, fresh),
        "apart": Agreement.of(apart, fresh),
        "deleted": Agreement.of(after, fresh_live),
    }
    row = {f"{key}_hits": value.hits for key, value in compared.items()}
    return row | {f"{key}_error": value.error for key, value in compared.items()}


def measure(names: list[str], corpus: Part, queries: list[Tokens], rounds: int) -> dict[str, list[Row]]:
    """One Row of costs for every engine and round; each round starts with another engine."""
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            rows[name].append(in_child(lambda name=name: cost(name, corpus, queries)))  # type: ignore[misc]
            print(f"round {i + 1}/{rounds} {name}", file=sys.stderr)
    return rows


# --- reporting


def summarise(rows: dict[str, list[Row]]) -> dict[str, dict[str, dict[str, float]]]:
    """Median, least and greatest of each cost, and the median of the same round's ratio to the baseline."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, rounds in rows.items():
        table[name] = {}
        for key in rounds[0]:
            values = [row[key] for row in rounds]
            ratios = [row[key] / base[key] for row, base in zip(rounds, rows[BASELINE], strict=True)]
            spread = {"median": statistics.median(values), "low": min(values), "high": max(values)}
            table[name][key] = {**spread, "ratio": statistics.median(ratios)}
    return table


def print_table(costs: dict[str, dict[str, dict[str, float]]], facts: dict[str, Row]) -> None:
    print(f"Costs: median of the rounds [least, greatest] (ratio to {BASELINE})")
    for key in next(iter(costs.values())):
        print(f"\n  {key}")
        for name, row in costs.items():
            print("    {:12} {median:9.2f} [{low:.2f}, {high:.2f}] ({ratio:.2f}x)".format(name, **row[key]))
    print("\nTop-10 share / largest relative score error")
    print("  exact: one index against the reference; then, against a fresh index of the same engine,")
    print("  segments: four of the engine's own; apart: four folders; deleted: after deleting 1 %\n")
    columns = ("exact", "segments", "apart", "deleted")
    print("  engine      " + "".join(f"{column:>22}" for column in columns))
    for name, fact in facts.items():
        cells = [f"{fact[c + '_hits']:.4f} / {fact[c + '_error']:.1e}" for c in columns]
        print(f"  {name:12}" + "".join(f"{cell:>22}" for cell in cells))


def arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--data", type=Path, default=DATA, help="the folder that holds " + ", ".join(SETS))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    names = list(dict.fromkeys([BASELINE, *options.engines]))
    corpus, queries = load(options.data, options.passages, options.questions)
    mean = statistics.mean(map(len, corpus.tokens))
    setting = {"seed": SEED, "passages": len(corpus.numbers), "questions": len(queries), "tokens_mean": mean}
    setting["rounds"] = options.rounds
    reference = exact(corpus, queries)
    costs = summarise(measure(names, corpus, queries, options.rounds))
    facts: dict[str, Row] = {}
    for name in names:
        facts[name] = in_child(lambda name=name: properties(name, corpus, queries, reference))  # type: ignore[misc]
        print(f"properties {name}", file=sys.stderr)
    if options.json:
        report = {"schema": 1, "setting": setting, "costs": costs, "properties": facts}
        print(json.dumps(report))
        return
    print(setting)
    print_table(costs, facts)


if __name__ == "__main__":
    main()
