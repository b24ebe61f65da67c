"""A router learned from rows (query, expert, score, cost): how well each expert did on queries like this one.

For each expert its own model of the chance of a good answer: a logistic one over the query's vector, its
length, how alike the options are that it lists, and the mean score of its nearest rows, themselves left out.
Where there are few rows the neighbours are shrunk to the expert's mean. Sources: k nearest neighbours as in
RouterBench (Hu et al., arXiv 2403.12031); the length of a prompt is a baseline of its own in such data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.routing.options import FEATURES, likeness, options_of
from agentmtl.routing.route import Floats
from agentmtl.trunk.encoder import Encoder

TENSORS, CARD = "router.safetensors", "router.json"
FORMAT = 2
_SCALE = 3.0  # of vectors and cosines, which are regularised less by it
_OPTIONS = slice(-2 - FEATURES, -2)  # of an expert's weights: before those of the neighbours and the constant


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """`neighbours` of a query; `shrink`: how many rows the expert's mean counts as; `strength`: C of the
    logistic models."""

    neighbours: int = 60
    shrink: float = 10.0
    strength: float = 0.03


@dataclass(frozen=True, slots=True)
class Rows:
    """What was observed: unit `vectors` (n, d), `texts`, and `scores` (n, experts) of 0 to 1; NaN: not
    asked. `options` (n, 4): `likeness` of each text's; None: it lists none."""

    vectors: Floats
    texts: tuple[str, ...]
    scores: Floats
    experts: tuple[str, ...]
    options: Floats | None = None


