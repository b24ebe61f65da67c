"""Trains the confidence model of the embedded answerer: `agentmtl.experts.support`.

    python -m agentmtl.learn.support --data train.jsonl --out support.json

Every distinct context goes into one index, and every question is answered from that index, so that the
model sees the evidence it will see in use. A question that its context answers is a positive; one that it
does not answer is a negative, and so, with a small weight, is an answerable question whose own context is
taken out of the evidence. A logistic regression is fitted on the standardised features; its scores over
cross-validation folds that share no article are then calibrated (Platt, "Probabilistic outputs for support
vector machines", 1999) to the chance that the best sentence holds an accepted answer. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.experts.support import SupportModel, first_hop
from agentmtl.experts.support_features import support_features
from agentmtl.retrieval.evidence import EvidenceSettings, gather
from agentmtl.retrieval.index import EncoderSpec, Index
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Document, Evidence

Floats: TypeAlias = NDArray[np.float64]
Fold: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows to train on, rows held out

REMOVED_WEIGHT = 0.1  # of a question whose context was taken out, against 1 for any other
INVERSE_PENALTY = 0.01  # scikit-learn's C
FOLDS = 6
KEPT = 0.9  # of the answerable questions, above the recommended threshold
_RECORD = {"context", "question", "title", "answers", "answerable"}


@dataclass(frozen=True, slots=True)
class Examples:
    """One row an example: a question with the evidence found for it.

    `correct`: the best sentence holds an accepted answer. `removed`: its context was taken out.
    """

    names: tuple[str, ...]
    features: Floats  # (n, f)
    answerable: Floats  # (n,) 0 or 1; 0 where removed
    correct: Floats  # (n,) 0 or 1
    removed: Floats  # (n,) 0 or 1
    articles: tuple[str, ...]

    @property
    def weights(self) -> Floats:
        return np.where(self.removed == 1, REMOVED_WEIGHT, 1.0)


def train_support(data: Path, out: Path, seed: int = 0, encoder: EncoderSpec = "default") -> SupportModel:
    """Train on a file of {title, context, question, answers, answerable}; write the model to `out`.

    `data` is JSON Lines of at least two articles. Raises UsageError for another kind of file, and what
    building an index raises.
    """
    records = _read(data)
    examples = collect(records, encoder)
    folds = folds_by_article(examples.articles, seed)
    held_out = cross_validate(examples, folds)
    raw = fit(examples)
    slope, intercept = _calibrate(held_out, examples)
    calibrated = _sigmoid(slope * held_out + intercept)
    threshold = keeping(calibrated, examples, KEPT)
    card = _card(data, records, seed) | _measured(examples, calibrated, folds)
    model = replace(
        raw, weights=raw.weights * slope, bias=raw.bias * slope + intercept, threshold=threshold, card=card
    )
    out.write_text(json.dumps(_rounded(model.to_json()), indent=1) + "\n", "utf-8")
    return model


def _measured(examples: Examples, calibrated: Floats, folds: Sequence[Fold]) -> dict[str, Any]:
    kept = [keeping(calibrated, examples, share) for share in (0.99, 0.95, 0.9, 0.8, 0.7)]
    return {
        "cross_validation": measures(examples, calibrated, folds),
        "thresholds": [operating_point(calibrated, examples, threshold) for threshold in kept],
        "balanced_threshold": operating_point(calibrated, examples, balanced(calibrated, examples)),
    }


# --- examples ---------------------------------------------------------------------------------------


def _read(data: Path) -> list[dict[str, Any]]:
    try:
        records = [json.loads(line) for line in data.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{data} cannot be read ({error}).", "Give a JSON Lines file.") from error
    if not records or not all(isinstance(r, dict) and r.keys() >= _RECORD for r in records):
        raise UsageError(f"{data} is not a reading set.", f"Each line needs {', '.join(sorted(_RECORD))}.")
    return records


def collect(records: Sequence[dict[str, Any]], encoder: EncoderSpec = "default") -> Examples:
    """Index the distinct contexts, gather evidence for each question, and take its features."""
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "contexts", encoder=encoder)
        documents = {_source(r): Document(_source(r), r["context"], r["title"]) for r in records}
        index.add(documents.values())
        rows = [row for record in records for row in _rows(index, record)]
    names = tuple(rows[0].features)
    return Examples(
        names,
        np.array([[row.features[name] for name in names] for row in rows]),
        np.array([row.answerable for row in rows], np.float64),
        np.array([row.correct for row in rows], np.float64),
        np.array([row.removed for row in rows], np.float64),
        tuple(row.article for row in rows),
    )


def _source(record: dict[str, Any]) -> str:
    return hashlib.sha256(f"{record['title']}\n{record['context']}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Row:
    features: dict[str, float]
    answerable: bool
    correct: bool
    removed: bool
    article: str


def _rows(index: Index, record: dict[str, Any]) -> Iterator[_Row]:
    """The question over the whole index and, if it can be answered, over the index without its context."""
    retriever, question = index.retriever, record["question"]
    answers = [answer["text"] for answer in record["answers"]]
    for removed in (False, True)[: 1 + bool(record["answerable"])]:
        evidence = _without(retriever, record) if removed else gather(retriever, question, hops=1)
        sentences, passages = first_hop(evidence)
        if sentences:
            found = support_features(question, sentences, passages, evidence.idf)
            can = bool(record["answerable"]) and not removed
            held = any(answer in sentences[0].text for answer in answers)
            yield _Row(found, can, can and held, removed, record["title"])


_SPARE = 3  # passages more than are used, since one context may be cut into several


def _without(retriever: Retriever, record: dict[str, Any]) -> Evidence:
    """The evidence that other contexts hold: as many passages, and the sentences in them."""
    usual = EvidenceSettings()
    wider = replace(usual, passages=usual.passages + _SPARE, sentences=10 * usual.sentences)
    evidence = gather(retriever, record["question"], hops=1, settings=wider)
    source = _source(record)
    passages = tuple(h for h in evidence.passages if h.unit.source_id != source)[: usual.passages]
    sources = {h.unit.source_id for h in passages}
    sentences = tuple(h for h in evidence.first_hop if h.unit.source_id in sources)
    return replace(evidence, passages=passages, sentences=sentences, first_hop=sentences)


# --- fitting ----------------------------------------------------------------------------------------


def folds_by_article(articles: Sequence[str], seed: int) -> list[Fold]:
    """Folds that share no article; the articles are dealt out in an order drawn by `seed`."""
    unique = np.unique(articles)
    fold_of = dict(zip(unique, np.random.default_rng(seed).permutation(len(unique)) % FOLDS, strict=True))
    rows = np.array([fold_of[article] for article in articles])
    return [(np.flatnonzero(rows != f), np.flatnonzero(rows == f)) for f in sorted(set(rows.tolist()))]


def fit(examples: Examples, rows: NDArray[np.int64] | None = None) -> SupportModel:
    """A logistic regression on standardised features; not calibrated, no threshold, no card."""
    from sklearn.linear_model import LogisticRegression

    rows = np.arange(len(examples.features)) if rows is None else rows
    features = examples.features[rows]
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    model.fit((features - mean) / scale, examples.answerable[rows], sample_weight=examples.weights[rows])
    weights, bias = model.coef_[0].astype(np.float64), float(model.intercept_[0])
    return SupportModel(examples.names, mean, scale, weights, bias, 0.5, {})


def cross_validate(examples: Examples, folds: Sequence[Fold]) -> Floats:
    """Each example's logit (n,) by the model that did not see its article."""
    logits = np.zeros(len(examples.features))
    for rows, held_out in folds:
        m = fit(examples, rows)
        logits[held_out] = (examples.features[held_out] - m.mean) / m.scale @ m.weights + m.bias
    return logits


