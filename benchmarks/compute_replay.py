"""Searches compared on recorded traces: AIME 2024, AIME 2025 and a mix of both as the stages of a pipeline.

    python benchmarks/compute_replay.py --data DIR --seeds 50

DIR holds qwen3-{0.6b,1.7b,4b,8b}-{aime24,aime25}.json as in github.com/zhengkid/AutoTTS. The third stage is
the first 15 questions of one set with the last 15 of the other; the score is the product of the stages'
accuracies, a budget is in FLOPs a query, and the optimum is known exactly. Every search may cost --limit
PFLOP: `racing`, `nested` and `equal-split` once for all budgets, the others as much for each of them. By
default a trial of those draws samples of its own, as searches of whole configurations do; with --reuse they
share samples too, and end after 200 trials.

What is judged is the true score of the recommended configuration ÷ the true optimum; on halves, a search on
half of every stage's questions, judged on the others, beside an oracle that knows the first half exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy: this shares its machine
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402

from agentmtl.compute.environment import Bench, quality_of  # noqa: E402
from agentmtl.compute.knapsack import solve  # noqa: E402
from agentmtl.compute.replay import Recorded, Replay, compose, read_traces  # noqa: E402
from agentmtl.compute.search.base import Recommendation, Searcher, Setup, run_search  # noqa: E402
from agentmtl.compute.search.language import scripted  # noqa: E402
from agentmtl.compute.search.methods import LANGUAGE, METHODS, make_searcher  # noqa: E402
from agentmtl.compute.space import Floats, Space  # noqa: E402
from agentmtl.evaluate.bootstrap import Interval, interval  # noqa: E402

SIZES = {"0.6b": 0.6e9, "1.7b": 1.7e9, "4b": 4e9, "8b": 8e9}
BUDGETS = (300e12, 1500e12, 2500e12)
JOINT = ("racing", "nested", "equal-split")  # one search serves every budget
TRIALS = 200  # at most, where samples that are there cost nothing again


def composite(folder: Path) -> Recorded:
    """The three stages."""
    read = {(m, s): read_traces(folder / f"qwen3-{m}-{s}.json") for m in SIZES for s in ("aime24", "aime25")}
    stages = {s: [read[m, s] for m in SIZES] for s in ("aime24", "aime25")}
    stages["mix"] = [read[m, "aime24"][:15].followed_by(read[m, "aime25"][15:]) for m in SIZES]
    return compose(stages, {read[m, "aime24"].model: size for m, size in SIZES.items()}, name="composite")


@dataclass(frozen=True, slots=True)
class Judged:
    """Of one seed: for every budget the share of the optimum, whether the interval holds the true score, and
    how many choices are tied; and what the dearest search cost."""

    shares: tuple[float, ...]
    covered: tuple[bool, ...]
    tied: tuple[int, ...]
    spent: float
    seconds: float
    asked: int


@dataclass(frozen=True, slots=True)
class World:
    """What is searched on, and what is judged by."""

    searched: Recorded
    space: Space
    own: list[Floats]  # the truth on the questions searched
    judged: list[Floats]  # and on those judged

    def optimum(self, truth: list[Floats], budget: float) -> float:
        solved = solve(self.space.costs, truth)
        return float(solved.values[solved.at(budget)])

    def oracle(self, budget: float) -> float:
        """The share that the best choice on the questions searched reaches on those judged."""
        choice = solve(self.space.costs, self.own).choice(budget)
        assert choice is not None
        return quality_of(self.space, choice, self.judged) / self.optimum(self.judged, budget)


def halves(recorded: Recorded, seed: int) -> World:
    """A random half of each 15 questions to search on, the others to judge by."""
    rng = np.random.default_rng([seed, 97])
    picked = sorted(int(q) for part in (0, 15) for q in part + rng.permutation(15)[: 7 + (part > 0)])
    rest = [q for q in range(recorded.questions) if q not in picked]
    one, other = recorded.on(picked), recorded.on(rest)
    return World(one, recorded.space(), one.truth(), other.truth())


def judge(world: World, method: str, seed: int, limit: float, reuse: bool) -> Judged:
    """One seed of one method."""
    started, spent, asked = time.perf_counter(), 0.0, 0
    found: list[Recommendation] = []
    for budgets in [BUDGETS] if method in JOINT else [(b,) for b in BUDGETS]:
        setup = Setup(world.space, world.searched.questions, budgets, seed)
        chat = scripted(world.space, budgets[0], seed) if method in LANGUAGE else None
        searcher: Searcher = make_searcher(method, setup, chat)
        bench = Bench(Replay(world.searched, seed, world.space), limit, reuse=reuse or method in JOINT)
        asked += run_search(searcher, bench, most=TRIALS)
        spent = max(spent, bench.spent)
        found += [searcher.recommend(budget) for budget in budgets]
    scores = [quality_of(world.space, r.choice, world.judged) for r in found]
    own = [quality_of(world.space, r.choice, world.own) for r in found]
    return Judged(
        tuple(s / world.optimum(world.judged, b) for s, b in zip(scores, BUDGETS, strict=True)),
        tuple(r.low <= score <= r.high for r, score in zip(found, own, strict=True)),
        tuple(len(r.tied) for r in found), spent, time.perf_counter() - started, asked,
    )  # fmt: skip


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Means over seeds, with 95 % bootstrap intervals of the shares."""
    shares = [interval([j.shares[n] for j in judged], seed=0) for n in range(len(BUDGETS))]
    return {
        "share": [one.to_json() for one in shares],
        "covered": [float(np.mean([j.covered[n] for j in judged])) for n in range(len(BUDGETS))],
        "tied": [float(np.mean([j.tied[n] for j in judged])) for n in range(len(BUDGETS))],
        "pflop": float(np.mean([j.spent for j in judged])) / 1e15,
        "most pflop": max(j.spent for j in judged) / 1e15,
        "seconds": float(np.mean([j.seconds for j in judged])),
        "asked": float(np.mean([j.asked for j in judged])),
    }


