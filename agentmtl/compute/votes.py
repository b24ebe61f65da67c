"""What a majority vote of n samples is worth, exactly.

    drawn(tally, most)              n of the samples that are there, without replacement
    predicted(tally, prior, most)   n samples to come, given those that are there

Samples without an answer vote for nobody. Where several answers have most votes, each wins as often as the
others.

The right answer wins with k votes where every other has fewer, or as many and the lot falls on it. With the
number of ways to draw x votes of an answer as coefficients of z^x in a polynomial, all answers together are a
product; a factor s for every answer that ties, integrated over [0, 1], gives 1 / (1 + ties), exactly so by
Gauss-Legendre quadrature with enough nodes. All terms are positive: nothing cancels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RIGHT, BLANK = 0, -1  # answers as numbers; wrong ones are 1, 2, …
_NODES = 3  # of a prediction's quadrature: exact for up to 5 answers that tie, and more hardly ever do


@dataclass(frozen=True, slots=True)
class Tally:
    """Samples of one question: with the right answer, with each wrong one (most first), with none."""

    right: int = 0
    wrong: tuple[int, ...] = ()
    blank: int = 0

    @classmethod
    def of(cls, answers: Iterable[int]) -> Tally:
        counts = Counter(answers)
        right, blank = counts.pop(RIGHT, 0), counts.pop(BLANK, 0)
        return cls(right, tuple(sorted(counts.values(), reverse=True)), blank)

    @property
    def total(self) -> int:
        return self.right + sum(self.wrong) + self.blank

    @property
    def won(self) -> float:
        """How often the right answer wins the vote of these samples: 0, 1, or its share of a tie."""
        top = max((self.right, *self.wrong))
        return 1 / (1 + self.wrong.count(top)) if self.right == top and top else 0.0


@dataclass(frozen=True, slots=True)
class Prior:
    """How answers come: the right one with probability `right` beforehand, which weighs as much as `weight`
    samples; wrong ones by a Pitman-Yor process of discount `spread` in [0, 1): the higher, the less do
    wrong answers repeat.

    Source of the process: Pitman & Yor, "The two-parameter Poisson-Dirichlet distribution", 1997.
    """

    right: float
    weight: float
    spread: float

    def next(self, tally: Tally) -> list[tuple[Tally, float]]:
        """What the tally may become with one sample more, with probabilities."""
        whole = tally.total + self.weight
        right, wrong, blank = tally.right, tally.wrong, tally.blank
        found = [(Tally(right + 1, wrong, blank), (right + self.weight * self.right) / whole)]
        for count in sorted(set(wrong), reverse=True):
            place = wrong.index(count)
            more = (*wrong[:place], count + 1, *wrong[place + 1 :])
            found.append((Tally(right, more, blank), wrong.count(count) * (count - self.spread) / whole))
        new = self.weight * (1 - self.right) + self.spread * len(wrong)
        found.append((Tally(right, (*wrong, 1), blank), new / whole))
        if blank:
            found.append((Tally(right, wrong, blank + 1), blank / whole))
        return found


def log_likelihood(tally: Tally, right: Floats, weight: Floats, spread: Floats) -> Floats:
    """Of the way in which the samples fall into answers, for priors of these numbers (shapes that broadcast).

    Samples without an answer count as drawn with their own share.
    """
    wrong = weight * (1 - right)
    told = _rising(weight * right, tally.right) - _rising(weight, tally.total)
    for n in range(len(tally.wrong)):
        told = told + np.log(wrong + n * spread)
    for count in tally.wrong:
        told = told + _rising(1 - spread, count - 1)
    return told


def _rising(start: Floats, steps: int) -> Floats:
    """The logarithm of start · (start + 1) · … of `steps` factors."""
    logs: Floats = np.log(start[..., None] + np.arange(steps)).sum(-1)
    return logs


@lru_cache(maxsize=200_000)
def drawn(tally: Tally, most: int) -> Floats:
    """(most,) probabilities that the right answer wins a vote of 1 … `most` of the samples, every subset
    alike: unbiased for what a vote of so many is worth. `most` is at most their number."""
    won = np.zeros(most + 1)
    for k in range(1, min(tally.right, most) + 1):
        rest = most - k
        rivals = [count for count in tally.wrong if count >= k]
        free = tally.blank + sum(count for count in tally.wrong if count < k)  # any number of these
        nodes, weights = _quadrature(min(len(rivals), rest // k) // 2 + 1)
        products = np.repeat(_ways(free, rest)[None], len(nodes), 0)
        for count in rivals:
            factor = np.repeat(_ways(count, min(k, rest))[None], len(nodes), 0)
            if k <= rest:
                factor[:, k] *= nodes
            products = _times(products, factor)
        won[k:] += comb(tally.right, k) * (weights @ products)
    value: Floats = won[1:] / _ways(tally.total, most)[1:]
    return _kept(value)


def _ways(count: int, most: int) -> Floats:
    """To draw 0 … most of `count`."""
    return np.array([float(comb(count, x)) for x in range(most + 1)])


@lru_cache(maxsize=200_000)
def predicted(tally: Tally, prior: Prior, most: int) -> Floats:
    """(most,) probabilities that the right answer wins a vote of 1 … `most` samples that are still to come.

    The posterior mean under the prior, exactly: ways to draw become weights of the Pólya urn, and all wrong
    answers not yet seen together are the power series of (1 − spread · ψ(z))^−(weight of the new / spread),
    where ψ holds one new answer's counts below k, and k itself times s.
    """
    _, _, weights, begins = _rows(most)
    products = _rivals(prior, most, len(tally.wrong), tally.wrong[::-1])
    if tally.blank:
        products = _times(products, np.broadcast_to(_urn(tally.blank, most), products.shape))
    by_wins = np.add.reduceat(products * weights[:, None], begins)  # (most, most + 1)
    right = _urn(tally.right + prior.weight * prior.right, most)
    won = np.zeros(most + 1)
    for k in range(1, most + 1):
        won[k:] += right[k] * by_wins[k - 1, : most + 1 - k]
    value: Floats = won[1:] / _urn(tally.total + prior.weight, most)[1:]
    return _kept(np.minimum(value, 1.0))


@lru_cache(maxsize=512)
def _rivals(prior: Prior, most: int, seen: int, counts: tuple[int, ...]) -> Floats:
    """The product of all answers not yet seen, of which `seen` have been, and of wrong ones with `counts`,
    the fewest first: so tallies that begin alike, as most do, share what is worked out."""
    below, begins = _below(most), _rows(most)[3]
    if not counts:
        return _kept(_unseen(below, begins, prior, seen))
    before = _rivals(prior, most, seen, counts[:-1])
    return _kept(_times_below(before, _urn(counts[-1] - prior.spread, most) * below, begins))


@lru_cache(maxsize=64)
def _below(most: int) -> Floats:
    """(rows, most + 1): 1 for counts below the row's wins, the node's factor for as many."""
    n = np.arange(most + 1)
    wins, tied, _, _ = _rows(most)
    return _kept((n < wins[:, None]) + (n == wins[:, None]) * tied[:, None])


@lru_cache(maxsize=64)
def _rows(most: int) -> tuple[Ints, Floats, Floats, list[int]]:
    """For k = 1 … most wins the nodes of ties, at most so many as (most − k) / k rivals with k each need:
    wins, node and weight a row, and where each k begins."""
    parts = [_quadrature(min((most - k) // k // 2 + 1, _NODES)) for k in range(1, most + 1)]
    sizes = [len(nodes) for nodes, _ in parts]
    wins = np.repeat(np.arange(1, most + 1), sizes)
    begins = [0, *np.cumsum(sizes)[:-1].tolist()]
    return wins, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), begins


def _unseen(below: Floats, begins: list[int], prior: Prior, seen: int) -> Floats:
    """The power series of all answers not yet seen, one a row of `below`; of k wins to the degree most − k,
    which is what remains of the votes."""
    most = below.shape[1] - 1
    x = np.arange(1, most + 1)
    one = np.concatenate([[1.0], np.cumprod((x[1:] - 1 - prior.spread) / x[1:])])  # of one new answer
    psi = one * below[:, 1:]
    new = prior.weight * (1 - prior.right) + prior.spread * seen
    series = np.zeros_like(below)
    series[:, 0] = 1
    for m in x:  # m · e_m = Σ (new · x + spread · (m − x)) · ψ_x · e_(m − x)
        pull = new * x[:m] + prior.spread * (m - x[:m])
        rows = begins[most - m]  # those of at most so many wins
        series[:rows, m] = (psi[:rows, :m] * pull * series[:rows, m - 1 :: -1][:, :m]).sum(1) / m
    return series


def _urn(start: float, most: int) -> Floats:
    """start · (start + 1) · … / x! for x = 0 … most."""
    x = np.arange(1, most + 1)
    return np.concatenate([[1.0], np.cumprod((start + x - 1) / x)])


def _times(products: Floats, factor: Floats) -> Floats:
    """Polynomials (rows, degree + 1) times others, to the degree of the first."""
    degree = products.shape[1]
    out = np.zeros_like(products)
    for x in range(min(factor.shape[1], degree)):
        out[:, x:] += factor[:, x, None] * products[:, : degree - x]
    return out


def _times_below(products: Floats, factor: Floats, begins: list[int]) -> Floats:
    """`_times` where rows of k wins begin at begins[k − 1] and the factor of k wins ends with degree k: right
    to the degree most − k, which is what remains of the votes, at a quarter of the work."""
    most = products.shape[1] - 1
    out = np.zeros_like(products)
    for x in range(most // 2 + 1):
        first, stop = begins[max(x, 1) - 1], most - max(x, 1) + 1
        out[first:, x:stop] += factor[first:, x, None] * products[first:, : stop - x]
    return out


@lru_cache(maxsize=64)
def _quadrature(nodes: int) -> tuple[Floats, Floats]:
    """Nodes and weights on [0, 1], exact for polynomials of degree 2 · nodes − 1."""
    points, weights = np.polynomial.legendre.leggauss(min(nodes, 12))
    return (points + 1) / 2, weights / 2


def _kept(value: Floats) -> Floats:
    value.flags.writeable = False  # it is remembered
    return value
