"""How good the cited answers are: `agentmtl eval answers`.

An answer is right where an accepted string stands in what it says: in a quoted sentence, or in a short answer
(`answer-in-citations`: in a sentence that it cites). An abstained answer is
judged by the evidence it carries wherever a metric looks behind the threshold (risk–coverage, aurc, auroc,
ece, answer-in-citations); `coverage` and `precision` show the threshold at work. Yes/no questions have no
string to be found in a sentence: only the metrics of gold sources, gold sentences and coverage count them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agentmtl.evaluate.bootstrap import Floats, Statistic, mean_of
from agentmtl.evaluate.datasets import KINDS, DataSet, Question, find_sets, read_set, sample
from agentmtl.evaluate.indexes import DEFAULT_ROOT, index_for, silent, with_titles
from agentmtl.evaluate.metrics import (
    RiskCoverage,
    aurc,
    auroc,
    contains_answer,
    ece,
    em,
    f1,
    risk_coverage,
)
from agentmtl.evaluate.plot import OperatingPoint, plot_risk_coverage
from agentmtl.evaluate.report import AnyReport, Report, combine, figures
from agentmtl.experts.answers import normalise_answer, without_marks
from agentmtl.index.batch import Progress
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.schema import Answer, Citation, Usage

BENCHMARK = "answers"
METHOD = "agent"
_OVERLAP = 0.8  # of the longer sentence, for a contained one to be the same
_NAN = float("nan")


class AskAgent(Protocol):
    """What is measured: anything that answers a question with citations."""

    def ask(self, question: str) -> Answer:
        """The answer, its citations and its confidence in [0, 1], abstained or not."""
        ...


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Agents made of heads that have not seen the question: `of` a question's id."""

    of: Callable[[str], AskAgent]


