"""Fits the weights of the hop search: `agentmtl.retrieval.hops.weights.json`.

    python -m agentmtl.learn.hops --data multihop/hotpotqa --data multihop/musique … --out weights.json

Three logistic regressions: is a candidate of hop 1 gold, and are parent and child of a step both gold, for
steps along names and for steps by text. Every set weighs the same, whatever its size. The card holds the
recall of five-fold cross-validation over questions, with the fused search beside it. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.evaluate.datasets import Question, read_multihop, sample
from agentmtl.evaluate.indexes import index_for
from agentmtl.evaluate.metrics import recall_at
from agentmtl.retrieval.hops.beam import expand
from agentmtl.retrieval.hops.graph import Numbers, PassageGraph
from agentmtl.retrieval.hops.model import FEATURES, HopModel, Linear, fold_of
from agentmtl.retrieval.hops.question import Asked, Floats, ask
from agentmtl.retrieval.hops.search import HopSettings, graph_of
from agentmtl.retrieval.hops.select import rank_scores
from agentmtl.retrieval.hops.updaters import Parents

FOLDS = 5
LIMIT = 300  # questions of a set
TRAIN_PART = "train"  # of sets whose questions name their part
KS = (5, 10)

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TrainSet:
    """A set with every question looked up. `sources` (passages,) source ids; `folds` (questions,)."""

    name: str
    sha256: str
    questions: tuple[Question, ...]
    graph: PassageGraph
    sources: NDArray[np.str_]
    asked: tuple[Asked, ...]
    folds: NDArray[np.int64]

    def is_gold(self, question: int, passages: Numbers) -> Flags:
        """(n,): which passages come from a gold source of a question."""
        found: Flags = np.isin(self.sources[passages], list(self.questions[question].gold))
        return found


def load(folder: Path, indexes: Path, seed: int) -> TrainSet:
    """Index a set where it is not indexed yet, and look up `LIMIT` of its questions, drawn by `seed`.

    Raises what `read_multihop` and `index_for` raise.
    """
    data = read_multihop(folder)
    index = index_for(data, indexes)
    index.add_stream()
    parts = parts_of(folder)
    pool = [q for q in data.questions if q.gold and parts.get(q.id, TRAIN_PART) == TRAIN_PART]
    graph = graph_of(index.retriever)
    units = index.snapshot.units("passage", graph.addresses(np.arange(graph.passages)))
    vectors, questions, asked = index.encoder, sample(pool, LIMIT, seed), []
    for question, vector in zip(
        questions, vectors.encode([q.question for q in questions], "query"), strict=True
    ):
        found = ask(graph, question.question, vector)
        assert found is not None
        asked.append(found)
    folds = np.array([fold_of(q.id, FOLDS) for q in questions])
    sources = np.array([u.source_id for u in units])
    return TrainSet(data.name, data.sha256, questions, graph, sources, tuple(asked), folds)


def parts_of(folder: Path) -> dict[str, str]:
    """The official part of each question, where the file says so."""
    lines = (folder / "questions.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    return {r["id"]: r["part"] for r in records if "part" in r}


# --- fitting ----------------------------------------------------------------------------------------


def fit(sets: Sequence[TrainSet], settings: HopSettings, left_out: int = -1) -> HopModel:
    """Fit on every fold but `left_out`."""
    first = _fit_linear([_first_rows(s, i) for s, i in _training(sets, left_out)])
    scorers = {"question": first}
    for kind in ("bridge", "text"):
        updaters = [u for u in settings.updaters if u.kind == kind]
        rows = [
            row
            for s, i in _training(sets, left_out)
            for updater in updaters
            if (row := _step_rows(s, i, first, updater, settings.width)) is not None
        ]
        width = len(FEATURES[kind])
        scorers[kind] = _fit_linear(rows) if rows else Linear(np.zeros(width), -40.0)
    return HopModel(scorers, {})


_Row = tuple[Floats, Flags, float]  # features (n, f), labels (n,), weight of the question


def _training(sets: Sequence[TrainSet], left_out: int) -> list[tuple[TrainSet, int]]:
    return [(s, i) for s in sets for i in range(len(s.asked)) if s.folds[i] != left_out]


def _first_rows(data: TrainSet, question: int) -> _Row:
    asked = data.asked[question]
    return asked.features, data.is_gold(question, asked.candidates), 1.0 / len(data.asked)


def _step_rows(data: TrainSet, question: int, first: Linear, updater: Any, width: int) -> _Row | None:
    asked = data.asked[question]
    scores = first(asked.features)
    best = np.lexsort((asked.candidates, -scores))[:width]
    parents = Parents(asked.candidates[best], scores[best])
    steps = updater.propose(data.graph, asked, parents)
    if not len(steps):
        return None
    passages = parents.passages[steps.parents]
    other = data.sources[passages] != data.sources[steps.children]
    both = data.is_gold(question, passages) & data.is_gold(question, steps.children) & other
    return steps.features, both, 1.0 / len(data.asked)


def _fit_linear(rows: Sequence[_Row]) -> Linear:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([f for f, _, _ in rows])
    labels = np.concatenate([y for _, y, _ in rows])
    weights = np.concatenate([np.full(len(y), w) for _, y, w in rows])
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(features), labels, sample_weight=weights * 1000)
    slopes = model.coef_[0] / scaler.scale_
    return Linear(slopes, float(model.intercept_[0] - slopes @ scaler.mean_))


# --- measuring --------------------------------------------------------------------------------------


def cross_validate(
    sets: Sequence[TrainSet], models: Sequence[HopModel], settings: HopSettings
) -> dict[str, dict[str, float]]:
    """Mean recall of held-out folds by set, and that of dense and lexical search fused.

    `models[f]` has not seen fold f.
    """
    rows: dict[str, list[dict[str, float]]] = {s.name: [] for s in sets}
    for fold, model in enumerate(models):
        for data in sets:
            held_out = [i for i in range(len(data.asked)) if data.folds[i] == fold]
            rows[data.name] += [_recalls(data, i, model, settings) for i in held_out]
    return {
        name: {metric: round(float(np.mean([r[metric] for r in found])), 4) for metric in found[0]}
        for name, found in rows.items()
    }


def _recalls(data: TrainSet, question: int, model: HopModel, settings: HopSettings) -> dict[str, float]:
    asked, gold = data.asked[question], set(data.questions[question].gold)
    beam = expand(data.graph, asked, model, settings.updaters, settings.limits, time.perf_counter())
    scores = rank_scores(data.graph, beam, model.chain, model.mass)
    fused = asked.features[:, 0] + asked.features[:, 1]
    ours = _by_source(data, list(scores), list(scores.values()))
    theirs = _by_source(data, asked.candidates.tolist(), fused.tolist())
    return {
        **{f"recall@{k}": recall_at(ours, gold, k) for k in KS},
        **{f"dense+lexical recall@{k}": recall_at(theirs, gold, k) for k in KS},
    }


def _by_source(data: TrainSet, passages: Sequence[int], scores: Sequence[float]) -> list[tuple[str, float]]:
    best: dict[str, float] = {}
    for passage, score in sorted(zip(passages, scores, strict=True), key=lambda pair: -pair[1]):
        best.setdefault(str(data.sources[passage]), score)
    return list(best.items())


def train_hops(folders: Sequence[Path], out: Path, indexes: Path, seed: int = 0) -> HopModel:
    """Cross-validate, fit on everything, and write the weights with their card to `out`."""
    settings = HopSettings(facets=False)
    sets = [load(folder, indexes, seed) for folder in folders]
    models = [fit(sets, settings, fold) for fold in range(FOLDS)]
    card = {
        "command": "python -m agentmtl.learn.hops",
        "seed": seed,
        "folds": FOLDS,
        "data": {s.name: {"sha256": s.sha256, "questions": len(s.asked)} for s in sets},
        "cross_validation": cross_validate(sets, models, settings),
    }
    fitted = fit(sets, settings)
    model = HopModel(fitted.scorers, card, tuple(m.scorers for m in models))
    out.write_text(json.dumps(_rounded(model.to_json()), indent=1) + "\n", "utf-8")
    return model


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit the weights of the hop search.")
    parser.add_argument("--data", type=Path, action="append", required=True, help="a multi-hop set; repeat")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--indexes", type=Path, default=Path("indexes") / "eval")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    model = train_hops(given.data, given.out, given.indexes, given.seed)
    sys.stdout.write(json.dumps(model.card, indent=1) + "\n")


if __name__ == "__main__":
    main()
