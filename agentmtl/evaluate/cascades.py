"""A cascade beside the router alone, on answers that are stored: `benchmarks/cascade.py`.

Both send a share of the queries to the strong expert. The cascade keeps the weak one's answer where its
reliability, here the fitted router's P(weak right), reaches a threshold, and so has always asked the weak one
too; the router sends by how much likelier the strong one is to be right, before anything is asked. Thresholds
are chosen for a wanted quality on the train rows, whose scores come from routers that have not seen them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agentmtl.evaluate.bootstrap import Interval, Statistic
from agentmtl.evaluate.router_metrics import Floats, apgr, cpt
from agentmtl.evaluate.routing import Prompts, fit
from agentmtl.routing.cascade import CascadeRows, fit_thresholds
from agentmtl.routing.conformal import risk_threshold
from agentmtl.routing.fitted import FittedRouter, RouterSettings

WAYS = ("cascade", "router alone")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a threshold comes to: the quality, the share of the gap between the experts that it recovers, and
    the share of queries that the strong expert answers."""

    quality: Interval
    recovered: Interval
    strong: Interval


@dataclass(frozen=True, slots=True)
class Scored:
    """Prompts with how sure each way is that the weak expert will do, (n,) each, 0 to 1."""

    prompts: Prompts
    sure: Mapping[str, Floats]

    def of(self, places: np.ndarray) -> Scored:
        return Scored(self.prompts.of(places.tolist()), {n: s[places] for n, s in self.sure.items()})


def score(router: FittedRouter, prompts: Prompts) -> Scored:
    """By a router that has not seen the prompts."""
    strong, weak = router.probabilities(prompts.vectors, prompts.texts, prompts.options).T
    return Scored(prompts, {"cascade": weak, "router alone": (1.0 - (strong - weak)) / 2.0})


def score_by_folds(prompts: Prompts, settings: RouterSettings, folds: int, seed: int) -> Scored:
    """Every prompt by a router that was fitted on the other folds."""
    fold = np.random.default_rng(seed).permutation(len(prompts.texts)) % folds
    sure = {name: np.zeros(len(fold)) for name in WAYS}
    for number in range(folds):
        seen, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        found = score(fit(prompts.of(seen.tolist()), settings), prompts.of(held.tolist()))
        for name in WAYS:
            sure[name][held] = found.sure[name]
    return Scored(prompts, sure)


def areas(scored: Scored) -> dict[str, dict[str, float]]:
    """apgr and cpt of each way's order."""
    weak, strong = scored.prompts.weak, scored.prompts.strong
    return {
        name: {
            "apgr": apgr(-sure, weak, strong),
            "cpt@50": cpt(-sure, weak, strong, 0.5),
            "cpt@80": cpt(-sure, weak, strong, 0.8),
        }
        for name, sure in scored.sure.items()
    }


def wanted_quality(prompts: Prompts, recovered: float) -> float:
    """The mean quality that recovers this share of the gap."""
    return float(prompts.weak.mean() + recovered * (prompts.strong - prompts.weak).mean())


def threshold_for(scored: Scored, name: str, recovered: float) -> float:
    """Of the fewest calls of the strong expert that recover this share of the gap on these rows."""
    prompts, sure = scored.prompts, scored.sure[name]
    rows = CascadeRows(
        np.stack([sure, np.ones_like(sure)], axis=1),
        np.stack([prompts.weak, prompts.strong], axis=1),
        np.stack([np.zeros_like(sure), np.ones_like(sure)], axis=1),
    )
    return fit_thresholds(rows, wanted_quality(prompts, recovered))[0]


def sent(scored: Scored, name: str, threshold: float, seed: int = 0) -> Sent:
    """What the threshold comes to on these prompts."""
    prompts = scored.prompts
    to_strong = (scored.sure[name] < threshold).astype(float)
    quality = np.where(to_strong > 0, prompts.strong, prompts.weak)
    columns = (quality, prompts.weak, prompts.strong)
    return Sent(
        Statistic((quality,)).interval(seed),
        Statistic(columns, _recovered).interval(seed),
        Statistic((to_strong,)).interval(seed),
    )


def _recovered(quality: Floats, weak: Floats, strong: Floats) -> float:
    gap = float((strong - weak).mean())
    return float((quality - weak).mean()) / gap if gap else float("nan")


def held_out(scored: Scored, name: str, recovered: float, folds: int, seed: int) -> tuple[float, float]:
    """(recovered, share of the strong expert), thresholds chosen on the other folds of these rows."""
    fold = np.random.default_rng(seed + 1).permutation(len(scored.prompts.texts)) % folds
    to_strong = np.zeros(len(fold))
    for number in range(folds):
        threshold = threshold_for(scored.of(np.flatnonzero(fold != number)), name, recovered)
        held = fold == number
        to_strong[held] = scored.sure[name][held] < threshold
    quality = np.where(to_strong > 0, scored.prompts.strong, scored.prompts.weak)
    return _recovered(quality, scored.prompts.weak, scored.prompts.strong), float(to_strong.mean())


@dataclass(frozen=True, slots=True)
class Simulated:
    """`broken`: the share of draws whose true loss is above `epsilon`, which should be at most `delta`;
    `loss` and `kept`: the means over the draws of that loss, and of the share that the weak expert keeps."""

    epsilon: float
    delta: float
    broken: float
    loss: float
    kept: float


def simulate_guarantee(
    scored: Scored, epsilon: float, delta: float, *, rows: int = 2_000, draws: int = 1_000, seed: int = 0
) -> Simulated:
    """The prompts as the whole world: `rows` of them are drawn with replacement, a threshold with a guarantee
    is chosen on these, and its true loss is that on all.

    The loss is 1 where the weak expert is kept and wrong, and the strong one right: an upper bound of the
    quality that is lost against asking the strong one always.
    """
    rng = np.random.default_rng(seed)
    sure, count = scored.sure["cascade"], len(scored.prompts.texts)
    losses = ((scored.prompts.strong > 0.5) & (scored.prompts.weak < 0.5)).astype(float)
    found, kept = [], []
    for _ in range(draws):
        seen = rng.integers(0, count, rows)
        threshold = risk_threshold(sure[seen], losses[seen], epsilon, delta)
        stays = sure >= (2.0 if threshold is None else threshold)
        found.append(float((losses * stays).mean()))
        kept.append(float(stays.mean()))
    broken = float(np.mean(np.array(found) > epsilon))
    return Simulated(epsilon, delta, broken, float(np.mean(found)), float(np.mean(kept)))
