"""The losses of an encoder for retrieval (IR) and for similarity (STS): CoDiEmb, arXiv 2508.11442.

Vectors are of unit length, so that inner products are cosines. Retrieval: multi-positive InfoNCE.
Similarity, of cosines s and gold grades y of a batch:

    L_STS = L_NCE + 2 · (1 − Pearson(s, y)) + .5 · L_PRO + 5 · L_RankKL
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

NCE_TEMPERATURE = 0.02
RANK_TEMPERATURE = 0.05
PEARSON_WEIGHT, PRO_WEIGHT, RANK_WEIGHT = 2.0, 0.5, 5.0
ALIKE = 1.0  # the least grade of a pair that the InfoNCE of similarity takes for one
_NEVER = -1e4
_TINY = 1e-8


def ir_loss(
    queries: torch.Tensor,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    wrong: torch.Tensor,
    temperature: float = NCE_TEMPERATURE,
) -> torch.Tensor:
    """Multi-positive InfoNCE, of queries (n, d), positives (n, P, d) and negatives (n, K, d).

    For each slot of the positives apart, a query's logits are those of its own positive, its own negatives,
    and of every other query's positive of that slot and negatives; so positives of one query are never each
    other's negatives. The mean over slots and queries. `wrong` (n, n, P + K): whether row j's text is a
    wrong answer to query i; a passage that several questions share is none.
    """
    import torch

    n, slots = positives.shape[:2]
    taken = wrong[:, :, slots:].reshape(n, -1)
    others = (queries @ negatives.reshape(-1, negatives.shape[-1]).T / temperature).masked_fill(
        ~taken, _NEVER
    )
    own = torch.eye(n, dtype=torch.bool, device=queries.device)
    target = torch.arange(n, device=queries.device)
    losses = []
    for slot in range(slots):
        there = queries @ positives[:, slot].T / temperature
        there = there.masked_fill(~(wrong[:, :, slot] | own), _NEVER)
        losses.append(torch.nn.functional.cross_entropy(torch.cat([there, others], 1), target))
    return torch.stack(losses).mean()


def pairs_loss(
    a: torch.Tensor, b: torch.Tensor, grades: torch.Tensor, temperature: float = NCE_TEMPERATURE
) -> torch.Tensor:
    """InfoNCE of the pairs (n, d), (n, d) whose grade is at least 1: each finds its other half among theirs.
    0 where there are fewer than two."""
    import torch

    kept = grades >= ALIKE
    if int(kept.sum()) < 2:
        return (a * 0).sum()
    logits = a[kept] @ b[kept].T / temperature
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def pearson_loss(scores: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """1 − Pearson's correlation of (n,) and (n,)."""
    s, y = scores - scores.mean(), grades - grades.mean()
    sizes = (s * s).sum().sqrt() * (y * y).sum().sqrt()
    return 1 - (s * y).sum() / sizes.clamp_min(_TINY)


def rank_loss(
    scores: torch.Tensor, grades: torch.Tensor, temperature: float = RANK_TEMPERATURE
) -> torch.Tensor:
    """KL(softmax(t/τ) ‖ softmax(s/τ)), t = (n − 1 − r)/(n − 1) with r the rank of a grade, 0 the best, ties
    averaged."""
    import torch

    n = len(grades)
    above = (grades[None] > grades[:, None]).sum(1)
    tied = (grades[None] == grades[:, None]).sum(1) - 1
    ranks = above + tied / 2
    wanted = torch.log_softmax((n - 1 - ranks) / max(1, n - 1) / temperature, 0)
    found = torch.log_softmax(scores / temperature, 0)
    apart: torch.Tensor = (wanted.exp() * (wanted - found)).sum()
    return apart


def pro_loss(
    scores: torch.Tensor, grades: torch.Tensor, temperature: float = RANK_TEMPERATURE
) -> torch.Tensor:
    """Each pair k preferred to all of lower grade: the mean over k of
    −log softmax([w_k s_k/τ, {w_j s_j/τ}])_k, w_j = y_k − y_j, w_k = max_j w_j. 0 where all grades are
    equal."""
    import torch

    apart = grades[:, None] - grades[None]  # (k, j)
    lower = apart > 0
    some = lower.any(1)
    if not bool(some.any()):
        return (scores * 0).sum()
    apart = apart[some]
    first = apart.max(1).values * scores[some] / temperature
    rest = (apart * scores[None] / temperature).masked_fill(~lower[some], _NEVER)
    return (torch.logsumexp(torch.cat([first[:, None], rest], 1), 1) - first).mean()


def sts_loss(
    a: torch.Tensor, b: torch.Tensor, middle: tuple[torch.Tensor, torch.Tensor], grades: torch.Tensor
) -> torch.Tensor:
    """L_STS of the pairs' vectors (n, d), (n, d); `middle`: the vectors of which the InfoNCE is taken, those
    of the middle layer or the same."""
    scores = (a * b).sum(1)
    return (
        pairs_loss(*middle, grades)
        + PEARSON_WEIGHT * pearson_loss(scores, grades)
        + PRO_WEIGHT * pro_loss(scores, grades)
        + RANK_WEIGHT * rank_loss(scores, grades)
    )
