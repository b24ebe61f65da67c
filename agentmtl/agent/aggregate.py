"""How several candidates become one, and when enough were drawn.

    majority        the answer that most samples give                       Wang et al., arXiv 2203.11171
    weighted        the same, each sample counting with its confidence
    best-of-n       the candidate that a reward ranks first
    decided         stop drawing: the leader would hardly change            Aggarwal et al., arXiv 2305.11860

Answers are the same where `normalise_answer` says so. Of equal ones the surer comes first, then the earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, lgamma, log

from agentmtl.errors import UsageError
from agentmtl.experts.answers import normalise_answer, without_marks
from agentmtl.schema import Candidate

SURE = 0.95  # that the leader stays ahead, for drawing to stop
_SURELY = 1 - 1e-9  # a probability that has odds
_LEAST = 2  # samples before it may


@dataclass(frozen=True, slots=True)
class Vote:
    """An answer with its candidates, in the order drawn, and what they weigh together."""

    answer: str
    candidates: tuple[Candidate, ...]
    weight: float


Aggregator = Callable[[Sequence[Candidate], int], Candidate | None]
Weigh = Callable[[Candidate], float]
Reward = Callable[[Sequence[Candidate]], Sequence[float]]  # how good each of those drawn is


def votes_of(candidates: Sequence[Candidate], weigh: Weigh = lambda candidate: 1.0) -> list[Vote]:
    """The answers, the heaviest first."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(normalise_answer(without_marks(candidate.text)), []).append(candidate)
    votes = [Vote(answer, tuple(same), sum(map(weigh, same))) for answer, same in groups.items()]
    return sorted(votes, key=lambda vote: (-vote.weight, -max(c.confidence for c in vote.candidates)))


def majority(candidates: Sequence[Candidate], drawn: int) -> Candidate | None:
    """The surest candidate of the answer that most samples give; its confidence is their share of the
    `drawn`, those that said nothing included. None where there is no candidate."""
    return _winner(votes_of(candidates), drawn)


def weighted(candidates: Sequence[Candidate], drawn: int) -> Candidate | None:
    """`majority`, each sample counting with its confidence."""
    return _winner(votes_of(candidates, lambda candidate: candidate.confidence), drawn)


def best_of(reward: Reward, calibrated: bool = True) -> Aggregator:
    """The candidate with the highest reward. That becomes its confidence where the reward is `calibrated` for
    who said it; else the chance that it is the best of the different answers drawn (Bradley & Terry,
    Biometrika 39, 1952: its odds over the sum of theirs), times the share of samples that said anything."""

    def choose(candidates: Sequence[Candidate], drawn: int) -> Candidate | None:
        if not candidates:
            return None
        rewards = reward(candidates)
        best = max(range(len(candidates)), key=lambda n: (rewards[n], -n))
        if calibrated:
            return replace(candidates[best], confidence=rewards[best])
        odds = {id(c): r / (1.0 - min(r, _SURELY)) for c, r in zip(candidates, rewards, strict=True)}
        all_odds = sum(max(odds[id(c)] for c in vote.candidates) for vote in votes_of(candidates))
        chance = odds[id(candidates[best])] / all_odds if all_odds else 1.0
        return replace(candidates[best], confidence=chance * len(candidates) / max(1, drawn))

    return choose


def _winner(votes: Sequence[Vote], drawn: int) -> Candidate | None:
    if not votes:
        return None
    surest = max(votes[0].candidates, key=lambda candidate: candidate.confidence)
    return replace(surest, confidence=min(1.0, len(votes[0].candidates) / max(1, drawn)))


AGGREGATORS: Mapping[str, Aggregator] = {"majority": majority, "weighted": weighted}


def aggregator(name: str, reward: Reward | None = None, calibrated: bool = True) -> Aggregator:
    """By name; "best-of-n" needs a reward. Raises UsageError for another name."""
    if name == "best-of-n" and reward is not None:
        return best_of(reward, calibrated)
    if name not in AGGREGATORS:
        raise UsageError(
            f"There is no aggregator {name!r} here.",
            f"Choose one of {', '.join([*AGGREGATORS, 'best-of-n'])}.",
        )
    return AGGREGATORS[name]


def decided(candidates: Sequence[Candidate], drawn: int, most: int, sure: float = SURE) -> bool:
    """Whether drawing may stop after `drawn` of `most` samples.

    It may where the leader's chance of being ahead of the second in the long run, 1 − Beta(½; v₁+1, v₂+1), is
    above `sure` (ASC: arXiv 2305.11860, equation 2), or where what is left to draw cannot change the winner.
    Samples that said nothing count as one answer more.
    """
    counts = [len(vote.candidates) for vote in votes_of(candidates)]
    counts = sorted([*counts, drawn - sum(counts), 0, 0], reverse=True)
    if drawn >= most or counts[0] - counts[1] > most - drawn:
        return True
    return drawn >= _LEAST and leads(counts[0], counts[1]) > sure


def leads(first: int, second: int) -> float:
    """P(p > ½) for p ~ Beta(first + 1, second + 1): a sum of binomial terms, since both are whole numbers."""
    n = first + second + 1
    terms = (exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2.0)) for k in range(first + 1))
    return min(1.0, sum(terms))
