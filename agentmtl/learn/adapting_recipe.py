"""The recipe of `train encoder --adapt-to INDEX`: an index in, a head out; no labels.

Without cycles the head is the corpus's whitening. With them, in the folder that is given: `cycle-N/cross`
and `cycle-N/bi`, each a run with its head. The folder itself is the bi-encoder of the cycle that is best on
held-out queries made from the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.learn.adapting import Listed, PairsTask, SoftTask, lexical_rows, mined, relabelled, with_labels
from agentmtl.learn.distil import as_the_trunk, check_mean_pooled
from agentmtl.learn.encoder_recipe import FROZEN, TASK
from agentmtl.learn.frozen import means_module
from agentmtl.learn.pseudo_queries import Pseudo, PseudoQueries
from agentmtl.learn.recipe import (
    REPORT,
    AdapterRecipe,
    Watch,
    best_dev,
    fitted_length,
    head_of,
    module_for,
    rounded,
    run_card,
    unwatched,
    write_report,
)
from agentmtl.learn.text_vectors import vectors_of
from agentmtl.learn.training import train
from agentmtl.learn.whitening import POWER, whitening
from agentmtl.retrieval.index import Index
from agentmtl.retrieval.rerank import OUTPUTS, headed, pair_scores
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.headed import ALL, SIDES, VECTOR
from agentmtl.trunk.heads import CARD, Head, load_head, save_head
from agentmtl.trunk.loading import model_files
from agentmtl.trunk.means import TokenMeans, unchanged_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter

WHITENED = "whitened"
FEWEST = 40  # passages, or queries that are learned from
POOL = 4_000  # passages that held-out queries are asked among, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptRecipe(AdapterRecipe):
    """`cycles`: 0 for the whitening of `power` alone, no training. `queries` are made from the corpus and
    learned from, `held` held out. `tokens` of a text in training, and of each half of a pair. `teacher`: the
    folder of a reranker that labels; "": a cross-encoder of each cycle's own. `cross_epochs`: of the latter.
    `frozen`: only the layer over the trunk's token means learns, and without a teacher labels are the
    bi-encoder's own."""

    rank: int = 32
    max_length: int = 256
    tokens: int = 64
    batch: int = 32
    epochs: int = 2
    rate: float = 5e-4
    cycles: int = 0
    power: float = POWER
    queries: int = 1_500
    held: int = 200
    cross_epochs: int = 1
    teacher: str = ""
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class _Corpus:
    """The live passages of an index as they are read, with `rows` by unit id."""

    index: Index
    texts: tuple[str, ...]
    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Adapting:
    """What every cycle is made with. `data`: for the cards."""

    files: ModelFiles
    corpus: _Corpus
    learned: Sequence[Pseudo]
    held: Sequence[Pseudo]
    pool: Sequence[int]
    out: Path
    recipe: AdaptRecipe
    data: dict[str, Any]
    command: str
    watch: Watch
    means: TokenMeans | None

    def bi_task(self, lists: Sequence[Listed]) -> SoftTask:
        cutter = PairCutter(self.files, self.recipe.tokens)
        return SoftTask(
            cutter, self.corpus.texts, lists, self.held, self.pool, self.recipe.batch, self.recipe.seed
        )

    def bi_module(self, start: str) -> Any:
        if self.means is not None:
            head = load_head(Path(start)) if start else None
            return means_module(self.means, self.files.identity.dimension, head)
        recipe = replace(self.recipe, start=start)
        return as_the_trunk_unless(
            start, module_for(self.files, {VECTOR: self.files.identity.dimension}, recipe)
        )

    def whitened(self) -> tuple[Head, float]:
        """The layer that whitens by the corpus, and its score."""
        assert self.means is not None
        recipe = self.recipe
        bare = unchanged_head(self.files, recipe.max_length)
        card = replace(
            bare.card, task=TASK, recipe=asdict(recipe), data=self.data, command=self.command,
            seed=recipe.seed, calibration={SIDES: ALL},
        )  # fmt: skip
        head = Head(card, {}, {VECTOR: whitening(self.means.of(self.corpus.texts), recipe.power)})
        module = means_module(self.means, self.files.identity.dimension, head)
        return head, self.bi_task([]).evaluate(module)["score"]

    def cycle(self, number: int, start: str) -> tuple[Head, float]:
        """Mined and labelled by the bi-encoder of `start` ("": the trunk), which is then trained further."""
        place, recipe = self.out / f"cycle-{number}", self.recipe
        lists, held = self.labelled(self.bi_module(start))
        if recipe.teacher:
            taught = _taught(lists, self.corpus.texts, Path(recipe.teacher))
        elif self.means is not None:
            taught = lists
        else:
            taught = self.crossed(place / "cross", start, lists, held)
        module, task = self.bi_module(start), self.bi_task(taught)
        card = {**run_card(self.files, recipe, self.data), "cycle": number, "from": start}
        progress = train(
            module, [task], recipe.settings(recipe.epochs), place / "bi" / "run", card, self.watch
        )
        metrics = best_dev(progress, task.name)
        head = head_of(
            TASK, module, self.files, recipe, self.data, self.command, metrics, progress, {SIDES: ALL}
        )
        save_head(head, place / "bi")
        write_report(place / "bi", task.name, progress, metrics)
        return head, metrics["score"]

    def labelled(self, module: Any) -> tuple[list[Listed], list[Listed]]:
        """What is learned from and what is held out, with candidates and cosines."""
        cutter, asked = PairCutter(self.files, self.recipe.tokens), [*self.learned, *self.held]
        module.eval()
        passages = vectors_of(module, cutter, self.corpus.texts)
        vectors = vectors_of(module, cutter, [one.text for one in asked])
        lists = mined(asked, vectors, passages, lexical_rows(self.corpus.index, asked, self.corpus.rows))
        return lists[: len(self.learned)], lists[len(self.learned) :]

    def crossed(
        self, place: Path, start: str, lists: Sequence[Listed], held: Sequence[Listed]
    ) -> list[Listed]:
        """The lists as a cross-encoder that learned them labels them; it begins at the bi-encoder's
        weights."""
        recipe = replace(self.recipe, start=start)
        module = module_for(self.files, OUTPUTS, recipe, first_only=True)
        cutter = PairCutter(self.files, 2 * recipe.tokens)
        task = PairsTask(cutter, self.corpus.texts, lists, held, recipe.batch, recipe.seed)
        card = {**run_card(self.files, recipe, self.data), "from": start}
        train(module, [task], recipe.settings(recipe.cross_epochs), place / "run", card, self.watch)
        return relabelled(module.eval(), cutter, self.corpus.texts, lists)


