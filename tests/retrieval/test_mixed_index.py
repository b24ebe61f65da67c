"""Segments that lack a level (demonstrations alone) beside ordinary ones: identifiers pass over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmtl import Document, Index
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task


@pytest.mark.parametrize("channel", ["fused", "identifiers"])
@pytest.mark.parametrize("level", ["document", "passage", "sentence", "demonstration"])
def test_a_segment_of_demonstrations_alone_is_passed_over(tmp_path: Path, level: str, channel: str) -> None:
    index = Index.create(tmp_path / "i", encoder="hashing:64")
    index.add([Document("d", "Cats sleep all day. Dogs bark at night.", "Pets")])
    task = Task("t", "classification")
    index.add_demonstrations(
        task, [Demonstration("t", f"the dogs and cats of house {i}", "a") for i in range(3)]
    )
    # many segments: what is added last is merged in passing, so each addition is looked at by itself
    assert len(index.snapshot.segments) == 2
    hits = index.retrieve("dogs and cats sleep", level=level, channel=channel, k=5)  # type: ignore[arg-type]
    expected = "t/" if level == "demonstration" else "d"
    assert hits and all(hit.unit.source_id.startswith(expected) for hit in hits)
