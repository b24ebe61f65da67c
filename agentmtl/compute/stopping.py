"""When to stop drawing samples of a query, and when to end a sample early.

A rule hears the answers as they come (numbers; `votes.BLANK`: none) and says when to stop; the answer is then
the most frequent one, the first to have reached that count where several have.

    Fixed(n)                  always n
    Adaptive(most, sure)      adaptive self-consistency (Aggarwal et al., arXiv 2305.11860): stop when the
                              infinite vote has this leader with probability `sure`
    Unanimous(most, window)   early-stopping self-consistency (Li et al., arXiv 2401.10480): windows of
                              samples, stop after one in which all agree
    Overtaken(most, doubt)    stop when the vote of `most` samples would have another winner with probability
                              at most `doubt`

The last has a guarantee that the others lack. Under an exchangeable prior (here a uniform one of the share of
the first two answers), the posterior probability of a change given what was seen is at most `doubt` wherever
the rule stops; by the law of total expectation the answer then differs from that of all `most` samples with
probability at most `doubt`, however the stopping depends on the samples. As samples run out it asks for less:
a lead that cannot be made up ends the vote at once.

`Limit` ends single samples: one that has written more than `tokens` has no vote and costs no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.space import Floats
from agentmtl.compute.votes import BLANK, RIGHT
from agentmtl.errors import UsageError

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """Samples of one question in many orders: (orders, samples) answers, and after each sample how many
    votes the first and the second answer have, and the share of the right one in the lead."""

    answers: Ints
    first: Ints
    second: Ints
    right: Floats

    @classmethod
    def of(cls, answers: Ints) -> Votes:
        """Answers are numbers from 0 on, RIGHT among them, and BLANK."""
        kinds = max(int(answers.max()) + 1, 2)
        counts = (answers[..., None] == np.arange(kinds)).astype(np.int16).cumsum(1)
        ordered = np.sort(counts, axis=2)
        first, second = ordered[:, :, -1].astype(np.int64), ordered[:, :, -2].astype(np.int64)
        leading = counts == first[..., None]
        right = np.where(first > 0, leading[:, :, RIGHT] / leading.sum(2), 0.0)
        return cls(answers, first, second, right)

    def upto(self, most: int) -> Votes:
        """The first samples of every order."""
        answers, first, second = (one[:, :most] for one in (self.answers, self.first, self.second))
        return Votes(answers, first, second, self.right[:, :most])


class Rule(Protocol):
    """`most`: samples at most."""

    @property
    def most(self) -> int: ...

    def stops(self, votes: Votes) -> NDArray[np.bool_]:
        """(orders, samples): whether it stops after that sample, if it has not before."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    most: int

    def stops(self, votes: Votes) -> NDArray[np.bool_]:
        return np.zeros(votes.first.shape, bool)


@dataclass(frozen=True, slots=True)
class Adaptive:
    most: int
    sure: float = 0.95

    def stops(self, votes: Votes) -> NDArray[np.bool_]:
        stop: NDArray[np.bool_] = _behind(self.most)[votes.first, votes.second] <= 1 - self.sure
        return stop


@dataclass(frozen=True, slots=True)
class Unanimous:
    most: int
    window: int = 8

    def stops(self, votes: Votes) -> NDArray[np.bool_]:
        stop = np.zeros(votes.first.shape, bool)
        for end in range(self.window, votes.answers.shape[1] + 1, self.window):
            part = votes.answers[:, end - self.window : end]
            stop[:, end - 1] = (part == part[:, :1]).all(1) & (part[:, 0] != BLANK)
        return stop


@dataclass(frozen=True, slots=True)
class Overtaken:
    most: int
    doubt: float = 0.1

    def stops(self, votes: Votes) -> NDArray[np.bool_]:
        left = self.most - np.arange(1, votes.first.shape[1] + 1)
        chance = _overtaking(self.most)[np.maximum(left, 0), votes.first, votes.second]
        stop: NDArray[np.bool_] = chance <= self.doubt
        return stop


@dataclass(frozen=True, slots=True)
class Limit:
    """`tokens`: of one sample; None: no limit."""

    tokens: int | None = None

    def apply(self, answers: Ints, tokens: Ints) -> tuple[Ints, Ints]:
        """The answers and tokens of samples that are ended at the limit."""
        if self.tokens is None:
            return answers, tokens
        return np.where(tokens > self.tokens, BLANK, answers), np.minimum(tokens, self.tokens)


def should_stop(rule: Rule, answers: Sequence[int]) -> bool:
    """Whether to stop after these answers, in the order in which they came. Raises UsageError for none."""
    if not answers:
        raise UsageError("There are no answers yet.", "Draw a sample first.")
    return len(answers) >= rule.most or bool(stopped(rule, Votes.of(np.array([answers])))[0] <= len(answers))


def stopped(rule: Rule, votes: Votes) -> Ints:
    """(orders,) how many samples the rule draws: at least 2 where it may, at most `rule.most`. Where it does
    not stop within what is there, one more than that."""
    seen = votes.upto(rule.most)
    drawn = seen.first.shape[1]
    stop = rule.stops(seen).copy()
    stop[:, 0] = False
    if drawn == rule.most:
        stop[:, -1] = True
    counts: Ints = np.where(stop.any(1), stop.argmax(1) + 1, drawn + 1)
    return counts


@lru_cache(maxsize=8)
def _behind(most: int) -> Floats:
    """[first, second]: the probability that the second answer has the larger share, of a uniform prior."""
    from scipy.stats import beta

    votes = np.arange(most + 1)
    found: Floats = beta.cdf(0.5, votes[:, None] + 1, votes + 1)
    return found


@lru_cache(maxsize=8)
def _overtaking(most: int) -> Floats:
    """[left, first, second]: the probability that the second answer wins the vote when so many samples more
    have voted for one of the two; a tie is half of a win. A Pólya urn that begins with one vote more of each.
    """
    votes = np.arange(most + 2)
    first, second = votes[:, None], votes[None, :]
    share = (first + 1) / (first + second + 2)  # of the first, in the next vote
    found = np.ones((most + 1, most + 2, most + 2))
    found[0] = (second > first) + 0.5 * (second == first)
    for left in range(1, most + 1):
        before = found[left - 1]
        found[left, :-1, :-1] = (share * np.roll(before, -1, 0) + (1 - share) * np.roll(before, -1, 1))[
            :-1, :-1
        ]
    return found
