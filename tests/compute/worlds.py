"""Small made-up recordings: two models on two question sets, one of which is easier."""

from __future__ import annotations

import numpy as np

from agentmtl.compute.replay import Recorded, Traces, compose

GRID = (1, 2, 4, 8)
PARAMETERS = {"small": 1e9, "large": 4e9}


def traces(model: str, name: str, rate: float, questions: int = 12, count: int = 32) -> Traces:
    """Each question has a rate of right answers of its own around `rate`; wrong ones scatter."""
    rng = np.random.default_rng([ord(c) for c in model + name])
    rates = rng.beta(2 * rate, 2 * (1 - rate), questions)
    right = rng.random((questions, count)) < rates[:, None]
    wrong = rng.integers(1, 6, (questions, count))
    tokens = rng.integers(50, 150, (questions, count))
    return Traces(model, name, np.where(right, 0, wrong), tokens)


def recorded(questions: int = 12) -> Recorded:
    stages = {
        "first": [traces("small", "first", 0.5, questions), traces("large", "first", 0.8, questions)],
        "second": [traces("small", "second", 0.7, questions), traces("large", "second", 0.75, questions)],
    }
    return compose(stages, PARAMETERS, GRID)
