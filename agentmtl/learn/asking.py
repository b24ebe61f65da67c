"""How sure an answer out of several passages is: fitted on questions that were really asked of an index.

A logistic model over what `ReaderExpert.features` gives (Platt, "Probabilistic outputs for support vector
machines", 1999), on multi-hop sets with heads that have not seen the question, and on the dev articles of
reading sets' train files, asked over all their contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.evaluate.answer_metrics import contains_answer
from agentmtl.evaluate.datasets import DataSet, Question, kind_of, read_multihop, read_reading, sample
from agentmtl.evaluate.held_out import Folds, open_folds
from agentmtl.evaluate.indexes import index_for
from agentmtl.evaluate.reading_examples import is_dev, read_examples, yes_or_no
from agentmtl.experts.reader import ReaderExpert, asks_yes_or_no
from agentmtl.experts.reading import ASKED, Calibration, Features
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.retrieval.hops.judge import HopJudge
from agentmtl.retrieval.hops.model import shipped
from agentmtl.retrieval.hops.search import HopSettings
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.heads import load_head, save_head

PRECISION = 0.8  # wanted of what is answered
COVERAGE = 0.3  # that the threshold leaves, whatever the precision

Readers = Callable[[Question], ReaderExpert]


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions asked: (n, 6) features and (n,) whether the answer was right."""

    features: NDArray[np.float64]
    right: NDArray[np.bool_]


def calibrate_asking(
    head: Path,
    folds: Path | None,
    sets: Sequence[Path],
    indexes: Path,
    judges: Path | None = None,
    limit: int = 0,
    seed: int = 0,
    watch: Callable[[int], None] = lambda questions: None,
) -> Calibration:
    """Fit the confidence of a head's answers and write it into its card.

    `folds` holds heads fold-0, fold-1 … for the questions of multi-hop sets, and `judges` those of the hops
    head; without them the head itself reads them, and no chain is judged. `limit` questions of each set.
    Raises UsageError where no answer was right, or all were.
    """
    whole = ReaderExpert(open_head(head))
    parts = open_folds(folds, lambda path: ReaderExpert(open_head(path))) if folds else None
    reads = open_folds(judges, lambda path: HopJudge(open_head(path))) if judges else None

    def reader_of(question: Question) -> ReaderExpert:
        return parts.of(question.id) if parts else whole

    asked, sides = [], list[tuple[float, bool]]()
    for folder in sets:
        reading = kind_of(folder) == "reading"
        data = read_reading(folder, "train") if reading else read_multihop(folder)
        readers = (lambda question: whole) if reading else reader_of
        found = ask_all(data, readers, reads, indexes, limit, seed, watch)
        asked += [found] if len(found.right) else []
        sides += [] if reading else ask_sides(data, whole, indexes, watch)
    calibration = fit_asked(asked)
    loaded = load_head(head)
    kept = Calibration.of(loaded.card)
    assert kept is not None  # a reader without one was refused above
    side = fit_side(sides) if sides else kept.side
    fitted = replace(kept, asked=calibration[0], asked_threshold=calibration[1], side=side)
    save_head(replace(loaded, card=replace(loaded.card, calibration=fitted.to_json())), head)
    return fitted


def ask_all(
    data: DataSet,
    readers: Readers,
    judges: Folds[HopJudge] | None,
    indexes: Path,
    limit: int,
    seed: int,
    watch: Callable[[int], None],
) -> Asked:
    """Every question of a set that has a short answer, or none, asked of its index."""
    index = index_for(data, indexes)
    index.add_stream()
    features, right = list[Features](), list[bool]()
    unseen = _dev_questions(data) if data.kind == "reading" else {q.id for q in data.questions}
    questions = [
        q
        for q in data.questions
        if q.id in unseen and (q.answers or not q.answerable) and not asks_yes_or_no(q.question)
    ]
    for question in sample(questions, limit or None, seed):
        settings = HopSettings(judge=judges.of(question.id) if judges else None)
        model = shipped().without(question.id)
        evidence = gather_passages(
            index.retriever, question.question, settings, where=question.where, model=model
        )
        found = readers(question).features(question.question, evidence)
        watch(1)
        if found is not None:
            features.append(found[1])
            said = found[0].citations[-1].text
            right.append(question.answerable and contains_answer(said, question.answers))
    return Asked(np.array(features, float).reshape(-1, len(ASKED)), np.array(right, bool))


def ask_sides(
    data: DataSet, reader: ReaderExpert, indexes: Path, watch: Callable[[int], None]
) -> list[tuple[float, bool]]:
    """(how far yes and no stand apart, whether the one said is right) for the yes-or-no questions of a
    multi-hop set that no head learns from."""
    asked = [
        (q, said)
        for q in data.questions
        if (said := yes_or_no(q.answers)) and asks_yes_or_no(q.question) and is_dev(f"{data.name}:{q.id}")
    ]
    found = list[tuple[float, bool]]()
    if not asked:
        return found
    index = index_for(data, indexes)
    for question, said in asked:
        evidence = gather_passages(index.retriever, question.question, where=question.where)
        above = reader.side(question.question, evidence)
        watch(1)
        if above is not None:
            found.append((abs(above), (above >= 0) == (said == "yes")))
    return found


def fit_side(sides: Sequence[tuple[float, bool]]) -> tuple[float, ...]:
    """A logistic model of yes or no being right, over how far they stand apart; strongly regularised, since
    there are few of these questions. (0, the logit of one half) where all or none were right."""
    from sklearn.linear_model import LogisticRegression

    right = np.array([one[1] for one in sides])
    if right.all() or not right.any():
        return 0.0, 0.0
    model = LogisticRegression(C=0.1).fit(np.array([[one[0]] for one in sides]), right)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _dev_questions(data: DataSet) -> set[str]:
    """The ids of a reading set's questions about articles that no head learns from."""
    return {example.id for example in read_examples(data.folder) if is_dev(example.group)}


def fit_asked(asked: Sequence[Asked]) -> tuple[tuple[float, ...], float]:
    """Weights with the bias, every set weighing the same, and the threshold.

    That is the lowest that leaves answers of which `PRECISION` are right, or else `COVERAGE` of them.
    """
    from sklearn.linear_model import LogisticRegression

    features = np.concatenate([a.features for a in asked])
    right = np.concatenate([a.right for a in asked])
    weights = np.concatenate([np.full(len(a.right), 1.0 / max(1, len(a.right))) for a in asked])
    if right.all() or not right.any():
        raise UsageError(
            "All answers were right, or none was.", "Give sets of harder or of easier questions."
        )
    weights *= len(right) / weights.sum()
    model = LogisticRegression(C=10.0, max_iter=1000).fit(features, right, sample_weight=weights)
    sure = model.predict_proba(features)[:, 1]
    return (*map(float, model.coef_[0]), float(model.intercept_[0])), threshold_of(sure, right, weights)


def threshold_of(sure: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    """See `fit_asked`."""
    order = np.argsort(-sure)
    covered = np.cumsum(weights[order]) / weights.sum()
    precise = np.cumsum((weights * right)[order]) / np.cumsum(weights[order])
    enough = np.flatnonzero((precise >= PRECISION) | (covered <= COVERAGE))
    return float(sure[order][enough[-1]])
