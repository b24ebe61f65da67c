"""Trained retrievers of demonstrations side by side, by the voter of eight.

    python benchmarks/demonstration_heads.py --data DIR --heads A B … [--limit 400] [--pool 3000]
    python benchmarks/demonstration_heads.py --data DIR --heads A B … --kept-out
    python benchmarks/demonstration_heads.py --data DIR --tables FILE …

A head is a folder, or a folder of folders that are called like the tasks: each then is measured on its own
task. Beside them the trunk's vectors and words (BM25). Every task's examples are the first `--pool` of its
training file in an order drawn by the seed, its inputs `--limit` of its test file; examples are ranked
exactly. Intervals are paired, over test inputs, of the mean over tasks. `--kept-out`: each head only on tasks
that its card does not name, against the trunk there. "A or trunk": what an index takes of the two, by its
examples alone (`agentmtl.retrieval.example_encoder`). `--write` keeps what was predicted, for `--tables`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np

from agentmtl.evaluate.bootstrap import Floats, Interval, bounds, mean_of
from agentmtl.evaluate.datasets import sample
from agentmtl.evaluate.demonstrations import CARD, TaskData, read_task
from agentmtl.experts.demonstrations import option_votes
from agentmtl.learn.bank_recipe import remembering
from agentmtl.retrieval.example_encoder import ASKED, compared
from agentmtl.retrieval.voting import STRENGTH, VOTERS, kernel_weights, tally
from agentmtl.schema import Demonstration
from agentmtl.tasks import instructed
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.head_network import HeadNetwork, open_head
from agentmtl.trunk.headed import embed

KINDS = ("classification", "multiple_choice")
RESAMPLES = 2_000
TRUNK, WORDS = "trunk", "words"

Encode = Callable[[Sequence[str]], Vectors]
Ranking = list[list[tuple[int, float]]]  # for every input the nearest examples and their scores
Tables = dict[str, dict[str, list[float]]]  # task → method → a score for every input


def drawn(
    data: TaskData, pool: int, limit: int, seed: int
) -> tuple[list[Demonstration], list[Demonstration]]:
    """A task's examples and its inputs."""
    shown = list(data.train)
    Random(f"demonstration heads:{data.task.name}:{seed}").shuffle(shown)
    return shown[:pool], list(sample(data.test, limit, seed))


def by_vectors(shown: Vectors, asked: Vectors) -> Ranking:
    """By cosine."""
    scores = asked @ shown.T
    near = np.argsort(-scores, axis=1, kind="stable")[:, :VOTERS]
    return [[(int(n), float(row[n])) for n in found] for row, found in zip(scores, near, strict=True)]


