"""Labelled examples from JSON Lines: {input, output, choices?, answer_index?} a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentmtl.errors import IngestError
from agentmtl.schema import Demonstration

_HINT = 'A line reads {"input": "…", "output": "…"}; multiple choice adds choices and answer_index.'


def read_demonstrations(path: Path, task: str) -> Iterator[Demonstration]:
    """The examples of a file, in order. Raises IngestError, naming the line, for one that is none."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield parse_demonstration(line, task, f"{path}, line {number},")
    except (OSError, UnicodeDecodeError) as error:
        raise IngestError(f"{path} cannot be read: {error}.", _HINT) from error


def parse_demonstration(line: str, task: str, where: str) -> Demonstration:
    """One line as an example. Raises IngestError, which begins with `where`."""
    try:
        data: Any = json.loads(line)
    except ValueError as error:
        raise IngestError(f"{where} is no JSON: {error}.", _HINT) from error
    if not isinstance(data, dict) or not all(isinstance(data.get(f), str) for f in ("input", "output")):
        raise IngestError(f"{where} has no input and output.", _HINT)
    if not data["input"].strip():
        raise IngestError(f"{where} has an empty input.", _HINT)
    choices, answer = data.get("choices") or [], data.get("answer_index")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise IngestError(f"{where} has choices that are not a list of texts.", _HINT)
    if choices and not (isinstance(answer, int) and 0 <= answer < len(choices)):
        raise IngestError(f"{where} has choices and no answer_index among them.", _HINT)
    return Demonstration(task, data["input"], data["output"], tuple(choices), answer if choices else None)
