"""Reading: `agentmtl eval reading`. A question over its own context: the words that answer it, or none.

em, f1      of the best answer to questions that have one, given whatever the confidence (SQuAD's
            normalisation: Rajpurkar et al., arXiv 1806.03822)
auroc       of telling questions that have an answer in their context from those that have none
here        AUROC of telling a context that is the one to read from one where the answer is elsewhere; these
            count in no other metric
ece         of the confidence against being exactly right; what has no answer counts as wrong
coverage, precision    of what is answered above the head's own threshold
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from agentmtl.evaluate.answer_metrics import auroc, ece, em, f1
from agentmtl.evaluate.bootstrap import Floats, Statistic, mean_of
from agentmtl.evaluate.datasets import read_reading, sample
from agentmtl.evaluate.reading_examples import ReadingExample, read_examples
from agentmtl.evaluate.report import Report, figures
from agentmtl.experts.reading import SPAN, Calibration, Reading, readings_of
from agentmtl.trunk.head_network import HeadNetwork

BENCHMARK = "reading"
_AT_ONCE = 64  # examples between two reports of progress


def evaluate_reading(
    data: Path,
    heads: Mapping[str, HeadNetwork],
    *,
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    commands: Sequence[str] = (),
    progress: Callable[[int], None] = lambda examples: None,
) -> Report:
    """Every head on a reading set; differences are to the last one. Sizes and times are in `details`.

    Raises UsageError where the set is not there, IngestError for a bad line.
    """
    started = time.perf_counter()
    examples = sample(read_examples(data, split), limit, seed)
    measured, details = {}, {}
    for name, network in heads.items():
        at = time.perf_counter()
        found = read(network, examples, progress)
        seconds = time.perf_counter() - at
        calibration = Calibration.of(network.head.card)
        measured[name] = reading_metrics(examples, found, calibration)
        details[name] = {"bytes": network.bytes, "milliseconds an example": 1000 * seconds / len(examples)}
    last = list(heads)[-1]
    compared = {
        f"{name} - {last}": {
            m: mean_of(_column(measured, name, m) - _column(measured, last, m)) for m in ("f1", "em")
        }
        for name in heads
        if name != last
    }
    return Report(
        BENCHMARK, data.resolve().name, len(examples), seed, figures(measured, seed), last,
        time.perf_counter() - started, tuple(commands),
        differences=figures(compared, seed), measured=measured, compared=compared,
        details={"file": f"{split}.jsonl", "sha256": read_reading(data, split).sha256, "heads": details},
    )  # fmt: skip


def _column(measured: Mapping[str, Mapping[str, Statistic]], name: str, metric: str) -> Floats:
    return measured[name][metric].columns[0]


def read(
    network: HeadNetwork, examples: Sequence[ReadingExample], progress: Callable[[int], None]
) -> dict[int, Reading]:
    """Every example read, by its number."""
    found: dict[int, Reading] = {}
    for start in range(0, len(examples), _AT_ONCE):
        part = examples[start : start + _AT_ONCE]
        windows = network.cutter.windows([e.question for e in part], [e.text for e in part])
        readings = readings_of(windows, network.run(windows))
        found |= {start + n: reading for n, reading in readings.items()}
        progress(len(part))
    return found


def reading_metrics(
    examples: Sequence[ReadingExample],
    found: Mapping[int, Reading],
    calibration: Calibration | None = None,
) -> dict[str, Statistic]:
    """See the top of this module; what the calibration says only where there is one."""
    here = np.array([example.kind != "elsewhere" for example in examples])
    wanted = Statistic((np.array([found[n].here for n in range(len(examples))]), here.astype(float)), auroc)
    found = {at: found[n] for at, n in enumerate(np.flatnonzero(here).tolist())}
    examples = [example for example in examples if example.kind != "elsewhere"]
    has = np.array([example.kind != "none" for example in examples])
    right = np.array([em(said(e, found[n]), e.accepted) if has[n] else 0.0 for n, e in enumerate(examples)])
    shared = [f1(said(e, found[n]), e.accepted) for n, e in enumerate(examples) if has[n]]
    margins = np.array([found[n].margin for n in range(len(examples))])
    metrics = {
        **({} if here.all() else {"here": wanted}),
        "f1": mean_of(shared),
        "em": mean_of(right[has]),
        "auroc": Statistic((margins, has.astype(float)), auroc),
    }
    if calibration is None:
        return metrics
    sure = np.array([calibration.of_right(found[n]) for n in range(len(examples))])
    answered = np.array(
        [calibration.of_answer(found[n]) >= calibration.threshold for n in range(len(examples))]
    )
    return {
        **metrics,
        "ece": Statistic((sure, right), ece),
        "coverage": mean_of(answered.astype(float)),
        "precision": mean_of(right[answered]),
    }


def said(example: ReadingExample, reading: Reading) -> str:
    """The answer read, given whatever its confidence."""
    if reading.kind != SPAN:
        return reading.kind
    return example.text[reading.spans[0].start : reading.spans[0].end] if reading.spans else ""
