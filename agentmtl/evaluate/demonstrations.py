"""Demonstration selection and the voter: `agentmtl eval demonstrations`.

Every task's training examples become the demonstrations of an index of its own, and its test inputs are
predicted by the voter from k of them: random ones, or the best by words, by vectors, or by both. The macro
average is over the classification tasks, each counting the same. With an encoder that has a head for
demonstrations ("default+demonstrations") there are two more, by the head's vectors alone ("learned") and with
words ("learned-fused"), beside those of the trunk alone, and the average is over multiple choice too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from agentmtl.errors import IndexMissingError, UsageError
from agentmtl.evaluate.answer_metrics import f1
from agentmtl.evaluate.bootstrap import Floats, Statistic, mean_of
from agentmtl.evaluate.datasets import sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, silent
from agentmtl.evaluate.jsonl import files_hash
from agentmtl.evaluate.report import AnyReport, Report, SetsReport, combine, figures
from agentmtl.experts.demonstrations import DemonstrationVoter, Vote, VoterSettings
from agentmtl.index.batch import Progress
from agentmtl.ingest.demonstrations import read_demonstrations
from agentmtl.retrieval.demonstrations import Selection
from agentmtl.retrieval.example_encoder import By
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.retrieval.retriever import Channel
from agentmtl.retrieval.voting import kernel_weights, tally
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task, load_task
from agentmtl.trunk import load_encoder

BENCHMARK = "demonstrations"
CHANNELS: tuple[Channel, ...] = ("lexical", "dense", "fused")
RANDOM = "random"
DEFAULT = "fused"
LEARNED: Mapping[str, Channel] = {"learned": "dense", "learned-fused": "fused"}
KS = (1, 2, 4, 8, 16)
MAIN_K = 8
RANDOM_DRAWS = 3
CARD = "card.json"
_LABELLED = ("classification", "multiple_choice")  # measured by accuracy


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task folder: card, demonstrations (the train file), and what is predicted (the test file)."""

    task: Task
    train: tuple[Demonstration, ...]
    test: tuple[Demonstration, ...]
    sha256: str


def evaluate_demonstrations(
    data: Path,
    *,
    index_root: Path = DEFAULT_ROOT,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    limit: int | None = None,
    seed: int = 0,
    ks: Sequence[int] = KS,
    plot: Path | None = None,
    commands: Sequence[str] = (),
    progress: Progress = silent,
) -> AnyReport:
    """Accuracy (and macro-f1) of the voter on one task folder, or on every one in a folder.

    `limit` test inputs a task are drawn by `seed`; the demonstrations stay whole. `plot` (PNG): the macro
    accuracy over k. Raises UsageError, IngestError and what building an index raises.
    """
    folders = [data] if (data / CARD).is_file() else sorted(p.parent for p in data.glob(f"*/{CARD}"))
    if not folders:
        raise UsageError(f"{data} holds no task.", "A task is a folder with card.json, train and test.jsonl.")
    wanted = sorted({*ks, MAIN_K})
    curves: list[dict[str, list[float]]] = []
    reports: list[Report] = []
    for folder in folders:
        report, curve = _evaluate(
            read_task(folder), index_root, encoder, backend, limit, seed, wanted, tuple(commands), progress
        )
        reports.append(report)
        if report.details["averaged"]:
            curves.append(curve)
    if plot is not None and curves:
        from agentmtl.evaluate.plot import plot_curves

        means = {
            m: [float(np.mean([c[m][i] for c in curves])) for i in range(len(wanted))] for m in curves[0]
        }
        plot_curves(plot, wanted, means, "demonstrations (k)", "accuracy, macro average")
    return reports[0] if folders == [data] else _macro(data, seed, reports)


def _macro(data: Path, seed: int, reports: Sequence[Report]) -> SetsReport:
    """The sets, with the macro average over those that count in it."""
    averaged = [r for r in reports if r.details["averaged"]]
    whole = combine(BENCHMARK, str(data), seed, averaged or reports, ())
    return SetsReport(
        BENCHMARK, str(data), seed, tuple(reports), whole.macro, whole.differences,
        tuple(r.data for r in reports if averaged and r not in averaged),
    )  # fmt: skip


def read_task(folder: Path) -> TaskData:
    """The card and both files of a task. Raises UsageError, IngestError."""
    task = load_task(folder / CARD)
    paths = [folder / "train.jsonl", folder / "test.jsonl"]
    train, test = (tuple(read_demonstrations(path, task.name)) for path in paths)
    return TaskData(task, train, test, files_hash(paths))


def task_index(data: TaskData, root: Path, encoder: EncoderSpec, backend: str, progress: Progress) -> Index:
    """The index of a task's demonstrations, built where it is not there yet."""
    head = load_encoder(encoder, backend=backend).identity.demonstrations[-8:]
    folder = root / f"demos-{data.task.name}-{data.sha256[:12]}{f'-{head}' if head else ''}"
    try:
        index = Index.open(folder, encoder=encoder, backend=backend)
    except IndexMissingError:
        index = Index.create(folder, encoder=encoder, backend=backend, levels=("passage",), streams=())
    if index.snapshot.manifest.live.get("demonstration", 0) < len({d.source_id for d in data.train}):
        by: By = "head" if head else "auto"  # what is measured, whoever would be taken
        index.add_demonstrations(data.task, data.train, by=by, progress=progress)
    return index


