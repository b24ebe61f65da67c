"""The Python of docs/routing.md runs, and says what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "routing.md").read_text("utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
SAID = ("tickets llm {'number': 12} ticket 12\n", "big\nNone\n")


def test_there_is_one_output_a_snippet() -> None:
    assert len(SNIPPETS) == len(SAID)


@pytest.mark.parametrize("number", range(len(SAID)))
def test_a_snippet_runs(number: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SNIPPETS[number]], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == SAID[number]
