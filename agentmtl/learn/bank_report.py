"""`agentmtl eval bank`: what other tasks' experience is worth to a task with few examples.

For every measured task a bank is learned from all others but those of its family. Then, for every seed,
`shots` examples are drawn from its train file, the labels taken in turn, and its test inputs are predicted
from them alone by

voter         the demonstration voter as it comes, on an index of these examples
examples      Gaussian classes of these examples alone, without the texts of the labels: in-task, read well
labels        the texts of the labels and the same examples, by weights that were not learned, without a bank
bank          the bank without the task's family
same family   the same weights, but the examples of the task's relatives are in the bank too

A value of an input is its mean over the seeds; intervals resample both inputs and seeds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.bootstrap import RESAMPLES, Floats, Interval, bounds
from agentmtl.evaluate.datasets import sample
from agentmtl.evaluate.demonstrations import TaskData, read_task
from agentmtl.evaluate.report import Report
from agentmtl.experts.bank import BankVoter, LearnedBank
from agentmtl.experts.demonstrations import DemonstrationVoter
from agentmtl.experts.few_shot import BankWeights
from agentmtl.learn.bank import in_turn
from agentmtl.learn.bank_recipe import (
    BankRecipe,
    Encode,
    Source,
    Watch,
    bank_of,
    learn_bank,
    read_source,
    remembering,
)
from agentmtl.retrieval.index import Index
from agentmtl.schema import Demonstration
from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Side, Vectors

BENCHMARK = "bank"
MEASURED = ("trec", "sst5", "banking77", "qnli", "commonsenseqa")
VOTER, EXAMPLES, LABELS, BANK, FAMILY = "voter", "examples", "labels", "bank", "same family"
# families of the cards that count as one: what is learned in one is as good as known in the other
ONE_FAMILY = (("sentiment", "subjectivity"), ("commonsense", "science questions"))


class _Remembering:
    """An encoder that encodes no text twice."""

    def __init__(self, encoder: Encoder) -> None:
        self.identity: EncoderIdentity = encoder.identity
        self._encode = remembering(encoder.encode)

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        """As the encoder; empty for no texts."""
        if not texts:
            return np.empty((0, self.identity.dimension), np.float32)
        return self._encode(texts)


@dataclass(frozen=True, slots=True)
class Measuring:
    """`shots` examples in each of `seeds` draws; `limit` test inputs, drawn by `seed`."""

    shots: int = 16
    seeds: int = 10
    limit: int = 400
    seed: int = 0


def evaluate_bank(
    encoder: Encoder,
    folders: Sequence[Path],
    names: Sequence[str],
    how: Measuring,
    recipe: BankRecipe,
    commands: Sequence[str],
    watch: Watch,
    given: LearnedBank | None = None,
) -> list[Report]:
    """A report for each task of `names`. `given`: measure this bank in place of those learned here.

    Raises UsageError for a name that no folder has, and what reading and learning raise.
    """
    by_name = {folder.name: folder for folder in folders}
    unknown = sorted(set(names) - set(by_name))
    if unknown:
        raise UsageError(f"There is no task {', '.join(unknown)}.", f"Choose of {', '.join(by_name)}.")
    known = _Remembering(encoder)
    sources = [] if given else _sources(folders, known.encode, recipe, watch)
    reports = []
    for n, name in enumerate(names):
        started = time.perf_counter()
        banks = {BANK: given} if given else _banks(sources, name, recipe, watch)
        data = read_task(by_name[name])
        plain = _unlearned(next(iter(banks.values())))
        mute = replace(plain, weights=replace(plain.weights, labels=0.0))
        right = _measured(data, known, {EXAMPLES: mute, LABELS: plain, **banks}, how)
        seconds = time.perf_counter() - started
        learned_from = name in banks[BANK].card.get("data", {})
        reports.append(_report(data, right, how, learned_from, tuple(commands), seconds))
        watch(n + 1, len(names), f"measured {name}")
    return reports


def _sources(folders: Sequence[Path], encode: Encode, recipe: BankRecipe, watch: Watch) -> list[Source]:
    found = []
    for n, folder in enumerate(folders):
        source = read_source(folder, encode, recipe)
        found.append(replace(source, family=_one_family(source.family)))
        watch(n + 1, len(folders), f"read {folder.name}")
    return found


def _one_family(family: str) -> str:
    return next((group[0] for group in ONE_FAMILY if family in group), family)


def _banks(sources: Sequence[Source], name: str, recipe: BankRecipe, watch: Watch) -> dict[str, LearnedBank]:
    """Learned without the task's family; and the same weights with its relatives' examples in the bank."""
    family = next(one.family for one in sources if one.task.name == name)
    apart = [one for one in sources if one.family != family]
    others = [one for one in sources if one.task.name != name]
    found = {BANK: learn_bank(apart, recipe, {}, watch)}
    if len(others) > len(apart):
        found[FAMILY] = replace(found[BANK], bank=bank_of(others))
    return found


def _unlearned(learned: LearnedBank) -> LearnedBank:
    """With the weights that the search begins with, and without examples of other tasks."""
    nothing = learned.bank.without({entry.task for entry in learned.bank.entries})
    return LearnedBank(nothing, BankWeights(), learned.usual, learned.spread)


def drawn(data: TaskData, shots: int, seed: int) -> list[Demonstration]:
    """`shots` examples of the train file, the labels of a classification taken in turn."""
    random = Random(f"shots:{data.task.name}:{seed}")
    if data.task.kind != "classification":
        return random.sample(data.train, shots)
    names = {label: n for n, label in enumerate(sorted({example.output for example in data.train}))}
    return [data.train[row] for row in in_turn([names[e.output] for e in data.train], shots, random)]


def _measured(
    data: TaskData, encoder: Encoder, banks: Mapping[str, LearnedBank], how: Measuring
) -> dict[str, Floats]:
    """(seeds, inputs): 1 where the output is right."""
    test = sample(data.test, how.limit, how.seed)
    found: dict[str, list[list[float]]] = {VOTER: [], **{name: [] for name in banks}}
    for seed in range(how.seeds):
        shots = drawn(data, how.shots, seed)
        found[VOTER].append(_voted(data, shots, test, encoder))
        for name, learned in banks.items():
            voter = BankVoter(learned, encoder.encode, data.task, shots)
            said = voter.predict([one.input for one in test], [one.choices for one in test])
            best = [next(iter(judged.probabilities)) for judged in said]
            found[name].append([float(b == one.output) for b, one in zip(best, test, strict=True)])
    return {name: np.array(rows) for name, rows in found.items()}


def _voted(
    data: TaskData, shots: Sequence[Demonstration], test: Sequence[Demonstration], encoder: Encoder
) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "shots", encoder=encoder, levels=("passage",), streams=())
        index.add_demonstrations(data.task, shots)
        voter = DemonstrationVoter(index.retriever, data.task)
        votes = voter.predict([one.input for one in test], [one.choices for one in test])
    return [float(vote.output == one.output) for vote, one in zip(votes, test, strict=True)]


def _report(
    data: TaskData,
    right: Mapping[str, Floats],
    how: Measuring,
    learned_from: bool,
    commands: tuple[str, ...],
    seconds: float,
) -> Report:
    """`learned_from`: whether the bank knows the task itself, so that it is no measure of a new one."""
    names = list(right)
    pairs = [(name, VOTER) for name in names if name != VOTER]
    pairs += [(BANK, other) for other in (EXAMPLES, LABELS)]
    return Report(
        BENCHMARK, data.task.name, right[VOTER].shape[1], how.seed,
        {name: {"accuracy": over_both(right[name], how.seed)} for name in names}, BANK, seconds, commands,
        {f"{a} - {b}": {"accuracy": over_both(right[a] - right[b], how.seed)} for a, b in pairs},
        details={
            "shots": how.shots, "seeds": how.seeds, "labels": len(data.task.labels), "sha256": data.sha256,
            "learned from": learned_from,
        },
    )  # fmt: skip


def over_both(values: Floats, seed: int) -> Interval:
    """The mean of values (draws, inputs), and its interval, both resampled."""
    random = np.random.default_rng(seed)
    draws, inputs = values.shape
    rows = random.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES) / draws
    columns = random.multinomial(inputs, np.full(inputs, 1 / inputs), RESAMPLES) / inputs
    return bounds(float(values.mean()), np.einsum("rd,di,ri->r", rows, values, columns, optimize=True))
