"""From folders of texts to a topic segmenter with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.ingest.topics import FORMAT, TopicSegmenter, save_segmenter
from agentmtl.learn.recipe import LICENCES, Watch, rounded, unwatched
from agentmtl.learn.segmenter import (
    SegmentationTask,
    best_threshold,
    dev_metrics,
    discriminant,
    segmenter_module,
    segmenter_of,
)
from agentmtl.learn.segmenter_documents import TopicSet, encoded, made_documents, read_topics
from agentmtl.learn.training import TrainSettings, train
from agentmtl.trunk.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterRecipe:
    """`rank` of the map; `kinds` of texts by the lengths of their topics; `documents` that are put together
    to fit by, a third as many to stop by; `limit`: sentences of a title, 0 for all; `rate`: the highest
    learning rate."""

    rank: int = 128
    kinds: int = 5
    documents: int = 480
    limit: int = 90
    epochs: int = 5
    batch: int = 3
    rate: float = 0.02
    seed: int = 0


def train_segmenter(
    encoder: Encoder,
    sets: Sequence[Path],
    out: Path,
    recipe: SegmenterRecipe,
    cache: Path,
    command: str = "",
    watch: Watch = unwatched,
) -> TopicSegmenter:
    """Train in `out` (a run that was killed goes on there) and write the segmenter to it; sentence vectors
    are kept in `cache`.

    Raises UsageError where a folder holds no texts with titles or too few, or `out` holds another run.
    """
    found = [read_topics(folder, recipe.limit) for folder in sets]
    for one in found:
        if min(len(one.map), len(one.fit), len(one.dev)) < 2:
            raise UsageError(f"{one.name} has too few titles.", "Give a set of a few dozen titles or more.")
    topics = {title: sentences for one in found for title, sentences in one.topics.items()}
    vectors = encoded(topics, encoder, cache, lambda n, of: watch(n, of, "encoding"))
    made = made_documents([one.fit for one in found], vectors, recipe.documents, f"fit:{recipe.seed}")
    dev = made_documents([one.dev for one in found], vectors, recipe.documents // 3, f"dev:{recipe.seed}")
    module = segmenter_module(
        discriminant([one.map for one in found], vectors, recipe.rank), made, recipe.kinds, recipe.seed
    )
    task = SegmentationTask(made, dev, recipe.batch, recipe.seed)
    settings = TrainSettings(epochs=recipe.epochs, rate=recipe.rate, weight_decay=0.0, seed=recipe.seed)
    data = {one.name: _described(one) for one in found}
    run = {"recipe": asdict(recipe), "data": data, "trunk": encoder.identity.space}
    progress = train(module, [task], settings, out / "run", run, watch)
    fitted = segmenter_of(module)
    fitted = replace(fitted, threshold=best_threshold(fitted, dev))
    card = {
        "format": FORMAT, "task": "segmenter", "trunk": encoder.identity.space,
        "trunk_name": encoder.identity.name, "command": command, "seed": recipe.seed,
        "recipe": asdict(recipe), "data": data,
        "metrics": {"dev": rounded(dev_metrics(fitted, dev)), "seconds": round(progress.seconds)},
    }  # fmt: skip
    fitted = replace(fitted, card=card)
    save_segmenter(fitted, out)
    return fitted


def _described(one: TopicSet) -> dict[str, Any]:
    titles = {"map": len(one.map), "fit": len(one.fit), "dev": len(one.dev)}
    return {"sha256": one.sha256, "titles": titles, "licence": LICENCES.get(one.name, "not stated")}
