"""What the reader learns from retrieved contexts: which one answers, and that the others are not the one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmtl.evaluate.indexes import index_for as real_index_for
from agentmtl.evaluate.reading_examples import ReadingExample, read_examples
from agentmtl.experts.reading import HERE, KIND, OUTPUTS, SPAN
from agentmtl.learn.reader import ReadingTask
from agentmtl.learn.retrieved_reading import distractors, retrieved_examples
from agentmtl.trunk.pairs import PairCutter
from tests.learn.worlds import multihop_set, reading_set
from tests.trunk.tiny import tiny_trunk


@pytest.fixture(autouse=True)
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashing_index(data, root, **others):  # type: ignore[no-untyped-def]
        return real_index_for(data, root, **{**others, "encoder": "hashing:64"})

    monkeypatch.setattr("agentmtl.learn.retrieved_reading.index_for", hashing_index)


def test_a_context_that_does_not_answer_is_elsewhere(tmp_path: Path) -> None:
    data = multihop_set(tmp_path / "set")
    found = retrieved_examples(data, tmp_path / "ix")
    assert {e.kind for e in found} == {"span", "elsewhere"}
    for example in found:
        town = {"span": 1, "elsewhere": 0}[example.kind]
        assert len(example.accepted) == town
    assert found == retrieved_examples(data, tmp_path / "ix")


def test_distractors_are_found_in_vain_and_keep_their_articles_side(tmp_path: Path) -> None:
    data = reading_set(tmp_path / "set")
    examples = {e.id: e for e in read_examples(data)}
    found = distractors(data, tmp_path / "ix", 12)
    assert 10 <= len(found) <= 20 and distractors(data, tmp_path / "ix", 0) == []
    for example in found:
        asked = examples[example.id.removesuffix("/elsewhere")]
        assert example.kind == "elsewhere" and not example.spans
        assert (example.group, example.question) == (asked.group, asked.question)
        assert example.context != asked.context
        assert not any(answer in example.context for answer in asked.accepted)


def test_of_a_context_elsewhere_only_here_is_learned(tmp_path: Path) -> None:
    """Its gradient reaches no other output; one about the question reaches all."""
    import torch

    from agentmtl.trunk.head_module import trainable_module

    files = tiny_trunk(tmp_path / "trunk")
    text = "The bridge was opened in 1890."
    examples = [
        ReadingExample("1", "a", "When?", text, kind="elsewhere"),
        ReadingExample("2", "b", "When?", text, "", ((25, 29),)),
    ]
    task = ReadingTask(PairCutter(files, 64), examples, examples, batch=1)
    for row, reached in ((0, {HERE}), (1, {HERE, KIND, SPAN})):
        module = trainable_module(files, OUTPUTS, 4, 2.0, 0.0, 0)
        task.loss(module, [row]).backward()  # type: ignore[no-untyped-call]
        outputs = module.outputs
        assert {n for n, layer in outputs.items() if _moved(layer.weight)} == reached  # type: ignore[operator, union-attr]
    with torch.inference_mode():
        assert "here" in task.evaluate(module.eval())


def _moved(weight) -> bool:  # type: ignore[no-untyped-def]
    return weight.grad is not None and bool(np.abs(weight.grad.numpy()).max() > 0)
