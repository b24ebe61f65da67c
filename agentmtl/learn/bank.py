"""What is learned over tasks for tasks with few examples: episodes, and a search for the likeliest weights.

An episode is a task made poor: some of its labels, 16 of its examples, and others to be predicted from them
(Vinyals et al., "Matching networks for one shot learning", arXiv 1606.04080, section 2.2). The weights are
few (`agentmtl.experts.few_shot.BankWeights`), so they are searched one after the other, the step halved where
none gets better, for the lowest mean of −log p over the episodes of all tasks, each task counting the same,
with a penalty for going far from where the search begins: twenty tasks are few. The bank of an episode holds
no task of the same family, so that its votes are trusted no more than those of strangers deserve; that they
are of relatives, a task's own examples have to show.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from random import Random

import numpy as np

from agentmtl.experts.bank import votes_of
from agentmtl.experts.few_shot import (
    BankWeights,
    Floats,
    Ints,
    Memory,
    Points,
    fit_choice,
    log_softmax,
    predict,
)
from agentmtl.retrieval.bank import DemonstrationBank, centred

SHOTS = 16
ASKED = 32  # of an episode
LABELS = 40  # of an episode, at most
SWEEPS = 4
FAR, FURTHER = 0.01, 0.002  # nats for a doubling squared, and for a unit of log π squared
FREE = ("relating", "joint")  # no penalty: tasks of two parts alone have a say in them, and heed them
SPREADS = (0.3, 1.0, 3.0, 10.0)
WIDE = 30.0  # deviation of the weights of choice from those they start with
_FLOOR = 1e-9

# where the search begins to step, and whether steps multiply
STEPS = {
    "labels": (1.5, True), "content": (2.0, True), "relation": (2.0, True), "evidence": (2.0, True),
    "voting": (1.0, False), "relating": (1.0, False), "joint": (1.0, False), "shrinking": (0.5, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A classification task, encoded: inputs (n) with vectors (n, d), how their two parts relate (n, 5; None:
    no parts), labels (n,), and the vectors of the labels' texts (labels, d)."""

    name: str
    family: str
    inputs: tuple[str, ...]
    content: Floats
    relation: Floats | None
    y: Ints
    labels: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """`asked` are predicted from `shots`."""

    task: str
    shots: Points
    y: Ints
    asked: Points
    answers: Ints
    labels: Floats
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """Questions of a multiple choice: how each option fits (options, 4), and which is right."""

    name: str
    features: tuple[Floats, ...]
    right: tuple[int, ...]


def in_turn(y: Sequence[int], count: int, random: Random) -> list[int]:
    """`count` rows, the labels taken in turn, in random order."""
    by_label: dict[int, list[int]] = {}
    rows = list(range(len(y)))
    random.shuffle(rows)
    for row in rows:
        by_label.setdefault(y[row], []).append(row)
    groups = list(by_label.values())
    random.shuffle(groups)
    return [row for row in chain.from_iterable(zip_longest(*groups)) if row is not None][:count]


def episodes_of(
    view: View, bank: DemonstrationBank, family: Collection[str], count: int, seed: int
) -> list[Episode]:
    """`count` episodes of a task; `family`: the tasks of the bank that are like it."""
    random = Random(f"episodes:{view.name}:{seed}")
    strangers = bank.without({view.name, *family})
    found = [_episode(view, strangers, random) for _ in range(count)]
    return [episode for episode in found if len(episode.answers)]


def _episode(view: View, bank: DemonstrationBank, random: Random) -> Episode:
    total = len(view.labels)
    most = min(total, LABELS)
    kept = random.sample(
        range(total), min(total, max(2, round(np.exp(random.uniform(np.log(2), np.log(most))))))
    )
    places = {label: n for n, label in enumerate(kept)}
    rows = [n for n, label in enumerate(view.y.tolist()) if label in places]
    labels = [places[int(view.y[row])] for row in rows]
    order = in_turn(labels, len(rows), random)
    shots, asked = order[:SHOTS], order[SHOTS : SHOTS + ASKED]
    y = np.array(labels, np.int64)
    texts = view.labels[kept]
    points = [_points(view, [rows[n] for n in part], bank, texts) for part in (shots, asked)]
    return Episode(view.name, points[0], y[shots], points[1], y[asked], texts)


