"""The topic segmenter's fit: a map in closed form, then the likelihood of whole segmentations.

    topics          linear discriminant analysis (Fisher, 1936) of pieces of texts: directions in which
                    pieces differ more than the sentences of one do
    same topic      what is left, some hundred numbers, by the log likelihood of a document's own segmentation
                    among all (semi-Markov; labels of "same topic" for free: arXiv 2301.01935), whichever
                    of a few kinds of texts, with short topics or long ones, it is of

The map is made from some titles, the rest fitted on documents of others: on its own titles it is surer than
it should be. A segment's score is `agentmtl.ingest.topics.TopicSegmenter.evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agentmtl.evaluate.segmentation_metrics import half_segment, pk, windowdiff
from agentmtl.ingest.segmenter import Floats
from agentmtl.ingest.topics import CENTRE, TopicSegmenter, boundary_odds
from agentmtl.learn.segmenter_documents import Made, Topics
from agentmtl.learn.training import by_length
from agentmtl.trunk.encoder import Vectors

if TYPE_CHECKING:
    import torch

LONGEST = 24  # sentences of a segment while fitting: more than a piece has
PIECE = 8  # sentences of a piece, for the map
RIDGE = 2.0  # times the mean variance, added to the variance within pieces: directions that few titles tell
THRESHOLDS = np.linspace(-2.0, 2.0, 21)
_FAR = -1e4
_LEAST_SPREAD = 0.02


def discriminant(
    topics: Sequence[Topics], vectors: Mapping[str, Vectors], rank: int
) -> tuple[Floats, Floats, Floats]:
    """(d, r), (r,), (r,): a map after which sentences vary about the mean of their piece with variance 1 on
    average, its offset, and the variance of pieces' means."""
    pieces = [
        np.stack([vectors[s] for s in sentences[at : at + PIECE]]).astype(np.float64)
        for side in topics
        for sentences in side.values()
        for at in range(0, len(sentences) - 2, PIECE)
    ]
    rows, means = np.concatenate(pieces), np.stack([p.mean(axis=0) for p in pieces])
    centre = rows.mean(axis=0)
    inner = np.concatenate([p - p.mean(axis=0) for p in pieces])
    within = inner.T @ inner / max(1, len(rows) - len(pieces))
    between = (means - centre).T @ (means - centre) / len(means) - within * len(means) / len(rows)
    values, axes = np.linalg.eigh(within + np.eye(len(centre)) * RIDGE * np.trace(within) / len(centre))
    white = axes / np.sqrt(values)
    spread, turned = np.linalg.eigh(white.T @ between @ white)
    projection = white @ turned[:, np.argsort(-spread)[:rank]]
    own = np.einsum("dr,de,er->r", projection, within, projection).mean()
    spread = np.einsum("dr,de,er->r", projection, between, projection) / own
    projection /= np.sqrt(own)
    return projection, -centre @ projection, np.maximum(spread, _LEAST_SPREAD)


def segmenter_module(
    mapped: tuple[Floats, Floats, Floats], made: Sequence[Made], kinds: int, seed: int
) -> torch.nn.Module:
    """The module to fit; its map stays as it is, its gaps begin as a logistic regression, and its `kinds` of
    texts with short topics, and longer and longer ones."""
    import torch
    from sklearn.linear_model import LogisticRegression

    features = np.concatenate([m.features for m in made])
    labels = np.concatenate([np.isin(np.arange(1, len(m.sentences)), m.starts) for m in made])
    mean, deviation = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    first = LogisticRegression(max_iter=1000, random_state=seed).fit((features - mean) / deviation, labels)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection, self.offset = _tensor(mapped[0]), _tensor(mapped[1])
            self.mean, self.deviation = _tensor(mean), _tensor(deviation)
            self.log_spread = torch.nn.Parameter(_tensor(np.log(mapped[2])))
            self.log_scale = torch.nn.Parameter(torch.tensor(-1.9))
            longer = torch.linspace(-1.0, 1.0, kinds) if kinds > 1 else torch.zeros(1)
            same, short = torch.zeros(kinds), torch.full((kinds,), -1.0)
            self.kinds = torch.nn.Parameter(torch.stack([same, -2.0 * longer, short, short, longer], 1))
            self.weights = torch.nn.Parameter(_tensor(first.coef_[0]))
            self.bias = torch.nn.Parameter(torch.tensor(float(first.intercept_[0])))

        def gaps(self, features: torch.Tensor) -> torch.Tensor:
            return ((features - self.mean) / self.deviation) @ self.weights + self.bias

        def places(self, vectors: torch.Tensor) -> torch.Tensor:
            """(n, r) of a document's sentences."""
            found = vectors @ self.projection + self.offset
            return found - found.sum(0) / (len(found) + CENTRE)

        def evidence(self, places: torch.Tensor) -> torch.Tensor:
            """(b, n, m): see `TopicSegmenter.evidence`."""
            sums = torch.nn.functional.pad(places.cumsum(1), (0, 0, 1, 0))
            spread, columns = self.log_spread.exp(), []
            for size in range(1, min(LONGEST, places.shape[1]) + 1):
                shrunk = 1.0 + size * spread
                column = (sums[:, size:] - sums[:, :-size]).square() @ (spread / shrunk)
                column = column - shrunk.log().sum()
                columns.append(torch.nn.functional.pad(column, (size - 1, 0), value=_FAR))
            return 0.5 * self.log_scale.exp() * torch.stack(columns, -1)

    return Module()


