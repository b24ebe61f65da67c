"""The segmenter's training: documents whose boundaries are known, the likelihood, a fit that helps."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from inspect import signature
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from agentmtl.cli.train_segmenter import segmenter
from agentmtl.errors import UsageError
from agentmtl.ingest.topics import load_segmenter
from agentmtl.learn.segmenter import dev_metrics, discriminant, log_likelihood
from agentmtl.learn.segmenter_documents import encoded, made_documents, read_topics
from agentmtl.learn.segmenter_recipe import SegmenterRecipe, train_segmenter
from agentmtl.trunk import HashingEncoder

RECIPE = SegmenterRecipe(rank=8, documents=12, epochs=2)


def titles_folder(folder: Path, titles: int = 40, seed: int = 0) -> Path:
    """A reading set: texts of a title share four words of their own."""
    random, lines = Random(seed), []
    common = [f"common{n}" for n in range(60)]
    for title in range(titles):
        own = [f"title{title}word{n}" for n in range(4)]
        text = " ".join(
            f"It is {' and '.join(random.choices(own, k=2))} with {' '.join(random.choices(common, k=4))}."
            for _ in range(9)
        )
        record = {"id": f"q{title}", "title": f"Title {title}", "context": text, "question": "What?"}
        lines.append(json.dumps({**record, "answers": [], "answerable": False}))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def of(kind: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """What a kind of text adds for segments of these sizes."""
    lengths = sum(kind[2] * (n == 1) + kind[3] * (n == 2) + kind[4] * math.log(n) for n in sizes)
    return kind[0] + kind[1] * (len(sizes) - 1) + lengths


def test_the_likelihood_is_of_one_among_all_segmentations() -> None:
    torch.manual_seed(0)
    evidence, gaps, kinds = torch.randn(2, 5, 3), torch.randn(2, 4), torch.randn(2, 5)
    for end in range(1, 4):
        evidence[:, end - 1, end:] = -1e4
    lengths, starts = (5, 4), ((2, 4), (1,))
    found = log_likelihood(evidence, gaps, kinds, lengths, starts)
    for row, (n, own) in enumerate(zip(lengths, starts, strict=True)):
        scores = {}
        for count in range(n):
            for cuts in combinations(range(1, n), count):
                edges = [0, *cuts, n]
                if all(b - a <= 3 for a, b in zip(edges, edges[1:], strict=False)):
                    sizes = [b - a for a, b in zip(edges, edges[1:], strict=False)]
                    score = sum(
                        evidence[row, b - 1, size - 1] for b, size in zip(edges[1:], sizes, strict=True)
                    )
                    score = score + sum(gaps[row, c - 1] for c in cuts)
                    scores[cuts] = torch.logsumexp(torch.stack([score + of(k, sizes) for k in kinds]), 0)
        total = torch.logsumexp(torch.stack(list(scores.values())), 0)
        assert float(found[row]) == pytest.approx(float((scores[own] - total) / n), abs=1e-5)


def test_the_command_trains_as_the_recipe_says() -> None:
    options = {name: p.default for name, p in signature(segmenter).parameters.items()}
    told = {name: value for name, value in asdict(SegmenterRecipe()).items() if name in options}
    assert told and all(options[name] == value for name, value in told.items())


def test_titles_are_on_one_side_and_documents_know_their_boundaries(tmp_path: Path) -> None:
    found = read_topics(titles_folder(tmp_path / "set"), limit=7)
    sides = [set(found.map), set(found.fit), set(found.dev)]
    assert sum(map(len, sides)) == len(found.topics) == 40 and all(sides)
    assert {len(sentences) for sentences in found.topics.values()} == {7}
    told: list[int] = []
    encoder = HashingEncoder(32)
    vectors = encoded(found.topics, encoder, tmp_path / "cache", lambda n, of: told.append(n))
    again = encoded(found.topics, encoder, tmp_path / "cache", lambda n, of: told.append(-1))
    assert told and min(told) > 0 and all(np.array_equal(vectors[s], again[s]) for s in vectors)
    for made in made_documents([found.fit], vectors, 5, "a"):
        edges = (0, *made.starts, len(made.sentences))
        for topic, a, b in zip(made.topics, edges, edges[1:], strict=False):
            assert set(made.sentences[a:b]) <= set(found.fit[topic]) and a < b
        assert all(one != two for one, two in zip(made.topics, made.topics[1:], strict=False))
        assert made.features.shape[0] == len(made.sentences) - 1
    with pytest.raises(UsageError, match="fewer than two"):
        made_documents([{}], vectors, 1, "a")


def test_the_map_leaves_the_variance_within_pieces_at_one(tmp_path: Path) -> None:
    found = read_topics(titles_folder(tmp_path / "set"))
    vectors = encoded(found.topics, HashingEncoder(64), tmp_path / "cache", lambda n, of: None)
    projection, offset, spread = discriminant([found.topics], vectors, 6)
    assert projection.shape == (64, 6) and (np.diff(spread) <= 1e-2).mean() >= 0.5 and (spread > 0).all()
    pieces = [np.stack([vectors[s] for s in p[:8]]) @ projection + offset for p in found.topics.values()]
    within = sum(((p - p.mean(axis=0)) ** 2).sum(axis=0) for p in pieces) / (7 * len(pieces))
    assert within.mean() == pytest.approx(1.0, rel=0.1)


def test_training_finds_the_titles_and_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, encoder, out = titles_folder(tmp_path / "set"), HashingEncoder(256), tmp_path / "out"
    fitted = train_segmenter(encoder, [folder], out, RECIPE, tmp_path / "cache", "the command")
    assert fitted.card["metrics"]["dev"]["pk"] < 0.2
    assert fitted.card["command"] == "the command" and fitted.card["trunk"] == encoder.identity.weights
    others = read_topics(titles_folder(tmp_path / "others", seed=9))
    vectors = encoded(others.topics, encoder, tmp_path / "cache", lambda n, of: None)
    documents = made_documents([others.topics], vectors, 6, "others")
    assert dev_metrics(load_segmenter(out), documents)["pk"] < 0.25
    again = train_segmenter(encoder, [folder], out, RECIPE, tmp_path / "cache", "the command")
    assert np.array_equal(again.weights, fitted.weights) and again.threshold == fitted.threshold
    with pytest.raises(UsageError, match="other data or settings"):
        train_segmenter(encoder, [folder], out, SegmenterRecipe(rank=4, documents=12), tmp_path / "cache")
    with pytest.raises(UsageError, match="too few titles"):
        train_segmenter(encoder, [titles_folder(tmp_path / "few", 3)], out, RECIPE, tmp_path / "cache")
    with pytest.raises(UsageError, match="no texts with titles"):
        read_topics(tmp_path / "cache")
