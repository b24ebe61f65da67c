"""The reward from answers that are known to be right or wrong.

An expert answers the questions of multi-hop or reading sets several times, each answer is scored by its F1
against the accepted ones, and pairs of answers to one question of which one is clearly better are what the
combiner learns from (`agentmtl.agent.reward`). Where an expert has one fixed list of answers, as the embedded
reader, samples are drawn from the list by the odds of their confidence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.agent.agent import Agent
from agentmtl.agent.aggregate import majority, weighted
from agentmtl.agent.citations import exact_only
from agentmtl.agent.reward import PARTS, UNFITTED, Floats, Pair, Reward, calibrated, fit_reward, parts_of
from agentmtl.errors import UsageError
from agentmtl.evaluate.bootstrap import paired_difference
from agentmtl.evaluate.datasets import read_set, sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent
from agentmtl.evaluate.metrics import ece, f1
from agentmtl.experts.answers import without_marks
from agentmtl.index.batch import Progress
from agentmtl.retrieval.index import Index
from agentmtl.schema import Candidate

BETTER = 0.5  # of F1, that one answer of a pair is better by
RIGHT = 0.5  # F1 from which an answer counts as right
PAIRS = 6  # of one question, at most
DRAWS = (1, 4, 16, 64)

AgentOf = Callable[[Index, str], Agent]  # the agent for a question of an index: one that has not seen it


@dataclass(frozen=True, slots=True)
class Drawn:
    """A question with what was said to it: `candidates`, their F1 `scores` and their `parts`
    (n, len(PARTS)); `fixed`: they are a list that is drawn from, not samples."""

    id: str
    question: str
    candidates: tuple[Candidate, ...]
    scores: tuple[float, ...]
    parts: Floats
    fixed: bool


def draw(
    data: Sequence[Path],
    agent_of: AgentOf,
    samples: int,
    *,
    limit: int | None = None,
    seed: int = 0,
    split: str = "train",
    index_root: Path = DEFAULT_ROOT,
    backend: str = "auto",
    asked: Progress = silent,
) -> list[Drawn]:
    """The answers to the questions of the sets that have accepted strings, those without two different
    answers left out. Raises what reading the sets and asking raises."""
    found = []
    for folder in data:
        known = read_set(folder, split)
        index = index_for(known, index_root, backend=backend)
        for one in sample([q for q in known.questions if q.answers], limit, seed):
            agent = agent_of(index, one.id)
            evidence = agent.stages().evidence(one.question, None, agent.expert)
            said = agent.expert.propose(one.question, evidence, n=samples)
            candidates = exact_only(index.snapshot, said)
            asked(1)
            if len({without_marks(c.text) for c in candidates}) > 1:
                scores = tuple(f1(without_marks(c.text), one.answers) for c in candidates)
                parts = parts_of(one.question, candidates, index.retriever.encode_queries)
                fixed = not getattr(agent.expert, "sampled", False)
                found.append(Drawn(one.id, one.question, tuple(candidates), scores, parts, fixed))
    return found


def fit(drawn: Sequence[Drawn], seed: int = 0, heads: int = 8) -> Reward:
    """The reward with its calibration. Raises UsageError where no answer is better than another."""
    rng = np.random.default_rng(seed)
    pairs = [pair for one in drawn for pair in _pairs(one, rng)]
    reward = fit_reward(pairs, heads, seed=seed)
    return calibrated(
        reward,
        np.concatenate([one.parts for one in drawn]),
        [score >= RIGHT for one in drawn for score in one.scores],
        [candidate.expert for one in drawn for candidate in one.candidates],
    )


def _pairs(one: Drawn, rng: np.random.Generator) -> list[Pair]:
    found = [
        Pair(one.parts[a], one.parts[b], one.candidates[a].expert)
        for a, b in itertools.permutations(range(len(one.scores)), 2)
        if one.scores[a] - one.scores[b] >= BETTER
    ]
    return [found[i] for i in rng.permutation(len(found))[:PAIRS]]


# --- measuring ------------------------------------------------------------------------------------------


def cross_fitted(drawn: Sequence[Drawn], folds: int = 5, seed: int = 0) -> list[tuple[Drawn, Reward]]:
    """Every question with a reward that was fitted without it. Raises UsageError for too few questions."""
    if len(drawn) < 2 * folds:
        raise UsageError(f"There are {len(drawn)} questions to learn from.", f"Give at least {2 * folds}.")
    places = np.random.default_rng(seed).permutation(len(drawn)) % folds
    found = []
    for fold in range(folds):
        reward = fit([one for one, place in zip(drawn, places, strict=True) if place != fold], seed)
        found += [(one, reward) for one, place in zip(drawn, places, strict=True) if place == fold]
    return found


def compare(
    fitted: Sequence[tuple[Drawn, Reward]], draws: Sequence[int] = DRAWS, seed: int = 0
) -> Mapping[str, Mapping[int, Floats]]:
    """For each way to choose and each number of samples, the F1 of the chosen answer to each question:
    the vote, the weighted vote, the reward fitted and not, each part of it alone, and the best there is."""
    found: dict[str, dict[int, list[float]]] = {}
    for count in draws:
        rng = np.random.default_rng([seed, count])
        for one, reward in fitted:
            for name, chosen in _choices(one, _sampled(one, count, rng), reward).items():
                score = one.scores[chosen] if chosen is not None else 0.0
                found.setdefault(name, {}).setdefault(count, []).append(score)
    return {name: {n: np.array(values) for n, values in by.items()} for name, by in found.items()}


def _sampled(one: Drawn, count: int, rng: np.random.Generator) -> list[int]:
    """Places of the candidates drawn."""
    if not one.fixed:
        return list(rng.permutation(len(one.candidates))[:count])
    sure = np.clip([candidate.confidence for candidate in one.candidates], 1e-3, 1 - 1e-3)
    odds = sure / (1.0 - sure)
    return list(rng.choice(len(odds), count, p=odds / odds.sum()))


def _choices(one: Drawn, at: Sequence[int], reward: Reward) -> dict[str, int | None]:
    drawn = [one.candidates[i] for i in at]
    agreement = PARTS.index("agreement")
    parts = one.parts[list(at)].copy()
    parts[:, agreement] = parts_of(one.question, drawn)[:, agreement]

    def best(values: Sequence[float]) -> int:
        return at[int(np.argmax(values))]

    def voted(candidate: Candidate | None) -> int | None:
        return next((i for i in at if candidate and one.candidates[i].text == candidate.text), None)

    fitted = [reward.pessimistic(row, c.expert) for row, c in zip(parts, drawn, strict=True)]
    found: dict[str, int | None] = {
        "first": at[0],
        "majority": voted(majority(drawn, len(drawn))),
        "weighted": voted(weighted(drawn, len(drawn))),
        "best-of-n": best(fitted),
        "best-of-n, unfitted": best([UNFITTED.pessimistic(row, "") for row in parts]),
        "oracle": best([one.scores[i] for i in at]),
    }
    return found | {f"{name} alone": best(parts[:, n].tolist()) for n, name in enumerate(PARTS[:-1])}


def chances_of(fitted: Sequence[tuple[Drawn, Reward]]) -> tuple[Floats, Floats]:
    """(probability, right) of every candidate by a reward that has not seen its question."""
    chances, right = [], []
    for one, reward in fitted:
        for row, candidate, score in zip(one.parts, one.candidates, one.scores, strict=True):
            odds = reward.scale * reward.pessimistic(row, candidate.expert) + reward.shift
            chances.append(1.0 / (1.0 + np.exp(-odds)))
            right.append(float(score >= RIGHT))
    return np.array(chances), np.array(right)


def train_reward(drawn: Sequence[Drawn], out: Path, command: str = "", seed: int = 0) -> dict[str, Any]:
    """Fit on all, measure on folds, write the file; what was measured, as JSON: F1 of each way to choose by
    the number of samples, and at most samples the differences to the vote with paired bootstrap intervals.

    Raises UsageError for too few questions, or answers that are all alike.
    """
    fitted = cross_fitted(drawn, seed=seed)
    chosen = compare(fitted, seed=seed)
    most = max(DRAWS)
    chances, right = chances_of(fitted)
    told = {
        "questions": len(drawn),
        "seed": seed,
        "f1": {
            name: {str(n): round(float(values.mean()), 4) for n, values in by.items()}
            for name, by in chosen.items()
        },
        "difference": {
            name: paired_difference(chosen["best-of-n"][most], by[most], seed).to_json()
            for name, by in chosen.items()
            if name not in ("best-of-n", "oracle")
        },
        "ece": ece(chances, right),
    }
    fit(drawn, seed).save(out, {"command": command, **told})
    return told
