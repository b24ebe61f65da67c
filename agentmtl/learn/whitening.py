"""Whitening by a corpus: directions in which all its passages vary count less, without training.

A layer over the trunk's token means x, x ↦ (x − μ) Σ^(−p/2), with the mean μ and the covariance Σ of the
corpus's own (Su et al., arXiv 2103.15316, section 3.2, where p = 1; a part of the power, as here, keeps more
of what the trunk knows). Σ is shrunk (Ledoit and Wolf, 2004), so that a few passages do not make directions
large that merely none of them happens to take.
"""

from __future__ import annotations

import numpy as np

from agentmtl.trunk.encoder import Vectors

POWER = 0.3


def whitening(means: Vectors, power: float = POWER) -> tuple[Vectors, Vectors]:
    """(weight (d, d), bias (d,)) of the layer, from token means (n, d), n at least 2.

    The weight is scaled so that a direction of average variance keeps its length; power 0 only centres, and
    so does any where all rows are alike.
    """
    from sklearn.covariance import ledoit_wolf

    rows = np.asarray(means, np.float64)
    variances, axes = np.linalg.eigh(ledoit_wolf(rows)[0])
    least = np.finfo(np.float64).eps
    if variances.mean() <= least:
        return np.eye(rows.shape[1], dtype=np.float32), -rows.mean(0).astype(np.float32)
    shares = np.maximum(variances / variances.mean(), least)
    weight = (axes * shares ** (-power / 2)) @ axes.T
    return weight.astype(np.float32), (-weight @ rows.mean(0)).astype(np.float32)
