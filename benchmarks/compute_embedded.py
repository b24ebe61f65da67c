"""The embedded pipeline recorded on a multi-hop set, and searches compared on the recording.

    python benchmarks/compute_embedded.py --data DIR --record FILE --limit 60
    python benchmarks/compute_embedded.py --record FILE --seeds 50

The first runs every configuration of `agentmtl.compute.embedded` on every question and writes FILE; the
second plays it back. Every search may cost as much as --trials trials of the dearest configuration. A search
sees a random half of the questions; what is judged is the mean F1 of the recommended configuration on all of
them ÷ the best within the budget.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402

from agentmtl.compute.environment import Bench  # noqa: E402
from agentmtl.compute.recording import Table, read_recording, record  # noqa: E402
from agentmtl.compute.search.base import Setup, run_search  # noqa: E402
from agentmtl.compute.search.language import scripted  # noqa: E402
from agentmtl.compute.search.methods import LANGUAGE, make_searcher  # noqa: E402
from agentmtl.errors import UsageError  # noqa: E402
from agentmtl.evaluate.bootstrap import interval  # noqa: E402

METHODS = (
    "landscape", "random", "equal-split", "tpe", "evolution", "coordinate", "zero-shot", "agent-tts",
)  # fmt: skip


def shares(table: Table, budget: float, limit: float, method: str, seeds: int) -> tuple[list[float], float]:
    """Of every seed the share of the best within the budget; how often the interval holds the mean over all
    questions, of which half were searched."""
    means = table.scores.mean(1)
    inside = [
        c for c in np.ndindex(*(cost.size for cost in table.space.costs)) if table.space.cost(c) <= budget
    ]
    top, found, held = max(means[table.place(c)] for c in inside), [], []
    for seed in range(seeds):
        half = np.random.default_rng(seed).permutation(table.questions)[: table.questions // 2]
        part = table.on(half.tolist())
        chat = scripted(table.space, budget, seed) if method in LANGUAGE else None
        searcher = make_searcher(method, Setup(table.space, part.questions, (budget,), seed), chat)
        run_search(searcher, Bench(part, limit), most=200)
        try:
            best = searcher.recommend(budget)
        except UsageError:  # it measured nothing that the budget allows
            found.append(0.0)
            continue
        found.append(float(means[table.place(best.choice)] / top))
        held.append(best.low <= means[table.place(best.choice)] <= best.high)
    return found, float(np.mean(held)) if held else 0.0


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--record", type=Path, required=True, help="the recording")
    made.add_argument("--data", type=Path, help="a multi-hop set: record the pipeline on it")
    made.add_argument("--indexes", type=Path, default=Path("indexes/eval"))
    made.add_argument("--limit", type=int, default=60, help="questions recorded")
    made.add_argument("--seeds", type=int, default=50)
    made.add_argument("--trials", type=float, default=6.0)
    made.add_argument("--methods", default=",".join(METHODS))
    made.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = made.parse_args()
    if given.data:
        from agentmtl.compute.embedded import embedded

        record(embedded(given.data, given.indexes, given.limit), given.record)
        return
    table = read_recording(given.record)
    dearest = float(sum(cost.max() for cost in table.space.costs))
    budgets = [table.space.cheapest + share * (dearest - table.space.cheapest) for share in (0.15, 0.4, 0.8)]
    limit = given.trials * dearest * (table.questions // 2)
    told: dict[str, Any] = {"command": sys.argv[1:], "budgets": budgets, "methods": {}}
    print("seconds a query " + "".join(f"{b:<24.3f}" for b in budgets))
    for method in given.methods.split(","):
        by = [shares(table, budget, limit, method, given.seeds) for budget in budgets]
        figures = [interval(one, seed=0) for one, _ in by]
        told["methods"][method] = {"share": [f.to_json() for f in figures], "covered": [c for _, c in by]}
        line = "  ".join(f"{f.mean:.3f} [{f.low:.3f}, {f.high:.3f}]" for f in figures)
        print(f"{method:<15} {line}  {'/'.join(f'{c:.2f}' for _, c in by)}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