def as_the_trunk_unless(start: str, module: Any) -> Any:
    """With an output that changes nothing, but where a head gave the module its own."""
    return module if start else as_the_trunk(module)


def adapt_encoder(
    index: Index, out: Path, recipe: AdaptRecipe, means: Path, command: str = "", watch: Watch = unwatched
) -> Head:
    """Adapt the index's encoder to its passages in `out` (a run that was killed goes on there). `means`:
    where what a frozen trunk read is kept.

    Raises UsageError where the index has too few passages, its encoder is no mean-pooled trunk or has a head
    already, or `out` holds another run or head; EncoderError without a model or peft.
    """
    import torch

    identity = index.settings.encoder
    if identity.texts or identity.demonstrations:
        raise UsageError(
            f"The index was made with a head already ({identity.name}).", "Adapt to an index of the trunk."
        )
    files = model_files(identity.name)
    check_mean_pooled(files)
    recipe = fitted_length(recipe, files)
    corpus, titles = _read(index)
    held, learned = _queries(corpus, titles, recipe, index)
    data = {
        index.folder.name: {
            "sha256": index.snapshot.sha256, "dev": len(held),
            "train": len(learned) if recipe.cycles else len(corpus.texts),
            "licence": "of the corpus that was indexed",
        }
    }  # fmt: skip
    _refuse_another(out, recipe, data)
    pool = _pool(len(corpus.texts), held, recipe.seed)
    frozen = recipe.frozen or not recipe.cycles
    read = TokenMeans(files, means, recipe.max_length) if frozen else None
    run = _Adapting(files, corpus, learned, held, pool, out, recipe, data, command, watch, read)
    with torch.inference_mode():
        scores = {FROZEN: run.bi_task([]).evaluate(run.bi_module("").eval())["score"]}
    heads: dict[str, Head] = {}
    if not recipe.cycles:
        heads[WHITENED], scores[WHITENED] = run.whitened()
    for number in range(1, recipe.cycles + 1):
        start = str(out / f"cycle-{number - 1}" / "bi") if number > 1 else ""
        name = f"cycle {number}"
        heads[name], scores[name] = run.cycle(number, start)
    best = max(heads, key=lambda name: scores[name])
    metrics = {"dev": rounded({"score": scores[best], "trunk": scores[FROZEN]})}
    head = heads[best]
    head = replace(head, card=replace(head.card, metrics={**head.card.metrics, **metrics}))
    save_head(head, out)
    report = {"dev": scores, "best": best, "recipe": asdict(recipe)}
    (out / REPORT).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return head