def _evaluate(
    data: TaskData,
    root: Path,
    encoder: EncoderSpec,
    backend: str,
    limit: int | None,
    seed: int,
    ks: Sequence[int],
    commands: tuple[str, ...],
    progress: Progress,
) -> tuple[Report, dict[str, list[float]]]:
    started = time.perf_counter()
    trunk, learned = _apart(encoder)
    index = task_index(data, root, trunk, backend, progress)
    test = sample(data.test, limit, seed)
    right: dict[str, list[_Answers]] = {
        **{RANDOM: _random(index, data, test, ks, seed)},
        **{channel: _selected(index, data.task, test, channel, ks) for channel in CHANNELS},
    }
    if learned:
        headed = task_index(data, root, encoder, backend, progress)
        right |= {name: _selected(headed, data.task, test, of, ks) for name, of in LEARNED.items()}
    default = next(iter(LEARNED)) if learned else DEFAULT
    main = ks.index(MAIN_K)
    metric = "accuracy" if data.task.kind in _LABELLED else "f1"
    measured = {name: _statistics(found[main], test, data.task, metric) for name, found in right.items()}
    pairs = [(default, other) for other in right if other != default] + [("dense", "lexical")]
    compared = {
        f"{a} - {b}": {metric: mean_of(right[a][main].scores - right[b][main].scores)} for a, b in pairs
    }
    curve = {name: [float(f.scores.mean()) for f in found] for name, found in right.items()}
    report = Report(
        BENCHMARK, data.task.name, len(test), seed, figures(measured, seed), default,
        time.perf_counter() - started, commands, figures(compared, seed),
        details={
            "kind": data.task.kind, "averaged": data.task.kind in (_LABELLED if learned else _LABELLED[:1]),
            "k": MAIN_K, "ks": list(ks), "curve": curve,
            "demonstrations": len(data.train), "files": ["train.jsonl", "test.jsonl"], "sha256": data.sha256,
        },
        measured=measured, compared=compared,
    )  # fmt: skip
    return report, curve


def _apart(encoder: EncoderSpec) -> tuple[EncoderSpec, bool]:
    """The trunk of an encoder with a head for demonstrations, and whether it has one."""
    from agentmtl.trunk.headed import BETWEEN, split_name

    named = split_name(encoder) if isinstance(encoder, str) and BETWEEN in encoder else None
    return (named[0], True) if named else (encoder, False)


@dataclass(frozen=True, slots=True)
class _Answers:
    """`scores` (n,): 1 for a right output (or its token F1); `outputs` as predicted."""

    scores: Floats
    outputs: tuple[str, ...]


def _selected(
    index: Index, task: Task, test: Sequence[Demonstration], channel: Channel, ks: Sequence[int]
) -> list[_Answers]:
    """The voter's answers for each k."""
    voter = DemonstrationVoter(index.retriever, task, VoterSettings(Selection(channel=channel)))
    votes = voter.predict_with([d.input for d in test], [d.choices for d in test], ks)
    return [_answers([found[k] for found in votes], test) for k in ks]


def _random(
    index: Index, data: TaskData, test: Sequence[Demonstration], ks: Sequence[int], seed: int
) -> list[_Answers]:
    """k random demonstrations with equal votes, the mean over draws; options: a random one."""
    found: list[_Answers] = []
    for k in ks:
        draws = [_draw(data, test, k, Random(f"{seed}:{k}:{n}")) for n in range(RANDOM_DRAWS)]
        found.append(_Answers(np.mean([d.scores for d in draws], axis=0), draws[0].outputs))
    return found


def _draw(data: TaskData, test: Sequence[Demonstration], k: int, random: Random) -> _Answers:
    outputs = []
    for example in test:
        drawn = [d.output for d in random.sample(data.train, min(k, len(data.train)))]
        votes = tally(drawn, kernel_weights([0.0] * len(drawn), 1.0))
        best = max(votes, key=lambda output: (votes[output], output))
        outputs.append(random.choice(example.choices) if example.choices else best)
    scores = [_score(output, example) for output, example in zip(outputs, test, strict=True)]
    return _Answers(np.array(scores), tuple(outputs))


def _answers(votes: Sequence[Vote], test: Sequence[Demonstration]) -> _Answers:
    scores = [_score(vote.output, example) for vote, example in zip(votes, test, strict=True)]
    return _Answers(np.array(scores), tuple(vote.output for vote in votes))


def _score(output: str, example: Demonstration) -> float:
    """1 or 0 for labels and options; else the token F1."""
    return float(output == example.output)


def _statistics(
    answers: _Answers, test: Sequence[Demonstration], task: Task, metric: str
) -> Mapping[str, Statistic]:
    if metric == "f1":
        overlap = np.array([f1(o, [d.output]) for o, d in zip(answers.outputs, test, strict=True)])
        return {"em": mean_of(answers.scores), "f1": mean_of(overlap)}
    found: dict[str, Statistic] = {"accuracy": mean_of(answers.scores)}
    if task.kind == "classification":
        found["macro-f1"] = macro_f1(answers.outputs, [d.output for d in test])
    return found


def macro_f1(outputs: Sequence[str], wanted: Sequence[str]) -> Statistic:
    """The mean F1 over the labels that occur in the gold, each counting the same."""
    labels = {label: i for i, label in enumerate(sorted({*outputs, *wanted}))}
    given = np.array([labels[o] for o in outputs], np.float64)
    gold = np.array([labels[w] for w in wanted], np.float64)

    def of(mine: Floats, theirs: Floats) -> float:
        a, b = mine.astype(np.int64), theirs.astype(np.int64)
        hits = np.bincount(a[a == b], minlength=len(labels))
        sizes = np.bincount(a, minlength=len(labels)) + np.bincount(b, minlength=len(labels))
        present = np.bincount(b, minlength=len(labels)) > 0
        return float((2 * hits[present] / sizes[present]).mean())

    return Statistic((given, gold), of)
