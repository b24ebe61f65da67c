"""Allocations by guessed difficulty against one for all questions.

    python benchmarks/compute_difficulty.py --record FILE --data DIR --limit N
    python benchmarks/compute_difficulty.py --mmlu FILE

FILE as `compute_embedded.py --data DIR --record FILE --limit N` wrote it: the questions are read again for
their vectors. Every round fits on a random half of the questions and judges the mean F1 on the other half, at
the same mean expected cost. Beside the vectors of the trunk: vectors dealt out anew (what mixing two
configurations alone brings) and the true ease of every question (what perfect guesses would bring).

With RouteLLM's answers to MMLU (train split, five folds; the test split is not read): a weak and a strong
model, and how much of the gap between them a share of calls to the strong one recovers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.compute.difficulty import ByDifficulty, Effects, by_difficulty, level_qualities
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.recording import Table, read_recording
from agentmtl.compute.space import Choice, Floats, Space
from agentmtl.evaluate.bootstrap import interval
from agentmtl.evaluate.datasets import answered, read_set
from agentmtl.evaluate.routing import Prompts, read_prompts
from agentmtl.schema import Stage
from agentmtl.trunk import load_encoder

SHARES = (0.25, 0.5, 0.75)  # of calls to the strong model
KINDS = ("guessed", "dealt out", "true")


def best_for_all(table: Table, half: list[int], choices: list[Choice], budget: float) -> Choice:
    """By the same shrunken qualities, one configuration within the budget."""
    scores = table.scores[:, half]
    values, _ = level_qualities(Effects.of(scores), np.zeros(len(half), np.int64), 1)
    inside = [n for n, choice in enumerate(choices) if table.space.cost(choice) <= budget]
    return choices[max(inside, key=lambda n: values[0, n])]


def judged(table: Table, found: ByDifficulty, vectors: Floats, questions: list[int]) -> tuple[Floats, float]:
    """Of every question the score of its level's configuration; the mean expected cost."""
    picked = [table.space.choice(found.allocations[found.level(vectors[q])]) for q in questions]
    scores = [table.scores[table.place(choice), q] for choice, q in zip(picked, questions, strict=True)]
    return np.array(scores), float(np.mean([table.space.cost(choice) for choice in picked]))


def recorded(record: Path, data: Path, limit: int, levels: int, rounds: int) -> dict[str, Any]:
    """The gains over one allocation for all, at three budgets."""
    table = read_recording(record)
    questions = answered(read_set(data), limit, 0)
    encoded = load_encoder("default").encode([q.question for q in questions], "query").astype(np.float64)
    choices = list(np.ndindex(*(cost.size for cost in table.space.costs)))
    dearest = float(sum(cost.max() for cost in table.space.costs))
    ease, told = Effects.of(table.scores).ease[:, None], {}
    for share in (0.15, 0.4, 0.8):
        budget = table.space.cheapest + share * (dearest - table.space.cheapest)
        gains: dict[str, list[float]] = {name: [] for name in KINDS}
        costs: dict[str, list[float]] = {name: [] for name in KINDS}
        flat, explained = [], []
        for seed in range(rounds):
            rng = np.random.default_rng(seed)
            order = rng.permutation(table.questions).tolist()
            half, rest = order[: len(order) // 2], order[len(order) // 2 :]
            one = best_for_all(table, half, choices, budget)
            alone = table.scores[table.place(one), rest]
            flat.append(float(alone.mean()))
            runs = {(c, q): float(table.scores[table.place(c), q]) for c in choices for q in half}
            for name, vectors in zip(KINDS, (encoded, rng.permutation(encoded), ease), strict=True):
                found = by_difficulty(table.space, runs, vectors, budget, levels)
                scores, cost = judged(table, found, vectors, rest)
                gains[name].append(float(scores.mean() - alone.mean()))
                costs[name].append(cost - table.space.cost(one))
                if name == "guessed":
                    explained.append(found.difficulty.explained)
        print(f"{budget:.3f} s: one for all {np.mean(flat):.3f}, foreseen {np.mean(explained):+.3f}")
        for name, gain in gains.items():
            mean = interval(gain, seed=0)
            bounds = f"[{mean.low:+.3f}, {mean.high:+.3f}]"
            print(f"  {name:<10} {mean.mean:+.3f} {bounds}, cost {np.mean(costs[name]):+.3f} s", flush=True)
        told[f"{budget:.3f}"] = {name: interval(gain, seed=0).to_json() for name, gain in gains.items()}
    return told


def mmlu(prompts: Prompts, levels: int, folds: int = 5) -> dict[str, Any]:
    """Of every share of strong calls the recovered part of the gap, with its bootstrap interval."""
    stage = Stage("answer", ("weak", "strong"), (1,), "majority")
    space = Space(Pipeline("mmlu", (stage,), unit="calls", combine="end"), (np.array([[0.0], [1.0]]),))
    fold = np.random.default_rng(0).permutation(len(prompts.texts)) % folds
    both = np.stack([prompts.weak, prompts.strong]).astype(float)
    gap, told = float(both[1].mean() - both[0].mean()), {}
    for share in SHARES:
        sent = np.zeros(len(fold), bool)
        for number in range(folds):
            seen, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            runs: dict[tuple[Choice, int], float] = {
                ((m,), i): float(both[m, q]) for m in (0, 1) for i, q in enumerate(seen)
            }
            found = by_difficulty(space, runs, prompts.vectors[seen], share, levels)
            strong = [one.of("answer").model == "strong" for one in found.allocations]
            sent[held] = [strong[found.level(v)] for v in prompts.vectors[held]]
        gain = interval(((both[1] - both[0]) * sent / gap).tolist(), seed=0)
        told[str(share)] = {"recovered": gain.to_json(), "sent": float(sent.mean())}
        bounds = f"[{gain.low:.3f}, {gain.high:.3f}]"
        print(f"strong {share:.2f}: recovered {gain.mean:.3f} {bounds} with {sent.mean():.3f}", flush=True)
    return told


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--record", type=Path)
    made.add_argument("--data", type=Path)
    made.add_argument("--limit", type=int, default=60)
    made.add_argument("--mmlu", type=Path, help="routellm-mmlu.jsonl instead")
    made.add_argument("--levels", type=int, default=0, help="default: 3, of MMLU 20")
    made.add_argument("--rounds", type=int, default=50)
    made.add_argument("--indexes", type=Path, default=Path("indexes/routing"), help="MMLU's vectors")
    made.add_argument("--out", type=Path)
    given = made.parse_args()
    told: dict[str, Any] = {"command": sys.argv[1:]}
    if given.mmlu:
        encoder = load_encoder("default")
        prompts = read_prompts(given.mmlu, encoder, given.indexes)["train"]
        told["mmlu"] = mmlu(prompts, given.levels or 20)
    else:
        told["budgets"] = recorded(given.record, given.data, given.limit, given.levels or 3, given.rounds)
    if given.out:
        given.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