AgentFactory = Callable[[Index], AskAgent | HeldOut]


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer, judged. NaN where the question has nothing to judge by.

    `found`: an accepted string stands in a cited sentence. `correct`: in what is said, and wrong where the
    question has no answer. `sentence_precision`, `sentence_recall`, `source_recall`: of the gold.
    """

    confidence: float
    answered: bool
    answerable: bool
    found: float
    correct: float
    em: float
    f1: float
    sentence_precision: float
    sentence_recall: float
    source_recall: float


def evaluate_answers(
    data: Path,
    agent_factory: AgentFactory,
    *,
    index_root: Path = DEFAULT_ROOT,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    titles: bool | None = None,
    plot: Path | None = None,
    commands: Sequence[str] = (),
    progress: Progress = silent,
    asked: Progress = silent,
) -> AnyReport:
    """Ask the agent every question of a multi-hop or reading set, or of every set in a folder.

    `agent_factory` makes the agent over the set's index. `split` names the file of a reading set. `limit`
    questions are drawn by `seed`. `plot` is the risk–coverage picture's file (.png, .svg, .pdf), the set's
    name added for a folder of sets. `progress` counts units indexed, `asked` questions answered.
    Raises UsageError, IngestError, and what building the index or the agent raises.
    """
    found = find_sets(data, KINDS)
    settings = _Settings(
        agent_factory, index_root, encoder, backend, limit, seed, titles, tuple(commands), progress, asked
    )
    reports = []
    for folder in found.sets:
        report, curve = _evaluate(read_set(folder, split), settings)
        if plot is not None:
            target = plot if found.single else plot.with_stem(f"{plot.stem}-{folder.name}")
            _plot(target, report, curve)
        reports.append(report)
    if found.single:
        return reports[0]
    return combine(BENCHMARK, str(data), seed, reports, found.skipped)


@dataclass(frozen=True, slots=True)
class _Settings:
    agent_factory: AgentFactory
    index_root: Path
    encoder: EncoderSpec
    backend: str
    limit: int | None
    seed: int
    titles: bool | None
    commands: tuple[str, ...]
    progress: Progress
    asked: Progress


def _evaluate(data: DataSet, settings: _Settings) -> tuple[Report, RiskCoverage]:
    started = time.perf_counter()
    index = index_for(
        data, settings.index_root, encoder=settings.encoder, backend=settings.backend,
        titles=settings.titles, progress=settings.progress,
    )  # fmt: skip
    built = time.perf_counter()
    questions = sample(data.questions, settings.limit, settings.seed)
    judged, usage = ask_all(settings.agent_factory(index), questions, settings.asked)
    measured = {METHOD: statistics(judged)}
    curve = curve_of(judged)
    ended = time.perf_counter()
    details = {
        **_counts(judged),
        "files": list(data.files),
        "sha256": data.sha256,
        "documents": len(data.documents),
        "titles": with_titles(data, settings.titles),
        "encoder": index.settings.encoder.name,
        "index": str(index.folder),
        "usage": usage.to_json(),
        "risk_coverage": [[round(c, 6), round(r, 6)] for c, r in curve.thinned()],
        "seconds": {"index": round(built - started, 3), "questions": round(ended - built, 3)},
    }
    report = Report(
        BENCHMARK, data.name, len(questions), settings.seed, figures(measured, settings.seed), METHOD,
        ended - started, settings.commands, details=details, measured=measured,
    )  # fmt: skip
    return report, curve


def ask_all(
    agent: AskAgent | HeldOut, questions: Sequence[Question], asked: Progress = silent
) -> tuple[list[Judged], Usage]:
    """Ask and judge every question in turn; also what all answers together report as spent."""
    judged: list[Judged] = []
    usage = Usage()
    for question in questions:
        answer = (agent.of(question.id) if isinstance(agent, HeldOut) else agent).ask(question.question)
        judged.append(judge(question, answer))
        usage += answer.usage
        asked(1)
    return judged, usage


# --- judging one answer -----------------------------------------------------------------------------


def judge(question: Question, answer: Answer) -> Judged:
    """The answer against what is known of the question."""
    found = float(any(contains_answer(c.sentence, question.answers) for c in answer.citations))
    precision, recall = sentence_scores(answer.citations, question.supporting)
    return Judged(
        confidence=answer.confidence,
        answered=not answer.abstained,
        answerable=question.answerable,
        found=found if _has_string(question) else _NAN,
        correct=_correct(question, answer),
        em=_text_score(em, question, answer),
        f1=_text_score(f1, question, answer),
        sentence_precision=precision,
        sentence_recall=recall,
        source_recall=_source_recall(answer.citations, question.gold),
    )


def _correct(question: Question, answer: Answer) -> float:
    """Whether an accepted answer stands in what was said: in the quoted sentences, or in the short answer,
    which the last citation is. NaN for yes and no."""
    if not question.answerable:
        return 0.0
    if not _has_string(question):
        return _NAN
    said = answer.citations[-1:] if any(c.quote for c in answer.citations) else answer.citations
    return float(any(contains_answer(c.text, question.answers) for c in said))


def _has_string(question: Question) -> bool:
    """Whether an accepted answer can stand in a sentence as evidence: "yes" and "no" cannot."""
    return any(normalise_answer(a) not in {"yes", "no"} for a in question.answers)


def _text_score(score: Callable[[str, Sequence[str]], float], question: Question, answer: Answer) -> float:
    """EM or F1 of the answer's text. As in SQuAD 2.0 no answer is right for an unanswerable question."""
    if not question.answerable:
        return float(answer.abstained)
    if not question.answers:
        return _NAN
    return 0.0 if answer.abstained else score(without_marks(answer.text), question.answers)


def sentence_scores(
    citations: Sequence[Citation], supporting: Sequence[tuple[str, str]]
) -> tuple[float, float]:
    """(share of the citations that are gold sentences, share of the gold sentences that are cited).

    NaN where there is no gold; the precision also where nothing is cited.
    """
    if not supporting:
        return _NAN, _NAN
    cited = [(c.source, c.sentence) for c in citations]
    gold_cited = [any(same_sentence(c, g) for g in supporting) for c in cited]
    gold_found = [any(same_sentence(c, g) for c in cited) for g in supporting]
    precision = float(np.mean(gold_cited)) if cited else _NAN
    return precision, float(np.mean(gold_found))


