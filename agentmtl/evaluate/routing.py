"""Routing, measured: `agentmtl eval routing`.

a file of {prompt, weak, strong, subject, split}    fitted on split = train, judged on split = test;
and, on the
                                                    train rows, subjects that were never seen (grouped
                                                    folds)
a folder of {text, domain} with cards               who is chosen by description alone, and by what was
fitted
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import ece
from agentmtl.evaluate.bootstrap import Statistic
from agentmtl.evaluate.jsonl import read_records
from agentmtl.evaluate.report import Report, figures
from agentmtl.evaluate.router_metrics import Floats, apgr, cpt, folds_of_groups
from agentmtl.routing.fitted import FittedRouter, RouterSettings, Rows
from agentmtl.routing.options import likeness
from agentmtl.trunk.encoder import Encoder
from agentmtl.trunk.kept import kept_vectors

BENCHMARK = "routing"
EXPERTS = ("strong", "weak")
FOLDS = 5
_BLIND, _UNSEEN = ", without options", ", unseen subjects"


@dataclass(frozen=True, slots=True)
class Prompts:
    """`weak`, `strong` (n,): 1 where the expert answered rightly. `options` (n, 4): `likeness` of the texts'
    options."""

    texts: tuple[str, ...]
    subjects: tuple[str, ...]
    weak: Floats
    strong: Floats
    vectors: Floats
    options: Floats

    def of(self, rows: Sequence[int]) -> Prompts:
        return Prompts(
            tuple(self.texts[n] for n in rows), tuple(self.subjects[n] for n in rows), self.weak[rows],
            self.strong[rows], self.vectors[rows], self.options[rows],
        )  # fmt: skip


def read_prompts(path: Path, encoder: Encoder, cache: Path | None = None) -> dict[str, Prompts]:
    """The two splits, encoded; `cache`: a folder that keeps the vectors.

    Raises UsageError for a file without both splits.
    """
    texts, subjects, scores, splits = [], [], [], []
    for record in read_records(path):
        texts.append(record.text("prompt"))
        subjects.append(record.text("subject"))
        scores.append((record.number("weak"), record.number("strong")))
        splits.append(record.text("split"))
    if set(splits) != {"train", "test"}:
        raise UsageError(f"{path} has the splits {sorted(set(splits))}.", "Give train and test.")
    both = np.array(scores)
    vectors = kept_vectors(encoder, texts, "query", cache) if cache else encoder.encode(texts, "query")
    every = Prompts(
        tuple(texts), tuple(subjects), both[:, 0], both[:, 1], vectors.astype(np.float64),
        likeness(texts, encoder, cache),
    )  # fmt: skip
    return {s: every.of([n for n, mine in enumerate(splits) if mine == s]) for s in ("train", "test")}


def gain(router: FittedRouter, prompts: Prompts) -> Floats:
    """(n,) how much likelier the strong expert is to be right than the weak one."""
    chances = router.probabilities(prompts.vectors, prompts.texts, prompts.options)
    return np.asarray(chances[:, 0] - chances[:, 1])


def fit(prompts: Prompts, settings: RouterSettings, encoder: Encoder | None = None) -> FittedRouter:
    """`encoder`: where the router is then asked about texts whose options nobody has read yet."""
    scores = np.stack([prompts.strong, prompts.weak], axis=1)
    rows = Rows(prompts.vectors, prompts.texts, scores, EXPERTS, prompts.options)
    return FittedRouter.fit(rows, settings, encoder)


def cross_validated(prompts: Prompts, settings: RouterSettings, folds: np.ndarray) -> Floats:
    """(n,) gains, each by a router that has not seen the fold."""
    found = np.zeros(len(prompts.texts))
    for fold in range(int(folds.max()) + 1):
        seen, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        found[held] = gain(fit(prompts.of(seen.tolist()), settings), prompts.of(held.tolist()))
    return found


def evaluate_prompts(
    path: Path,
    encoder: Encoder,
    settings: RouterSettings,
    *,
    cache: Path | None = None,
    seed: int = 0,
    commands: Sequence[str] = (),
) -> Report:
    """The fitted router and its baselines: the prompt's length, the mean gain of its subject, and the router
    that does not look at the options.

    Raises UsageError for a file of another form.
    """
    started = time.perf_counter()
    split = read_prompts(path, encoder, cache)
    train, test = split["train"], split["test"]
    router = fit(train, settings)
    groups = folds_of_groups(train.subjects, FOLDS, seed)
    blind_train, blind_test = _without_options(train), _without_options(test)
    ways = {
        "length": (_by_length(train, test), test),
        "subject": (_by_subject(train, test), test),
        "fitted": (gain(router, test), test),
        f"fitted{_BLIND}": (gain(fit(blind_train, settings), blind_test), test),
        f"length{_UNSEEN}": (_by_length(train, train), train),
        f"fitted{_UNSEEN}": (cross_validated(train, settings, groups), train),
        f"fitted{_BLIND}{_UNSEEN}": (cross_validated(blind_train, settings, groups), train),
    }
    compared = {
        f"fitted{where} - fitted{_BLIND}{where}": {
            "apgr": Statistic(
                (ways[f"fitted{where}"][0], ways[f"fitted{_BLIND}{where}"][0], on.weak, on.strong), _apgr_gain
            )
        }
        for where, on in (("", test), (_UNSEEN, train))
    }
    measured = {name: _measures(scores, prompts) for name, (scores, prompts) in ways.items()}
    sure = router.probabilities(test.vectors, test.texts, test.options)[:, 0]
    measured["fitted"]["ece"] = Statistic((sure, test.strong), ece)
    return Report(
        BENCHMARK, path.stem, len(test.texts), seed, figures(measured, seed), "fitted",
        time.perf_counter() - started, tuple(commands), figures(compared, seed), measured=measured,
        compared=compared,
        details={
            "train": len(train.texts), "subjects": len(set(train.subjects)), "settings": asdict(settings),
        },
    )  # fmt: skip


def _without_options(prompts: Prompts) -> Prompts:
    return replace(prompts, options=np.zeros_like(prompts.options))


def _apgr_gain(mine: Floats, other: Floats, weak: Floats, strong: Floats) -> float:
    return apgr(mine, weak, strong) - apgr(other, weak, strong)


def _measures(scores: Floats, prompts: Prompts) -> dict[str, Statistic]:
    columns = (scores, prompts.weak, prompts.strong)
    wanted: Mapping[str, Callable[..., float]] = {
        "apgr": apgr,
        "cpt@50": partial(cpt, wanted=0.5),
        "cpt@80": partial(cpt, wanted=0.8),
    }
    return {name: Statistic(columns, function) for name, function in wanted.items()}


def _by_length(train: Prompts, test: Prompts) -> Floats:
    """(n,) the length of a prompt, the longer or the shorter first, as it pays on the train rows."""
    lengths = np.array([float(len(text)) for text in train.texts])
    sign = 1.0 if apgr(lengths, train.weak, train.strong) >= 0.5 else -1.0
    return sign * np.array([float(len(text)) for text in test.texts])


def _by_subject(train: Prompts, test: Prompts) -> Floats:
    """(n,) the mean gain of a prompt's subject on the train rows; of an unknown one the mean of all."""
    gains = train.strong - train.weak
    names = np.array(train.subjects)
    means = {name: float(gains[names == name].mean()) for name in set(train.subjects)}
    return np.array([means.get(name, float(gains.mean())) for name in test.subjects])