def _read(index: Index) -> tuple[_Corpus, list[str]]:
    snapshot = index.snapshot
    addresses = [
        (view.number, int(position))
        for view in snapshot.views("passage")
        for position in np.flatnonzero(view.alive)
    ]
    units = [unit for unit in snapshot.units("passage", addresses) if unit.text.strip()]
    units.sort(key=lambda unit: unit.id)  # not by the index's history
    rows = {unit.id: n for n, unit in enumerate(units)}
    titles = [unit.title for unit in units]
    return _Corpus(index, tuple(headed(unit) for unit in units), rows), titles


def _queries(
    corpus: _Corpus, titles: Sequence[str], recipe: AdaptRecipe, index: Index
) -> tuple[list[Pseudo], list[Pseudo]]:
    """(held out, learned from) of the queries made; whitening learns from none."""
    count = recipe.held + (recipe.queries if recipe.cycles else 0)
    made = PseudoQueries(corpus.texts, titles).draw(count, recipe.seed) if corpus.texts else []
    held, learned = made[: recipe.held], made[recipe.held :]
    if len(corpus.texts) < FEWEST or not held or (recipe.cycles and len(learned) < FEWEST):
        wanted = f" that gives {recipe.held + FEWEST} (--queries {FEWEST} or more), or leave --cycles away."
        more = wanted if recipe.cycles else "."
        raise UsageError(
            f"{index.folder} has {len(corpus.texts)} passages, which give {len(made)} queries.",
            f"Give an index of {FEWEST} passages or more{more}",
        )
    return held, learned


def _refuse_another(out: Path, recipe: AdaptRecipe, data: Mapping[str, Any]) -> None:
    if not (out / CARD).is_file():
        return
    try:
        card = json.loads((out / CARD).read_text("utf-8"))
    except ValueError:
        card = {}
    if [card.get("recipe"), card.get("data")] != json.loads(json.dumps([asdict(recipe), data])):
        raise UsageError(
            f"{out} holds a head with other data or settings.", "Choose another --out, or remove it."
        )


def _pool(count: int, held: Sequence[Pseudo], seed: int) -> list[int]:
    """The held-out queries' sources, and others drawn with the seed."""
    sources = {row for one in held for row in one.sources}
    others = [row for row in range(count) if row not in sources]
    Random(f"pool:{seed}").shuffle(others)
    return sorted([*sources, *others[: max(0, POOL - len(sources))]])


def _taught(lists: Sequence[Listed], texts: Sequence[str], teacher: Path) -> list[Listed]:
    """The lists with a reranker's probabilities for labels."""
    queries = [one.query.text for one in lists for _ in one.rows]
    logits = pair_scores(open_head(teacher), queries, [texts[row] for one in lists for row in one.rows])
    return with_labels(lists, (1 / (1 + np.exp(-logits))).tolist())
