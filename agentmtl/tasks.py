"""Task cards: what a task is, in a small TOML or JSON file.

    name = "trec"
    kind = "classification"       # answer, extract, classification, multiple_choice or generation
    instruction = "Say what kind of answer the question asks for."
    labels = ["abbreviation", "description", "entity", "human", "location", "number"]

The same card conditions the retriever, selects demonstrations, renders a prompt and parses the output.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from agentmtl.errors import UsageError

Kind: TypeAlias = Literal["answer", "extract", "classification", "multiple_choice", "generation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_HINT = "A card has a name, a kind and an instruction; see agentmtl.tasks."


@dataclass(frozen=True, slots=True)
class Task:
    """A task card. `labels`: the outputs of a classification; `avoid`: what an output must not do."""

    name: str
    kind: Kind
    instruction: str = ""
    definition: str = ""
    labels: tuple[str, ...] = ()
    output_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    avoid: tuple[str, ...] = ()
    metric: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, without what is empty."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "The task card") -> Task:
        """Read a card; fields that are not a card's are left out. Raises UsageError, naming the field."""
        name, kind = data.get("name"), data.get("kind")
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"{where} has no name.", _HINT)
        if kind not in KINDS:
            raise UsageError(f"{where} has the kind {kind!r}.", f"Choose one of {', '.join(KINDS)}.")
        return cls(
            name.strip(),
            kind,
            instruction=_text(data, "instruction", where),
            definition=_text(data, "definition", where),
            labels=_texts(data, "labels", where),
            output_schema=data.get("output_schema"),
            avoid=_texts(data, "avoid", where),
            metric=_text(data, "metric", where),
        )


def instructed(task: Task | None, text: str) -> str:
    """A text under a task's instruction, for an encoder that was trained so; without a task, the text."""
    return under(task.instruction, text) if task is not None else text


def under(instruction: str, text: str) -> str:
    """A text under an instruction; the text where that is empty."""
    return f"{instruction} {text}" if instruction else text


def load_task(path: Path) -> Task:
    """Read a card from a .toml or .json file. Raises UsageError for anything else."""
    try:
        raw = path.read_text("utf-8")
        data = tomllib.loads(raw) if path.suffix == ".toml" else json.loads(raw)
    except (OSError, ValueError) as error:
        raise UsageError(f"The task card {path} cannot be read: {error}.", _HINT) from error
    if not isinstance(data, dict):
        raise UsageError(f"The task card {path} is not an object.", _HINT)
    return Task.from_json(data, str(path))


def _text(data: Mapping[str, Any], field: str, where: str) -> str:
    value = data.get(field) or ""
    if not isinstance(value, str):
        raise UsageError(f"{where} has a {field} that is no text.", _HINT)
    return value


def _texts(data: Mapping[str, Any], field: str, where: str) -> tuple[str, ...]:
    value = data.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{where} has {field} that are not a list of texts.", _HINT)
    return tuple(value)