def _calibrate(logits: Floats, examples: Examples) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(logits[:, None], examples.correct, sample_weight=examples.weights)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _sigmoid(logits: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-logits))
    return result


# --- measuring --------------------------------------------------------------------------------------


def keeping(probabilities: Floats, examples: Examples, share: float) -> float:
    """The highest threshold that `share` of the answerable questions reach."""
    return float(np.quantile(probabilities[examples.answerable == 1], 1.0 - share, method="lower"))


def balanced(probabilities: Floats, examples: Examples) -> float:
    """The threshold with the best mean of answerable questions kept and unanswerable ones refused."""
    given = examples.removed == 0
    yes = np.sort(probabilities[given & (examples.answerable == 1)])
    no = np.sort(probabilities[given & (examples.answerable == 0)])
    thresholds = np.unique(probabilities[given])
    kept = 1.0 - np.searchsorted(yes, thresholds) / len(yes)
    refused = np.searchsorted(no, thresholds) / len(no)
    return float(thresholds[np.argmax(kept + refused)])


def operating_point(probabilities: Floats, examples: Examples, threshold: float) -> dict[str, float]:
    """What happens at a threshold. Coverage and precision leave out the examples with removed contexts."""
    answered = probabilities >= threshold
    given = examples.removed == 0
    return {
        "threshold": threshold,
        "answerable_answered": _share(answered, examples.answerable == 1),
        "unanswerable_refused": _share(~answered, given & (examples.answerable == 0)),
        "removed_refused": _share(~answered, examples.removed == 1),
        "coverage": _share(answered, given),
        "precision": _share(examples.correct == 1, given & answered),
    }


