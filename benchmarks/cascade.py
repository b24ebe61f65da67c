"""A cascade beside the router alone on RouteLLM's MMLU answers, and what a guaranteed threshold keeps.

    python benchmarks/cascade.py [--data FILE] [--cache DIR] [--test] [--json]

Everything is chosen on split = train, by five folds; --test judges the thresholds on split = test.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentmtl.evaluate.cascades import (
    WAYS,
    Scored,
    areas,
    held_out,
    score,
    score_by_folds,
    sent,
    simulate_guarantee,
    threshold_for,
)
from agentmtl.evaluate.routing import Prompts, fit, read_prompts
from agentmtl.routing.fitted import RouterSettings
from agentmtl.trunk import load_encoder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "routing" / "routellm-mmlu.jsonl"
FOLDS, SEED = 5, 0
RECOVERED = (0.5, 0.8, 0.9)  # shares of the gap that are wanted
GUARANTEES = ((0.02, 0.05), (0.05, 0.05), (0.05, 0.1), (0.1, 0.1))  # (ε, δ)


def on_train(scored: Scored) -> dict[str, Any]:
    chosen = {
        name: {
            f"recover {share}": {
                "threshold": threshold_for(scored, name, share),
                "held out (recovered, strong)": held_out(scored, name, share, FOLDS, SEED),
            }
            for share in RECOVERED
        }
        for name in WAYS
    }
    simulated = [asdict(simulate_guarantee(scored, eps, delta, seed=SEED)) for eps, delta in GUARANTEES]
    return {"areas": areas(scored), "thresholds": chosen, "guarantees": simulated}


def on_test(train: Prompts, scored: Scored, test: Prompts) -> dict[str, Any]:
    judged = score(fit(train, RouterSettings()), test)
    return {
        name: {
            f"recover {share}": asdict(sent(judged, name, threshold_for(scored, name, share), SEED))
            for share in RECOVERED
        }
        for name in WAYS
    }


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, default=DATA)
    options.add_argument("--cache", type=Path, default=Path("indexes") / "routing")
    options.add_argument("--test", action="store_true", help="judge on split = test as well")
    options.add_argument("--json", action="store_true")
    arguments = options.parse_args()
    encoder = load_encoder()
    split = read_prompts(arguments.data, encoder, arguments.cache)
    scored = score_by_folds(split["train"], RouterSettings(), FOLDS, SEED)
    found = {"schema": 1, "benchmark": "cascade", "train": on_train(scored)}
    if arguments.test:
        found["test"] = on_test(split["train"], scored, split["test"])
    print(json.dumps(found, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
