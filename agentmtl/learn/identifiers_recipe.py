"""From folders of data to the decoder that proposes identifiers: draw n-grams, train, then learn to rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import UsageError
from agentmtl.index.identifiers import StreamTokenizer, load_tokenizer
from agentmtl.learn.identifier_examples import KeyExample, TargetSampler, read_key_examples
from agentmtl.learn.identifier_mining import frequencies_of, ranked_examples
from agentmtl.learn.identifier_ranking import Frequencies, RankedExample, RankingTask
from agentmtl.learn.identifiers import KeysTask
from agentmtl.learn.recipe import (
    Split,
    Watch,
    best_dev,
    check_sets,
    machine,
    rounded,
    split_sets,
    unwatched,
    write_report,
)
from agentmtl.learn.training import TrainSettings, train
from agentmtl.trunk.decoder import MARKED, DecoderShape, Prompts
from agentmtl.trunk.decoder_files import DecoderCard, fresh_decoder, save_decoder
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.query_states import QueryStates, States

DEV_SHARE = 0.15  # of the articles: sets have few of them
DEV_LIMIT = 400  # questions that dev looks at
_MARKERS_SHARE = 0.01  # of each marker, in the prior


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifiersRecipe:
    """`epochs` and `rate` of generation, `ranking_epochs` (0: none) and `ranking_rate` of ranking, in which
    at most `ranked` questions take part, 0 for all. `margin` of a hinge over fused scores; 0: a softmax.
    `longest`: tokens of the n-grams drawn. `limit`: questions of each set, 0 for all."""

    prompts: Prompts = "hybrid"
    width: int = 256
    layers: int = 2
    longest: int = 5
    batch: int = 32
    epochs: int = 1
    rate: float = 1e-3
    ranking_batch: int = 16
    ranking_epochs: int = 2
    ranking_rate: float = 1e-3
    ranked: int = 0
    margin: float = 0.0
    limit: int = 0
    seed: int = 0
    checkpoint_seconds: float = 120.0

    @property
    def shape(self) -> DecoderShape:
        return DecoderShape(
            width=self.width, inner=2 * self.width, layers=self.layers, longest=self.longest + 1,
            prompts=self.prompts,
        )  # fmt: skip

    def settings(self, epochs: int, rate: float) -> TrainSettings:
        return TrainSettings(
            epochs=epochs, rate=rate, seed=self.seed, checkpoint_seconds=self.checkpoint_seconds
        )


@dataclass(frozen=True, slots=True)
class Gathered:
    """What both phases learn from. `prior` (v + 4,): ln of tokens' shares of the corpora."""

    keys: Split[KeyExample]
    ranked: Split[RankedExample] | None
    frequencies: Mapping[str, Frequencies]
    prior: NDArray[np.float32]


def train_identifiers(
    files: ModelFiles,
    sets: Sequence[Path],
    out: Path,
    recipe: IdentifiersRecipe,
    indexes: Path,
    command: str = "",
    watch: Watch = unwatched,
) -> DecoderCard:
    """Train in `out` (a run that was killed goes on there) and write the decoder to it.

    Indexes of the sets are made under `indexes`. Raises UsageError where a set is of another form, has
    no gold sentences, or `out` holds another run; EncoderError where the trunk does not load.
    """
    check_sets(sets)
    tokenizer = load_tokenizer(files.folder)
    gathered = gather(sets, tokenizer, recipe, indexes, files.identity.name)
    reader = QueryStates(files)
    states = read_questions(reader, gathered.keys)
    module = fresh_decoder(reader, gathered.prior, recipe.shape, recipe.seed)
    data = gathered.keys.sets
    card = {"recipe": asdict(recipe), "data": data, "trunk": files.identity.weights}
    keys = keys_task(gathered, states, tokenizer, recipe)
    progress = train(module, [keys], recipe.settings(recipe.epochs, recipe.rate), out / "run", card, watch)
    metrics = {f"keys {n}": v for n, v in best_dev(progress, keys.name).items()}
    shown, seconds = (progress, keys.name), progress.seconds
    if gathered.ranked:
        ranking = ranking_task(gathered, gathered.ranked, keys, states, recipe)
        settings = recipe.settings(recipe.ranking_epochs, recipe.ranking_rate)
        ranked = train(module, [ranking], settings, out / "ranking", card, watch)
        metrics |= {f"ranking {n}": v for n, v in best_dev(ranked, ranking.name).items()}
        shown, seconds = (ranked, ranking.name), seconds + ranked.seconds
    made = DecoderCard(
        trunk=files.identity.weights, trunk_name=files.identity.name, tokenizer=tokenizer.identity,
        shape=recipe.shape, recipe=asdict(recipe), data=data, command=command, seed=recipe.seed,
        metrics={"dev": rounded(metrics), "training": {"seconds": round(seconds), **machine()}},
    )  # fmt: skip
    save_decoder(module, made, out)
    write_report(out, shown[1], shown[0], metrics)
    return made