def _share(what: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(what[among].mean()) if among.any() else 0.0


def measures(examples: Examples, probabilities: Floats, folds: Sequence[Fold]) -> dict[str, Any]:
    """AUROC of answerable against unanswerable (also by fold) and against removed, of correct, and ECE."""
    from sklearn.metrics import roc_auc_score

    given = examples.removed == 0
    held_out = [rows[given[rows]] for _, rows in folds]
    by_fold = [float(roc_auc_score(examples.answerable[r], probabilities[r])) for r in held_out]
    rest = (examples.answerable == 1) | (examples.removed == 1)
    return {
        "auroc": float(roc_auc_score(examples.answerable[given], probabilities[given])),
        "auroc_by_fold": by_fold,
        "auroc_removed": float(roc_auc_score(examples.answerable[rest], probabilities[rest])),
        "auroc_correct": float(roc_auc_score(examples.correct[given], probabilities[given])),
        "ece": calibration_error(probabilities[given], examples.correct[given]),
    }


def calibration_error(probabilities: Floats, correct: Floats, bins: int = 15) -> float:
    """Expected calibration error over bins of equal count (Guo et al., ICML 2017)."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [len(p) * abs(probabilities[p].mean() - correct[p].mean()) for p in parts]
    return float(sum(gaps) / len(probabilities))


def _card(data: Path, records: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    return {
        "task": "probability that the best retrieved sentence answers the question",
        "data": {
            "file": data.name,
            "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
            "questions": len(records),
            "answerable": sum(bool(r["answerable"]) for r in records),
            "articles": len({r["title"] for r in records}),
            "source": "SQuAD 1.1 (Rajpurkar et al., 2016) and 2.0 (Rajpurkar, Jia and Liang, 2018)",
            "licence": "CC BY-SA 4.0; this file holds feature weights, no text of the data",
        },
        "recipe": {
            "model": "logistic regression, calibrated by Platt's method on held-out scores",
            "C": INVERSE_PENALTY,
            "removed_weight": REMOVED_WEIGHT,
            "folds": FOLDS,
            "threshold": f"the highest that {KEPT:.0%} of the answerable questions reach in cross-validation",
        },
        "command": f"python -m agentmtl.learn.support --data {data.name} --out support.json --seed {seed}",
        "seed": seed,
    }


def _rounded(value: Any) -> Any:
    """The same JSON with six significant digits a number."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Train the confidence model of the embedded answerer.")
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines, as reading/squad/train.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="the model's JSON file")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    model = train_support(given.data, given.out, given.seed)
    sys.stdout.write(json.dumps(_rounded(dict(model.card)), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(_run(sys.argv[1:]))