def line(name: str, told: dict[str, Any]) -> str:
    shares = "  ".join(f"{s['mean']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in told["share"])
    covered = "/".join(f"{c:.2f}" for c in told["covered"])
    return f"{name:<14}{shares}  {covered}  {told['pflop']:6.1f}  {told['seconds']:6.2f} s"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="folder of the recordings")
    made.add_argument("--seeds", type=int, default=50)
    made.add_argument("--limit", type=float, default=180, help="PFLOP a search")
    made.add_argument("--methods", default=",".join(m for m in METHODS if m not in ("gp", "brute-force")))
    made.add_argument(
        "--halves", action="store_true", help="search on half of the questions, judge on the rest"
    )
    made.add_argument("--reuse", action="store_true", help="every search shares samples between its trials")
    made.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = made.parse_args()
    recorded = composite(given.data)
    truth = recorded.truth()
    whole = World(recorded, recorded.space(), truth, truth)
    worlds = [halves(recorded, s) if given.halves else whole for s in range(given.seeds)]
    told: dict[str, Any] = {"optimum": [whole.optimum(truth, b) for b in BUDGETS], "methods": {}}
    print("budget (TFLOP) " + "".join(f"{b / 1e12:<24.0f}" for b in BUDGETS) + "interval holds  PFLOP")
    if given.halves:
        oracle = [interval([w.oracle(b) for w in worlds], seed=0) for b in BUDGETS]
        told["oracle"] = [one.to_json() for one in oracle]
        print(f"{'oracle':<14}" + "  ".join(f"{o.mean:.3f} [{o.low:.3f}, {o.high:.3f}]" for o in oracle))
    first: list[Judged] = []
    for method in given.methods.split(","):
        judged = [judge(w, method, s, given.limit * 1e15, given.reuse) for s, w in enumerate(worlds)]
        told["methods"][method] = summary(judged)
        if method == given.methods.split(",")[0]:
            first = judged
        else:
            told["methods"][method]["behind"] = [d.to_json() for d in behind(first, judged)]
        print(line(method, told["methods"][method]), flush=True)
        if given.out:
            given.out.write_text(
                json.dumps({"command": sys.argv[1:], "seeds": given.seeds, **told}, indent=1)
            )


def behind(first: Sequence[Judged], other: Sequence[Judged]) -> list[Interval]:
    """By how much a method is behind the first, seed by seed."""
    pairs = list(zip(first, other, strict=True))
    return [interval([a.shares[n] - b.shares[n] for a, b in pairs], seed=0) for n in range(len(BUDGETS))]


if __name__ == "__main__":
    main()