def _points(view: View, rows: Sequence[int], bank: DemonstrationBank, texts: Floats) -> Points:
    votes = None
    if len(bank) and len(rows):
        meanings = centred(np.asarray(texts, np.float32))
        near = ((view.inputs[row], np.asarray(view.content[row], np.float32)) for row in rows)
        votes = np.stack([votes_of(bank, text, vector, meanings) for text, vector in near])
    relation = view.relation[rows] if view.relation is not None else None
    return Points(view.content[rows], relation, votes)


def loss(episodes: Sequence[Episode], weights: BankWeights) -> float:
    """The mean over tasks of the mean of −log p of the right labels."""
    by_task: dict[str, list[float]] = {}
    for one in episodes:
        shares = predict(one.asked, one.shots, one.y, one.labels, weights, one.memory)
        right = shares[np.arange(len(one.answers)), one.answers]
        by_task.setdefault(one.task, []).append(float(-np.log(right + _FLOOR).mean()))
    return float(np.mean([np.mean(values) for values in by_task.values()]))


def search(
    episodes: Sequence[Episode],
    start: BankWeights,
    watch: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[BankWeights, float]:
    """The weights with the lowest loss, penalty included, that steps from `start` lead to, and that loss."""
    best, lowest = start, loss(episodes, start)
    sizes = {name: size for name, (size, _) in STEPS.items()}
    for sweep in range(SWEEPS):
        for name, (_, multiplies) in STEPS.items():
            before = lowest
            for tried in _tried(best, name, sizes[name], multiplies):
                reached = loss(episodes, tried) + penalty(tried, start)
                if reached < lowest:
                    best, lowest = tried, reached
                    break
            if lowest >= before:
                sizes[name] = sizes[name] ** 0.5 if multiplies else sizes[name] / 2
        watch(sweep + 1, SWEEPS, f"weights: {lowest:.4f} nats an answer")
    return best, lowest


def penalty(weights: BankWeights, start: BankWeights) -> float:
    """For how far weights are from where the search began."""
    total = 0.0
    for name, (_, multiplies) in STEPS.items():
        if name in FREE:
            continue
        now, then = float(getattr(weights, name)), float(getattr(start, name))
        total += FAR * np.log2(now / then) ** 2 if multiplies else FURTHER * (now - then) ** 2
    return float(total)


def _tried(weights: BankWeights, name: str, size: float, multiplies: bool) -> list[BankWeights]:
    """A step up and one down."""
    now = float(getattr(weights, name))
    values = (now * size, now / size) if multiplies else (now + size, now - size)
    return [replace(weights, **{name: round(value, 6)}) for value in values]  # type: ignore[arg-type]


def learn_choice(tasks: Sequence[Choices], start: BankWeights, seed: int) -> BankWeights:
    """With what says how an option fits, over tasks of multiple choice, each counting the same, and how far a
    task may go from it, judged by episodes."""
    if not tasks:
        return start
    fewest = min(len(one.features) for one in tasks)
    features = [own for one in tasks for own in one.features[:fewest]]
    right = [answer for one in tasks for answer in one.right[:fewest]]
    found = replace(start, choice=tuple(fit_choice(features, right, start.choice, WIDE).round(4).tolist()))
    losses = {spread: _choice_loss(tasks, replace(found, spread=spread), seed) for spread in SPREADS}
    return replace(found, spread=min(losses, key=lambda spread: losses[spread]))


def _choice_loss(tasks: Sequence[Choices], weights: BankWeights, seed: int) -> float:
    means = []
    for one in tasks:
        random = Random(f"choices:{one.name}:{seed}")
        rows = list(range(len(one.features)))
        random.shuffle(rows)
        shots, asked = rows[:SHOTS], rows[SHOTS:]
        own = fit_choice(
            [one.features[n] for n in shots], [one.right[n] for n in shots], weights.choice, weights.spread
        )
        said = [log_softmax(one.features[n] @ own)[one.right[n]] for n in asked]
        means.append(-float(np.mean(said)) if said else 0.0)
    return float(np.mean(means))
