"""From which score on a cheap answer may be kept, with a guarantee: the loss is at most ε, with probability
1 − δ over the rows that the threshold was chosen on.

    threshold = risk_threshold(scores, losses, epsilon=0.02, delta=0.05)
    Policy(threshold=threshold)                  # or a step of a Cascade

A loss is what keeping a query costs, 0 to 1: for routing, 1 where the dear expert would have been right and
the cheap one is wrong; for abstaining, 1 where the answer is wrong. The risk is its mean over all queries, of
which those below the threshold lose nothing, and future queries must come from where the rows came from.

Source: Learn then Test (Angelopoulos, Bates, Candès, Jordan & Lei, arXiv 2110.01052): thresholds are tested
from the strictest on, in an order fixed beforehand, and the last one whose null hypothesis "the risk is above
ε" is still rejected at level δ is taken. The p-value is the binomial tail for losses of 0 and 1, else that of
Hoeffding and Bentkus (Bates et al., arXiv 2101.02703).
"""

from __future__ import annotations

from math import ceil, e, exp, log

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.routing.route import Floats

STEPS = 200  # thresholds that are tested, evenly spaced


def risk_threshold(
    scores: Floats, losses: Floats, epsilon: float, delta: float, steps: int = STEPS
) -> float | None:
    """The least threshold of the score, (n,) of 0 to 1, that is safe with losses (n,) of 0 to 1; None where
    not even the strictest is.

    Raises UsageError for scores or losses outside 0 to 1, no rows, or ε and δ outside (0, 1).
    """
    _check(scores, losses, epsilon, delta)
    binary = bool(np.isin(losses, (0.0, 1.0)).all())
    safe = None
    for threshold in np.linspace(1.0, 0.0, steps + 1).tolist():
        kept = np.where(scores >= threshold, losses, 0.0)
        if p_value(float(kept.mean()), len(kept), epsilon, binary) > delta:
            break
        safe = threshold
    return safe


def p_value(risk: float, count: int, epsilon: float, binary: bool = False) -> float:
    """How likely a mean loss of at most `risk` over `count` rows is where the true one is above `epsilon`."""
    from scipy.stats import binom

    losses = risk * count
    if binary:
        return float(binom.cdf(round(losses), count, epsilon))
    bentkus = e * float(binom.cdf(ceil(losses - 1e-9), count, epsilon))
    return min(1.0, bentkus, exp(-count * _divergence(min(risk, epsilon), epsilon)))


def _divergence(a: float, b: float) -> float:
    """Of Bernoulli distributions of a from b, in nats."""
    first = a * log(a / b) if a > 0 else 0.0
    return first + ((1 - a) * log((1 - a) / (1 - b)) if a < 1 else 0.0)


def _check(scores: Floats, losses: Floats, epsilon: float, delta: float) -> None:
    if not len(scores) or scores.shape != losses.shape or scores.ndim != 1:
        raise UsageError("Scores and losses are no pairs.", "Give one loss for each score.")
    for values, name in ((scores, "score"), (losses, "loss")):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UsageError(f"A {name} lies outside 0 to 1.", "Give probabilities and shares.")
    if not (0 < epsilon < 1 and 0 < delta < 1):
        raise UsageError(f"ε = {epsilon} and δ = {delta} are no risk and doubt.", "Give e.g. .02 and .05.")