def _tensor(values: Floats) -> torch.Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float32)


def log_likelihood(
    evidence: torch.Tensor,
    gaps: torch.Tensor,
    kinds: torch.Tensor,
    lengths: Sequence[int],
    starts: Sequence[Sequence[int]],
) -> torch.Tensor:
    """(b,): of each document's own segmentation, for each of its sentences, whichever of the kinds (k, 5) it
    is of. `evidence` (b, n, m) and `gaps` (b, n − 1) are padded to the longest document."""
    import torch

    batch, length, most = evidence.shape
    n = torch.arange(1, most + 1)
    told = kinds[:, 2:] @ torch.stack([(n == 1).float(), (n == 2).float(), n.log()])
    scores = evidence[:, None] + told[:, None]  # (b, k, n, m)
    cut = gaps[:, None] + kinds[None, :, 1:2]
    cost = torch.nn.functional.pad(cut, (1, 0))  # what begins the document costs nothing
    before = [torch.zeros(batch, len(kinds))]
    for end in range(1, length + 1):
        size = min(end, most)
        begun = [before[end - k] + cost[:, :, end - k] for k in range(1, size + 1)]
        before.append(torch.logsumexp(torch.stack(begun, -1) + scores[:, :, end - 1, :size], -1))
    found, shares = [], kinds[:, 0]
    for row, (count, cuts) in enumerate(zip(lengths, starts, strict=True)):
        edges = torch.tensor((0, *cuts, count))
        own = scores[row, :, edges[1:] - 1, edges.diff() - 1].sum(1) + cost[row, :, edges[1:-1]].sum(1)
        every = torch.logsumexp(before[count][row] + shares, 0)
        found.append((torch.logsumexp(own + shares, 0) - every) / count)
    return torch.stack(found)


class SegmentationTask:
    """A `TrainTask`: batches of made documents; dev is P_k of documents of other titles."""

    name = "segmenter"

    def __init__(self, train: Sequence[Made], dev: Sequence[Made], batch: int, seed: int) -> None:
        self.train, self.dev, self.batch, self.seed = train, dev, batch, seed

    @property
    def size(self) -> int:
        return len(self.train)

    def batches(self, epoch: int) -> list[list[int]]:
        lengths = [len(m.sentences) for m in self.train]
        return by_length(lengths, self.batch, f"segmenter:{self.seed}:{epoch}")

    def loss(self, module: Any, batch: Sequence[int]) -> torch.Tensor:
        import torch

        made = [self.train[n] for n in batch]
        with torch.autocast("cpu", enabled=False):  # sums of squares need their digits
            pad = torch.nn.utils.rnn.pad_sequence
            places = [module.places(torch.tensor(m.vectors)) for m in made]
            evidence = module.evidence(pad(places, batch_first=True))
            gaps = module.gaps(pad([torch.tensor(m.features).float() for m in made], batch_first=True))
            lengths = [len(m.sentences) for m in made]
            starts = [m.starts for m in made]
            return -log_likelihood(evidence, gaps, module.kinds, lengths, starts).mean()

    def evaluate(self, module: Any) -> dict[str, float]:
        measured = dev_metrics(segmenter_of(module), self.dev)
        return {**measured, "score": 1.0 - measured["pk"]}


def segmenter_of(
    module: Any, threshold: float = 0.0, card: Mapping[str, Any] | None = None
) -> TopicSegmenter:
    """What is kept of a module."""

    def array(values: torch.Tensor) -> Floats:
        return np.asarray(values.detach().numpy(), np.float64)

    weights = array(module.weights) / array(module.deviation)
    return TopicSegmenter(
        array(module.projection), array(module.offset), array(module.log_spread.exp()),
        float(module.log_scale.detach().exp()), array(module.kinds), weights,
        float(module.bias.detach()) - float(weights @ array(module.mean)), threshold, card or {},
    )  # fmt: skip


def best_threshold(fitted: TopicSegmenter, made: Sequence[Made]) -> float:
    """The log-odds from which a gap is a boundary, with the lowest mean P_k."""
    odds = [_odds(fitted, document) for document in made]
    scores = [np.mean([_scores(d, o, t)[0] for d, o in zip(made, odds, strict=True)]) for t in THRESHOLDS]
    return round(float(THRESHOLDS[int(np.argmin(scores))]), 2)


def dev_metrics(fitted: TopicSegmenter, made: Sequence[Made]) -> dict[str, float]:
    found = [_scores(document, _odds(fitted, document), fitted.threshold) for document in made]
    return dict(zip(("pk", "windowdiff"), np.mean(found, axis=0).tolist(), strict=True))


def _odds(fitted: TopicSegmenter, document: Made) -> Floats:
    gaps = document.features @ fitted.weights + fitted.bias
    return boundary_odds(fitted.evidence(document.vectors), gaps, fitted.kinds)


def _scores(document: Made, odds: Floats, threshold: float) -> tuple[float, float]:
    n, k = len(document.sentences), half_segment(document.starts, len(document.sentences))
    cuts = [int(i) + 1 for i in np.flatnonzero(odds > threshold)]
    return pk(document.starts, cuts, n, k), windowdiff(document.starts, cuts, n, k)
