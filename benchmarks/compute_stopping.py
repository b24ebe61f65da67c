"""Stopping rules compared on recorded traces: tuned on AIME 2024, judged on AIME 2025.

    python benchmarks/compute_stopping.py --data DIR

DIR holds the recordings as benchmarks/compute_replay.py takes them, with their probes. For every model a rule
is chosen on AIME 2024 among those whose accuracy is, with probability .8 over resampled questions, within
half a point of the vote of 64 samples: the surest that saves 90 % of the tokens, or that which saves most
where none does. A rule says when to stop sampling (`Overtaken`) and when to end a sample (`Settled`, 20
tokens a probe). It is then judged on AIME 2025, beside adaptive self-consistency and windows, as a mean over
--orders random orders of the traces of every question.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402

from agentmtl.compute.probing import Probed, Settled, read_probed  # noqa: E402
from agentmtl.compute.space import Floats  # noqa: E402
from agentmtl.compute.stopping import (  # noqa: E402
    Adaptive,
    Fixed,
    Overtaken,
    Rule,
    Unanimous,
    Votes,
    stopped,
)
from agentmtl.evaluate.bootstrap import Interval, Statistic, interval  # noqa: E402

MODELS = ("0.6b", "1.7b", "4b", "8b")
FULL = 64
ENDS = (Settled(), Settled(8), Settled(16), Settled(24))
CAPS, DOUBTS = (8, 12, 16, 24, 32, 48, 64), (0.02, 0.05, 0.1, 0.15, 0.2)
WANTED = 0.90  # of the tokens to be saved: what is judged is harder, so that less is saved there
TOLERATED, SURE = 0.005, 0.8  # of accuracy; the probability over resampled questions


@dataclass(frozen=True, slots=True)
class Outcome:
    """(questions,) accuracy and tokens, means over orders."""

    accuracy: Floats
    tokens: Floats


def outcomes(probed: Probed, ends: Settled, rules: list[Rule], orders: int, seed: int) -> list[Outcome]:
    """Of every rule, on the same orders."""
    rng = np.random.default_rng(seed)
    number = len(probed.probes)
    found = [Outcome(np.zeros(number), np.zeros(number)) for _ in rules]
    for question, (answers, tokens) in enumerate(zip(*ends.apply(probed), strict=True)):
        order = np.argsort(rng.random((orders, len(answers))), axis=1)[:, :FULL]
        votes, cost = Votes.of(answers[order]), tokens[order].cumsum(1)
        for rule, one in zip(rules, found, strict=True):
            last = stopped(rule, votes)[:, None] - 1
            one.accuracy[question] = np.take_along_axis(votes.right, last, 1).mean()
            one.tokens[question] = np.take_along_axis(cost, last, 1).mean()
    return found


def recorded(folder: Path, model: str, name: str) -> Probed:
    path = folder / f"qwen3-{model}-{name}.json"
    return read_probed(path, path.with_suffix(".probes.json"))


def saved(full: Outcome, one: Outcome, seed: int = 0) -> Interval:
    """The share of tokens saved, over resampled questions."""
    return Statistic((full.tokens, one.tokens), lambda a, b: float(1 - b.mean() / a.mean())).interval(seed)


def tune(probed: Probed, full: Outcome, orders: int, seed: int) -> tuple[Rule, Settled]:
    """Of the rules that surely lose no more than is tolerated: the surest that saves what is wanted, or the
    cheapest where none does."""
    rules: list[Rule] = [Overtaken(most, doubt) for most, doubt in product(CAPS, DOUBTS)]
    found: list[tuple[float, float, Rule, Settled]] = []
    for ends in ENDS:
        for rule, one in zip(rules, outcomes(probed, ends, rules, orders, seed), strict=True):
            gained = interval(one.accuracy - full.accuracy, seed, confidence=2 * SURE - 1)
            if gained.low >= -TOLERATED:
                found.append((gained.low, saved(full, one).mean, rule, ends))
    if not found:
        return Fixed(FULL), Settled()
    cheap = [entry for entry in found if entry[1] >= WANTED]
    best = max(cheap, key=lambda e: e[0]) if cheap else max(found, key=lambda e: e[1])
    return best[2], best[3]


def told(name: str, full: Outcome, one: Outcome) -> dict[str, Any]:
    less, gained = saved(full, one), interval(one.accuracy - full.accuracy, 0)
    print(
        f"  {name:<44}{100 * one.accuracy.mean():6.2f} %  {gained.mean * 100:+6.2f} "
        f"[{gained.low * 100:+.2f}, {gained.high * 100:+.2f}]  {one.tokens.mean() / 1e3:7.1f}k tokens  "
        f"saved {100 * less.mean:5.1f} % [{100 * less.low:.1f}, {100 * less.high:.1f}]",
        flush=True,
    )
    return {
        "accuracy": float(one.accuracy.mean()), "gained": gained.to_json(),
        "tokens": float(one.tokens.mean()), "saved": less.to_json(),
    }  # fmt: skip


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="folder of the recordings")
    made.add_argument("--orders", type=int, default=1000)
    made.add_argument("--tuned-only", action="store_true", help="stop after the tuning set")
    made.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = made.parse_args()
    figures: dict[str, Any] = {"command": sys.argv[1:], "models": {}}
    for model in MODELS:
        tuning = recorded(given.data, model, "aime24")
        full = outcomes(tuning, Settled(), [Fixed(FULL)], given.orders, 1)[0]
        rule, ends = tune(tuning, full, given.orders, 1)
        ours = outcomes(tuning, ends, [rule], given.orders, 2)[0]
        print(f"{model}: tuned on AIME 2024 (vote of {FULL}: {100 * full.accuracy.mean():.2f} %)")
        figures["models"][model] = {"rule": f"{rule}, {ends}", "tuning": told(f"{rule} {ends}", full, ours)}
        if given.tuned_only:
            continue
        judging = recorded(given.data, model, "aime25")
        known: list[Rule] = [
            Fixed(FULL), Fixed(16), Adaptive(16, 0.9), Adaptive(64, 0.9), Adaptive(64, 0.95),
            Unanimous(64, 8), Unanimous(64, 4),
        ]  # fmt: skip
        print(f"{model}: judged on AIME 2025")
        judged = outcomes(judging, Settled(), [*known, rule], given.orders, 3)
        entries = {str(r): told(str(r), judged[0], one) for r, one in zip(known, judged[:-1], strict=True)}
        entries["ours, every sample to its end"] = told(f"{rule}", judged[0], judged[-1])
        ended = outcomes(judging, ends, [rule], given.orders, 3)[0]
        entries["ours"] = told(f"ours: {rule} {ends}", judged[0], ended)
        figures["models"][model]["judged"] = entries
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