def gather(
    sets: Sequence[Path], tokenizer: StreamTokenizer, recipe: IdentifiersRecipe, indexes: Path, encoder: str
) -> Gathered:
    """The questions of all sets on two sides, with competing sentences where these are to be ranked, found
    in indexes of the `encoder`."""
    keys: list[tuple[Path, list[KeyExample]]] = []
    ranked: list[tuple[Path, list[RankedExample]]] = []
    frequencies: dict[str, Frequencies] = {}
    for folder in sets:
        data, found = read_key_examples(folder, tokenizer, recipe.limit, recipe.seed)
        keys.append((folder, found))
        frequencies[data.name] = frequencies_of(data, tokenizer)
        if recipe.ranking_epochs:
            ranked.append((folder, ranked_examples(data, found, tokenizer, indexes, encoder)))
    split = split_sets(keys, lambda e: e.group, DEV_SHARE)
    ranking = split_sets(ranked, lambda r: r.example.group, DEV_SHARE) if ranked else None
    return Gathered(split, ranking, frequencies, prior_of(list(frequencies.values())))


def prior_of(frequencies: Sequence[Frequencies]) -> NDArray[np.float32]:
    """ln of each token's share of all corpora, half an occurrence added to each; then those of the
    markers."""
    if not frequencies:
        raise UsageError("There is no set to train on.", "Give --data DIR.")
    ones = np.sum([f.ones for f in frequencies], axis=0) + 0.5
    markers = np.full(MARKED, np.log(_MARKERS_SHARE))
    return np.concatenate([np.log(ones / ones.sum()), markers]).astype(np.float32)


def read_questions(reader: QueryStates, split: Split[KeyExample]) -> dict[str, States]:
    """Every question as the trunk reads it, states as float16."""
    questions = sorted({e.question for e in (*split.train, *split.dev)})
    read = zip(questions, reader.read(questions), strict=True)
    return {question: (states.astype(np.float16), ids) for question, (states, ids) in read}


def keys_task(
    gathered: Gathered, states: Mapping[str, States], tokenizer: StreamTokenizer, recipe: IdentifiersRecipe
) -> KeysTask:
    """The first phase's task."""
    sampler = TargetSampler(tokenizer, recipe.longest, recipe.seed)
    dev = _some(gathered.keys.dev)
    return KeysTask(gathered.keys.train, dev, states, sampler, recipe.batch, recipe.seed)


def ranking_task(
    gathered: Gathered,
    ranked: Split[RankedExample],
    keys: KeysTask,
    states: Mapping[str, States],
    recipe: IdentifiersRecipe,
) -> RankingTask:
    """The second phase's task, over part of the questions."""
    train_on = drawn(ranked.train, recipe.ranked, recipe.seed)
    return RankingTask(
        train_on, _some(ranked.dev), states, gathered.frequencies, keys, recipe.ranking_batch,
        margin=recipe.margin, seed=recipe.seed,
    )  # fmt: skip


def drawn(examples: Sequence[RankedExample], count: int, seed: int) -> list[RankedExample]:
    """`count` of the examples, drawn by the seed; 0: all."""
    order = np.random.default_rng(seed).permutation(len(examples))[: count or None]
    return [examples[i] for i in sorted(order.tolist())]


def _some(dev: Sequence[Any]) -> list[Any]:
    return list(dev[:: -(-len(dev) // DEV_LIMIT) or 1])