def same_sentence(cited: tuple[str, str], gold: tuple[str, str]) -> bool:
    """Whether two (source, sentence) pairs are one sentence, whatever the white space.

    One may hold the other where that is at least 80 % of it: splitters differ over a closing bracket.
    """
    first, second = " ".join(cited[1].split()), " ".join(gold[1].split())
    if cited[0] != gold[0] or not first or not second:
        return False
    short, long = sorted((first, second), key=len)
    return short in long and len(short) >= _OVERLAP * len(long)


def _source_recall(citations: Sequence[Citation], gold: Sequence[str]) -> float:
    return len({c.source for c in citations} & set(gold)) / len(gold) if gold else _NAN


# --- all answers together ---------------------------------------------------------------------------


def statistics(judged: Sequence[Judged]) -> dict[str, Statistic]:
    """Every metric that the judged answers have, by name."""
    found = _column(judged, "found")
    answered = _column(judged, "answered")
    answerable = _column(judged, "answerable")
    by_mean = {
        "answer-in-citations": mean_of(found),
        "coverage": mean_of(answered),
        "gold-sentence-precision": mean_of(_column(judged, "sentence_precision")),
        "gold-sentence-recall": mean_of(_column(judged, "sentence_recall")),
        "gold-source-recall": mean_of(_column(judged, "source_recall")),
        "em": mean_of(_column(judged, "em")),
        "f1": mean_of(_column(judged, "f1")),
        "abstained-answerable": mean_of(1 - answered[answerable == 1]),
        "abstained-unanswerable": mean_of(1 - answered[answerable == 0]),
    }
    return {**by_mean, **_by_confidence(judged)}


def _by_confidence(judged: Sequence[Judged]) -> dict[str, Statistic]:
    confidence, correct = _column(judged, "confidence"), _column(judged, "correct")
    known = ~np.isnan(correct)
    pair = (confidence[known], correct[known])
    return {
        "precision": Statistic((_column(judged, "answered")[known], correct[known]), _precision),
        "auroc": Statistic((confidence, _column(judged, "answerable")), auroc),
        "auroc-correct": Statistic(pair, auroc),
        "ece": Statistic(pair, ece),
        "aurc": Statistic(pair, aurc),
    }


def _precision(answered: Floats, correct: Floats) -> float:
    """Share of the answers given that are right; NaN where none is given."""
    given = answered.sum()
    return float((answered * correct).sum() / given) if given else _NAN


def _column(judged: Sequence[Judged], name: str) -> Floats:
    return np.array([getattr(j, name) for j in judged], np.float64)


def curve_of(judged: Sequence[Judged]) -> RiskCoverage:
    """The risk–coverage curve over all answers that can be judged; answering the unanswerable is wrong."""
    correct = _column(judged, "correct")
    known = ~np.isnan(correct)
    return risk_coverage(_column(judged, "confidence")[known], correct[known])


def _counts(judged: Sequence[Judged]) -> Mapping[str, Any]:
    return {
        "counts": {
            "answerable": sum(j.answerable for j in judged),
            "unanswerable": sum(not j.answerable for j in judged),
            "judged": int(np.count_nonzero(~np.isnan(_column(judged, "correct")))),
            "gold_sentences": int(np.count_nonzero(~np.isnan(_column(judged, "sentence_recall")))),
        }
    }


def _plot(path: Path, report: Report, curve: RiskCoverage) -> None:
    metrics = report.methods[METHOD]
    threshold = None
    if "precision" in metrics:
        threshold = OperatingPoint(metrics["coverage"].mean, 1 - metrics["precision"].mean)
    plot_risk_coverage({METHOD: curve}, path, f"{report.data}: {report.n} questions", threshold)
