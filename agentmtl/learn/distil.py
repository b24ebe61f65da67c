"""Distils the reranker into the query's vector (DSE: Barkan et al., arXiv 1908.05161, section 3).

The student's logit of a passage is its cosine to the query over a temperature. Its loss is
(1 − c) · cross-entropy of the gold passage among the question's hits and the batch's other gold passages
+ c · the squared difference of the two logits over the question's hits, each centred, c = 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.learn.ranking import Group, first_gold_rank, groups_of
from agentmtl.learn.recipe import (
    AdapterRecipe,
    Watch,
    best_dev,
    check_sets,
    head_of,
    module_for,
    run_card,
    split_sets,
    unwatched,
    write_report,
)
from agentmtl.learn.text_vectors import encoded, vectors_of
from agentmtl.learn.training import train
from agentmtl.retrieval.rerank import pair_scores
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.headed import VECTOR
from agentmtl.trunk.heads import Head, save_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

if TYPE_CHECKING:
    import torch

SHARE = 0.5  # c above: of the teacher's
TEMPERATURE = 0.05
_AT_ONCE = 8  # groups that the teacher scores together


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriesRecipe(AdapterRecipe):
    """`limit`: questions of each set. `teacher`: the reranker's folder. `batch`: questions."""

    teacher: str = ""
    rank: int = 32
    max_length: int = 96
    batch: int = 32
    epochs: int = 4
    rate: float = 5e-4
    limit: int = 1_500


class QueriesTask:
    """A `TrainTask` over groups whose scores are the teacher's."""

    name = "queries"

    def __init__(
        self, cutter: PairCutter, train: Sequence[Group], dev: Sequence[Group], batch: int = 32, seed: int = 0
    ) -> None:
        self._cutter, self._train, self._dev = cutter, train, dev
        self._batch, self._seed = batch, seed

    @property
    def size(self) -> int:
        return len(self._train)

    def batches(self, epoch: int) -> list[list[int]]:
        random = Random(f"queries:{self._seed}:{epoch}")
        order = list(range(len(self._train)))
        random.shuffle(order)
        order.sort(key=lambda i: self._train[i].set)  # a batch's other gold passages come from the same set
        found = [order[at : at + self._batch] for at in range(0, len(order), self._batch)]
        random.shuffle(found)
        return found

    def loss(self, module: torch.nn.Module, batch: Sequence[int]) -> torch.Tensor:
        import torch

        groups = [self._train[i] for i in batch]
        queries = encoded(module, self._cutter, [g.question for g in groups])[0]
        with torch.autocast(queries.device.type, enabled=False):  # a logit of 16 has steps of .06 in bf16
            return self._loss(groups, queries)

    def _loss(self, groups: Sequence[Group], queries: torch.Tensor) -> torch.Tensor:
        import torch

        device = queries.device
        golds = torch.from_numpy(np.stack([g.vectors[g.gold.index(True)] for g in groups])).to(device)
        others = queries @ golds.T / TEMPERATURE
        others.fill_diagonal_(-1e4)  # its own gold passage is among its hits
        losses = []
        for row, group in enumerate(groups):
            own = torch.from_numpy(group.vectors).to(device) @ queries[row] / TEMPERATURE
            gold = torch.tensor(group.gold, device=device)
            every = torch.logsumexp(torch.cat([own, others[row]]), 0)
            told = torch.tensor(group.scores, device=device, dtype=own.dtype)
            apart = (own - own.mean()) - (told - told.mean())
            hard = every - torch.logsumexp(own[gold], 0)
            losses.append((1 - SHARE) * hard + SHARE * (apart**2).mean())
        return torch.stack(losses).mean()

    def evaluate(self, module: torch.nn.Module) -> dict[str, float]:
        """Mean reciprocal rank of the first gold one among a question's hits: by the teacher, and "score"."""
        vectors = vectors_of(module, self._cutter, [g.question for g in self._dev])
        own = [first_gold_rank(g, g.vectors @ v) for g, v in zip(self._dev, vectors, strict=True)]
        teacher = [first_gold_rank(g, np.array(g.scores)) for g in self._dev]
        return {"mrr-teacher": float(np.mean(teacher)), "score": float(np.mean(own))}


def train_queries(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: QueriesRecipe,
    indexes: Path,
    command: str = "",
    watch: Watch = unwatched,
) -> Head:
    """Train in `out` (a run that was killed goes on there) and write the head to it.

    Raises UsageError where a set is of another form, `out` holds another run, or the trunk does not pool by
    the mean of its tokens; EncoderError without peft.
    """
    check_sets(sets)
    check_mean_pooled(files)
    teacher, name = Path(recipe.teacher), files.identity.name
    groups = split_sets(
        ((f, _taught(groups_of(f, indexes, recipe.limit, recipe.seed, encoder=name), teacher)) for f in sets),
        lambda group: group.split_by,
    )
    outputs, cutter = {VECTOR: files.identity.dimension}, PairCutter(files, recipe.max_length)
    module = as_the_trunk(module_for(files, outputs, recipe))
    task = QueriesTask(cutter, groups.train, groups.dev, recipe.batch, recipe.seed)
    card = run_card(files, recipe, groups.sets)
    progress = train(module, [task], recipe.settings(recipe.epochs), out / "run", card, watch)
    metrics = best_dev(progress, task.name)
    head = head_of("queries", module, files, recipe, groups.sets, command, metrics, progress)
    save_head(head, out)
    write_report(out, task.name, progress, metrics)
    return head


def check_mean_pooled(files: ModelFiles) -> None:
    """Raises UsageError for a trunk whose vectors a head that embeds could not begin with."""
    if files.identity.pooling != "mean" or files.identity.query_prefix:
        raise UsageError(
            f"{files.identity.name} does not embed by the mean of its tokens.", "Choose another trunk."
        )


def as_the_trunk(module: Any) -> Any:
    """The module with an output that changes nothing, so that training begins at the trunk's own vectors."""
    import torch

    layer = module.outputs[VECTOR]
    with torch.no_grad():
        torch.nn.init.eye_(layer.weight)
        layer.bias.zero_()
    return module


def _taught(groups: Sequence[Group], teacher: Path) -> list[Group]:
    """The groups with the teacher's scores in place of the fused ones."""
    network = open_head(teacher)
    found: list[Group] = []
    for at in range(0, len(groups), _AT_ONCE):
        part = groups[at : at + _AT_ONCE]
        texts = [text for group in part for text in group.texts]
        scores = pair_scores(network, [g.question for g in part for _ in g.texts], texts).tolist()
        for group in part:
            found.append(replace(group, scores=tuple(scores[: len(group.texts)])))
            scores = scores[len(group.texts) :]
    return found