def by_words(shown: Sequence[str], asked: Sequence[str]) -> Ranking:
    """By BM25, as bm25s computes it."""
    import bm25s

    engine = bm25s.BM25()
    engine.index(bm25s.tokenize(list(shown), show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(asked), show_progress=False)
    places, scores = engine.retrieve(tokens, k=VOTERS, show_progress=False)
    return [
        [(int(n), float(s)) for n, s in zip(*row, strict=True)] for row in zip(places, scores, strict=True)
    ]


def right(
    data: TaskData,
    shown: Sequence[Demonstration],
    asked: Sequence[Demonstration],
    near: Ranking,
    compare: Encode,
) -> list[float]:
    """Whether each input is answered rightly by its eight examples; options are compared by `compare`."""
    found = []
    for one, examples in zip(asked, near, strict=True):
        if data.task.kind == "multiple_choice":
            votes = option_votes(one.input, one.choices, [shown[n] for n, _ in examples], compare)
        else:
            weights = kernel_weights([score for _, score in examples], STRENGTH)
            votes = tally([shown[n].output for n, _ in examples], weights)
        found.append(float(max(votes, key=lambda output: (votes[output], output)) == one.output))
    return found


class Heads:
    """Heads by name, opened when they are needed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._open: dict[Path, HeadNetwork] = {}

    def of(self, task: str, kept_out: bool) -> Iterator[tuple[str, HeadNetwork]]:
        """Those that are measured on a task."""
        for folder in self.folders:
            mine = folder if (folder / CARD).is_file() else folder / task
            if not (mine / CARD).is_file():
                continue
            if mine not in self._open:
                self._open[mine] = open_head(mine)
            if not kept_out or task not in self._open[mine].head.card.data:
                yield str(folder), self._open[mine]


def preferred(data: TaskData, shown: Sequence[Demonstration], head: Vectors, trunk: Vectors) -> bool:
    """Whether an index would have the head read these examples, which are in random order."""
    outputs = [d.output for d in shown[:ASKED]]
    return (
        data.task.kind == "classification"
        and compared(head[:ASKED], trunk[:ASKED], outputs, exact=True).by == "head"
    )


def measured(folder: Path, heads: Heads, args: argparse.Namespace) -> dict[str, list[float]]:
    """A task's table."""
    data = read_task(folder)
    shown, asked = drawn(data, args.pool, args.limit, args.seed)
    texts, inputs = [d.input for d in shown], [d.input for d in asked]
    trunk = remembering(load_encoder("default").encode)  # options are compared for every method
    plain = trunk(texts)
    near = {TRUNK: by_vectors(plain, trunk(inputs)), WORDS: by_words(texts, inputs)}
    for name, network in heads.of(data.task.name, args.kept_out):
        task = data.task if network.head.card.calibration.get("instruct") else None
        vectors = [embed(network, [instructed(task, text) for text in side]) for side in (texts, inputs)]
        near[name] = by_vectors(*vectors)
        near[f"{name} or trunk"] = near[name if preferred(data, shown, vectors[0], plain) else TRUNK]
    return {name: right(data, shown, asked, found, trunk) for name, found in near.items()}


def over_tasks(columns: Sequence[Floats], seed: int) -> Interval:
    """The mean over tasks of each one's mean, and its interval."""
    rng = np.random.default_rng(seed)
    draws = np.mean([mean_of(column).draws(rng, RESAMPLES) for column in columns], axis=0)
    return bounds(float(np.mean([column.mean() for column in columns])), draws)


def differences(tables: Tables, seed: int) -> Iterator[tuple[str, str, int, Interval]]:
    """Of every pair of methods over the tasks that both have, in points."""
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    for n, a in enumerate(names):
        for b in names[:n]:
            both = [table for table in tables.values() if a in table and b in table]
            if both:
                columns = [np.array(table[a]) - np.array(table[b]) for table in both]
                yield a, b, len(both), over_tasks([100 * column for column in columns], seed)


def told(tables: Tables, seed: int) -> Iterator[str]:
    """Lines to print."""
    for task, table in tables.items():
        yield f"{task:<18}" + "  ".join(f"{name} {np.mean(column):.3f}" for name, column in table.items())
    for a, b, count, found in differences(tables, seed):
        yield f"{a} - {b}, {count} tasks: {found.mean:+.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--heads", type=Path, nargs="*", default=[])
    parser.add_argument("--tasks", nargs="*", default=[], help="only these")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--pool", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept-out", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--tables", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    tables: Tables = {}
    for path in args.tables:
        for task, table in json.loads(path.read_text("utf-8")).items():
            tables[task] = tables.get(task, {}) | table
    heads = Heads(args.heads)
    for card in [] if args.tables else sorted(args.data.glob(f"*/{CARD}")):
        kind = json.loads(card.read_text("utf-8")).get("kind")
        if kind in KINDS and (not args.tasks or card.parent.name in args.tasks):
            tables[card.parent.name] = measured(card.parent, heads, args)
            print(f"{card.parent.name} measured", file=sys.stderr, flush=True)
            if args.write:
                args.write.write_text(json.dumps(tables), "utf-8")
    drawn_as = (
        "as drawn before" if args.tables else f"{args.limit} inputs, {args.pool} examples a task at most"
    )
    print(f"seed {args.seed}, {drawn_as}, k = {VOTERS}")
    for line in told(tables, args.seed):
        print(line)


if __name__ == "__main__":
    main()
