"""A small index for an agent with a chat model."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmtl import Chunking, Document, Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "index", encoder="hashing", chunking=Chunking(60, 1))
    made.add(
        [
            Document("harrison", "John Harrison was born in Foulby. Some say Larvik.", "John Harrison"),
            Document("bread", "Bread is baked from flour and water.", "Bread"),
        ]
    )
    return made
