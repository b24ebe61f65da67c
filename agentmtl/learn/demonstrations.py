"""Trains the retriever of demonstrations: one head for all tasks, conditioned by each task's instruction.

For texts x with vectors e(x) of unit length, s = e(x)·e(c) / τ, and candidates ranked by a scorer
(`agentmtl.learn.feedback`), the loss of a batch, which is of one task, is the sum of

    rank     mean over pairs of candidates (i, j), i the better, of |1/π_i − 1/π_j| · log(1 + exp(s_j − s_i)),
             weights summing to 1, π_i the rank that s gives (UDR, arXiv 2305.04320, section 3.3)
    batch    cross-entropy of the best candidate among all texts of the batch (the same, InfoNCE); those of
             the same label as the query are no wrong ones, and are left out
    vote     −log Σ_c softmax(s)_c · [y_c = y], for labels: the marginal over demonstrations by which the
             voter predicts (Lewis et al., arXiv 2005.11401, equation 1), so that it is trained as it is used

Options of a multiple choice are compared by the trunk's own vectors, not by the head
(`agentmtl.experts.demonstrations.option_votes`): it only finds their examples.

Labels never stand in a text that is encoded, so there is none to copy; every batch is drawn around queries
with their worst candidates as well as their best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from agentmtl.experts.demonstrations import option_votes
from agentmtl.learn.feedback import FeedbackScorer, Floats, Pool
from agentmtl.learn.mining import Lists
from agentmtl.learn.text_vectors import encoded, vectors_of
from agentmtl.retrieval.voting import VOTERS, voted
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task, instructed
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.pairs import PairCutter

if TYPE_CHECKING:
    import torch

TEMPERATURE = 0.05
SHOWN = 8  # candidates of a query in a batch, itself not counted
SEEDS = 7  # queries that a batch is drawn around


@dataclass(frozen=True, slots=True, eq=False)
class Dev:
    """What a task is judged by: `asked` are predicted from `shown`."""

    shown: tuple[Demonstration, ...]
    asked: tuple[Demonstration, ...]


class RankingTask:
    """A `TrainTask` over labelled or otherwise answered examples, with mined candidates. `compare`: how the
    options of a multiple choice are encoded on dev, texts to unit vectors (n, d)."""

    def __init__(
        self,
        pool: Pool,
        lists: Lists,
        scorer: FeedbackScorer,
        cutter: PairCutter,
        dev: Dev,
        compare: Callable[[Sequence[str]], Vectors],
        instruct: bool = True,
        seed: int = 0,
    ) -> None:
        self.name, self.pool, self.dev = pool.task.name, pool, dev
        self._lists, self._scorer, self._cutter, self._compare = lists, scorer, cutter, compare
        self._seed, self._task = seed, pool.task if instruct else None
        self._labels = {name: n for n, name in enumerate(sorted(set(pool.outputs)))}
        self._votes = pool.task.kind == "classification"

    @property
    def size(self) -> int:
        return self.pool.total

    def told(self, text: str) -> str:
        """The text as it is encoded."""
        return instructed(self._task, text)

    def batches(self, epoch: int) -> list[list[int]]:
        """Around every query once: it and some of its candidates, each example once a batch."""
        random = Random(f"demonstrations:{self.name}:{self._seed}:{epoch}")
        queries = sorted(self._lists)
        random.shuffle(queries)
        found = []
        for at in range(0, len(queries), SEEDS):
            rows = list[int]()
            for query in queries[at : at + SEEDS]:
                rows += [query, *self._lists[query].drawn(SHOWN, random)]
            found.append(list(dict.fromkeys(rows)))
        return found

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        texts = [self.told(self.pool.examples[row].input) for row in batch]
        vectors = encoded(module, self._cutter, texts)[0]
        with torch.autocast(vectors.device.type, enabled=False):
            scores = vectors.float() @ vectors.float().T / TEMPERATURE
            utilities = torch.from_numpy(self._utilities(batch)).to(scores.device)
            if not self._votes:
                return batch_loss(scores, utilities, None)
            labels = [self._labels[self.pool.examples[row].output] for row in batch]
            return batch_loss(scores, utilities, torch.tensor(labels, device=scores.device))

    def _utilities(self, batch: Sequence[int]) -> Floats:
        """(n, n), NaN where a pair was not scored, and of a text with itself."""
        if self._scorer.whole:
            found = self._scorer.utilities(batch, batch)
        else:
            found = np.full((len(batch), len(batch)), np.nan)
            places = {row: n for n, row in enumerate(batch)}
            for row, query in enumerate(batch):
                if query in self._lists:
                    mine = self._lists[query]
                    for candidate, utility in zip(mine.rows, mine.utilities, strict=True):
                        if candidate in places:
                            found[row, places[candidate]] = utility
        np.fill_diagonal(found, np.nan)
        return found

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """The voter's accuracy on dev (of outputs that are neither labels nor options: their words' F1) as
        "score"."""
        from agentmtl.evaluate.answer_metrics import f1

        shown, asked = self.dev.shown, self.dev.asked
        texts = [self.told(one.input) for one in (*shown, *asked)]
        vectors = vectors_of(module, self._cutter, texts)
        known, inputs = vectors[: len(shown)], vectors[len(shown) :]
        if self.pool.task.kind == "multiple_choice":
            said = self._chosen(known, inputs)
        else:
            said = voted(inputs @ known.T, [d.output for d in shown])
        pairs = list(zip(said, asked, strict=True))
        if self.pool.task.kind in ("classification", "multiple_choice"):
            return {"score": float(np.mean([output == one.output for output, one in pairs]))}
        return {"score": float(np.mean([f1(output, [one.output]) for output, one in pairs]))}

    def _chosen(self, known: Vectors, inputs: Vectors) -> list[str]:
        """The option of every dev question that the voter chooses."""
        near = np.argsort(-inputs @ known.T, axis=1, kind="stable")[:, :VOTERS]
        said = []
        for one, rows in zip(self.dev.asked, near, strict=True):
            examples = [self.dev.shown[n] for n in rows]
            votes = option_votes(one.input, one.choices, examples, self._compare)
            said.append(max(votes, key=lambda option: votes[option]))
        return said


def batch_loss(scores: torch.Tensor, utilities: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """The loss of a batch: `scores` (n, n), `utilities` (n, n; NaN: not known), `labels` (n,) or None."""
    import torch

    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(itself, -1e4)
    known = ~torch.isnan(utilities)
    rows = [row for row in range(len(scores)) if int(known[row].sum()) > 1]
    ranked = [list_loss(scores[row][known[row]], utilities[row][known[row]]) for row in rows]
    total = torch.stack(ranked).mean() if ranked else scores.sum() * 0
    total = total + best_loss(scores, utilities, labels)
    if labels is None:
        return total
    same = (labels[:, None] == labels) & ~itself
    some = same.any(1)
    if not bool(some.any()):
        return total
    every = torch.logsumexp(scores, 1)
    mine = torch.logsumexp(scores.masked_fill(~same, -1e4), 1)
    return total + (every - mine)[some].mean()


def list_loss(scores: torch.Tensor, utilities: torch.Tensor) -> torch.Tensor:
    """LambdaMRR of one list (m,): see the top of this module. The weights sum to 1, so that long lists weigh
    as much as short ones; pairs of equal utility are no pairs."""
    import torch

    ranks = torch.empty_like(scores)
    ranks[torch.argsort(-scores.detach())] = torch.arange(
        1, len(scores) + 1, dtype=scores.dtype, device=scores.device
    )
    better = utilities[:, None] > utilities + 1e-9
    weights = (1 / ranks[:, None] - 1 / ranks).abs() * better
    apart = (scores[:, None] - scores).clamp(-50, 50)
    return (weights * torch.nn.functional.softplus(-apart)).sum() / weights.sum().clamp_min(1e-9)


def best_loss(scores: torch.Tensor, utilities: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """InfoNCE with the most useful known candidate of each text as the right one."""
    import torch

    known = torch.nan_to_num(utilities, nan=float("-inf"))
    rows = torch.isfinite(known).any(1)
    if not bool(rows.any()):
        return scores.sum() * 0
    best = known.argmax(1)
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if labels is not None:
        allowed = labels[:, None] != labels
    allowed[torch.arange(len(scores)), best] = True
    return torch.nn.functional.cross_entropy(scores.masked_fill(~allowed, -1e4)[rows], best[rows])


def dev_of(
    examples: Sequence[Demonstration], task: Task, shown: int, asked: int, seed: int
) -> tuple[list[Demonstration], Dev]:
    """The examples to learn from, and others to judge by: `asked` of them held out and predicted from `shown`
    of the former."""
    order = list(examples)
    Random(f"demonstrations dev:{task.name}:{seed}").shuffle(order)
    held = min(asked, len(order) // 5)
    return order[held:], Dev(tuple(order[held : held + shown]), tuple(order[:held]))