class FittedRouter:
    """See the top of this module. `encoder`: the one of the rows' vectors, which reads the options that a
    query lists."""

    def __init__(
        self,
        rows: Rows,
        weights: Floats,
        settings: RouterSettings,
        details: Mapping[str, Any] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self.rows, self.weights, self.settings, self._encoder = rows, weights, settings, encoder
        self.details = dict(details or {})
        self._neighbours = _Neighbours(rows, settings)

    @property
    def experts(self) -> tuple[str, ...]:
        return self.rows.experts

    @classmethod
    def fit(
        cls, rows: Rows, settings: RouterSettings | None = None, encoder: Encoder | None = None
    ) -> FittedRouter:
        """Raises UsageError for an expert whose rows are all good or all bad: there is nothing to tell
        apart."""
        from sklearn.linear_model import LogisticRegression

        settings = settings or RouterSettings()
        near = _Neighbours(rows, settings).means(rows.vectors, leave_self_out=True)
        options = rows.options if rows.options is not None else np.zeros((len(rows.vectors), FEATURES))
        centred, centre = _centred(options)
        weights = []
        for column, name in enumerate(rows.experts):
            known = ~np.isnan(rows.scores[:, column])
            good = rows.scores[known, column] >= 0.5
            if good.all() or not good.any():
                raise UsageError(
                    f"All rows of {name} are {'good' if good.all() else 'bad'}.", "Give rows of both kinds."
                )
            features = _features(rows.vectors, rows.texts, centred, near[:, column])[known]
            model = LogisticRegression(C=settings.strength, max_iter=500).fit(features, good)
            learned = np.concatenate([model.coef_[0], model.intercept_])
            weights.append(_of_bare(learned, centre))
        return cls(rows, np.array(weights), settings, encoder=encoder)

    def probabilities(self, vectors: Floats, texts: Sequence[str], options: Floats | None = None) -> Floats:
        """(n, experts) that each answers well. `options` (n, 4): `likeness` of the texts', where it is known.

        Raises UsageError for a text with options where there is no encoder to read them.
        """
        if options is None:
            options = self._likeness(texts)
        near = self._neighbours.means(np.asarray(vectors, np.float64))
        columns = []
        for column, weights in enumerate(self.weights):
            features = _features(vectors, texts, options, near[:, column])
            columns.append(1.0 / (1.0 + np.exp(-(features @ weights[:-1] + weights[-1]))))
        return np.stack(columns, axis=1)

    def _likeness(self, texts: Sequence[str]) -> Floats:
        if not self.weights[:, _OPTIONS].any():
            return np.zeros((len(texts), FEATURES))
        if self._encoder is not None:
            return likeness(texts, self._encoder)
        if any(options_of(text) for text in texts):
            raise UsageError(
                "The router has no encoder to read the options of a query with.",
                "Open it with one: FittedRouter.load(folder, encoder)",
            )
        return np.zeros((len(texts), FEATURES))

    def novelty(self, vectors: Floats) -> Floats:
        """(n,) how unlike its nearest row each query is: 1 − cosine."""
        return np.asarray(1.0 - (np.asarray(vectors, np.float64) @ self.rows.vectors.T).max(axis=1))

    def save(self, folder: Path) -> None:
        """Two files: tensors, and JSON of the experts, the settings and the texts' lengths."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {
                "vectors": self.rows.vectors.astype(np.float32),
                "scores": self.rows.scores.astype(np.float32),
                "weights": self.weights.astype(np.float64),
            },
            folder / TENSORS,
        )
        card = {
            "format": FORMAT, "experts": list(self.experts), "settings": asdict(self.settings),
            "details": self.details,
        }  # fmt: skip
        (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> FittedRouter:
        """`encoder`: the one it was trained with. Raises UsageError where the folder holds no router of this
        format."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            card = json.loads((folder / CARD).read_text("utf-8"))
            tensors = load_file(folder / TENSORS)
            if card["format"] != FORMAT:
                raise ValueError(f"format {card['format']}")
            rows = Rows(
                tensors["vectors"].astype(np.float64), (), tensors["scores"].astype(np.float64),
                tuple(card["experts"]),
            )  # fmt: skip
            settings = RouterSettings(**card["settings"])
            return cls(rows, tensors["weights"], settings, card["details"], encoder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UsageError(
                f"{folder} holds no router: {error}.", "Make one: agentmtl train router"
            ) from error


def _features(vectors: Floats, texts: Sequence[str], options: Floats, near: Floats) -> Floats:
    """(n, d + 6): the vector, the log of the text's length, how alike its options are, and the log-odds of
    the neighbours' mean."""
    lengths = np.log1p([len(text) for text in texts]) / 5.0
    odds = np.log(near / (1.0 - near))
    return np.column_stack([np.asarray(vectors, np.float64) * _SCALE, lengths, options * _SCALE, odds])


def _centred(options: Floats) -> tuple[Floats, Floats]:
    """(likeness of options with the centre (4,) taken off, the centre): the share of rows with options, and
    their mean cosines. So a query without options counts as one of mean likeness, and not as one whose
    options have nothing in common."""
    listed = options[:, 0] > 0
    centre = np.zeros(FEATURES)
    if listed.any():
        centre[0], centre[1:] = listed.mean(), options[listed, 1:].mean(axis=0)
    centred = options.copy()
    centred[listed, 1:] -= centre[1:]
    centred[:, 0] -= centre[0]
    return centred, centre


def _of_bare(learned: Floats, centre: Floats) -> Floats:
    """The weights learned of centred features as weights of those that are not."""
    found, options = learned.copy(), learned[_OPTIONS]
    found[_OPTIONS.start] -= options[1:] @ centre[1:]
    found[-1] -= _SCALE * options[0] * centre[0]
    return found


class _Neighbours:
    """The mean score of the nearest rows, shrunk to the expert's own. The search is in single precision: it
    reads every row's vector for every query."""

    def __init__(self, rows: Rows, settings: RouterSettings) -> None:
        self._vectors = np.ascontiguousarray(rows.vectors, np.float32)
        self._scores, self._settings = rows.scores, settings
        self._means = np.nanmean(rows.scores, axis=0)

    def means(self, vectors: Floats, leave_self_out: bool = False, block: int = 1024) -> Floats:
        """(n, experts) within (0, 1)."""
        settings = self._settings
        count = min(settings.neighbours, len(self._vectors) - int(leave_self_out))
        found = []
        for at in range(0, len(vectors), block):
            cosines = vectors[at : at + block].astype(np.float32) @ self._vectors.T
            if leave_self_out:
                own = np.arange(at, min(at + block, len(vectors)))
                cosines[own - at, own] = -2.0
            nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
            near = self._scores[nearest]  # (n, neighbours, experts)
            known = (~np.isnan(near)).sum(axis=1)
            total = np.nansum(near, axis=1) + settings.shrink * self._means
            found.append(total / (known + settings.shrink))
        return np.asarray(np.clip(np.concatenate(found), 1e-3, 1 - 1e-3))
