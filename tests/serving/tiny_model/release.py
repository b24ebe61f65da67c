"""The committed files: where they lie, their card, their hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.serving.tiny_model.measuring import ADAPTERS, Row, table
from tests.serving.tiny_model.recipe import as_json

HOME = Path(__file__).resolve().parent.parent
BASE, ADAPTER_FOLDER, SUMS, CARD = (
    HOME / "tiny",
    HOME / "adapters",
    HOME / "SHA256SUMS",
    HOME / "tiny/README.md",
)
LIMIT = 12_000_000  # bytes of all of them
_BASE_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_CARD = """# A tiny language model for tests

A Llama of {parameters:.1f} million parameters with a tokenizer of its own, and LoRA adapters of it in
`../adapters`. It is made for the tests that serve a real model: its answers mean something in a world of
made-up names, and it knows nothing else. All of its training data is synthetic and comes from the scripts in
`../tiny_model`; nothing was downloaded. Apache-2.0, as the repository.

It reads the prompts of `agentmtl/experts/prompts` as they stood when it was trained. A prompt whose wording
changes much needs a new model.

It was trained for these, and how far it got is in the table: rewriting and JSON are good, one answer of two
is right, and what it says when it routes or judges is no better than chance.

- **answering**: "Foulby [2]" or "no answer", from up to six documents; fusing, refining, repairing, judging
- **rewriting** a question that needs the conversation before it; **hops**: what to look up next, or "enough"
- **routing**: the letter of the expert whose card fits; **JSON** of a name and one other field
- adapter `tickets`: answers about support tickets, which the base was never shown
- adapter `places`: says what kind of place it is, "the town of Foulby [2]"

## Measured

Names held out from training, up to {most} documents a prompt, greedy decoding.
`python -m tests.serving.tiny_model measure --count {count}`

{table}

## Made with

```sh
python -m tests.serving.tiny_model base --work WORK     # an hour on one core; goes on where it stopped
python -m tests.serving.tiny_model tickets --work WORK
python -m tests.serving.tiny_model places --work WORK
python -m tests.serving.tiny_model release --work WORK  # copies here, measures, writes this card
```

The committed base was not made in one go. Up to step 1300 a prompt of routing had one request, up to step
1900 it had no made-up experts and no steps on the way; the schedule was then planned for more steps, so that
the learning rates began to fall at step 1800. A run from the start makes a base like it, not the same.

```json
{recipe}
```
"""


def files() -> list[Path]:
    """Every committed file of the model and its adapters, by path."""
    return sorted(
        path
        for folder in (BASE, ADAPTER_FOLDER)
        for path in folder.rglob("*")
        if path.is_file() and path != CARD
    )


def sums() -> str:
    """In the form of sha256sum: a hash, two spaces and a path from `tests/serving` a line."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HOME).as_posix()}"
        for path in files()
    ]
    return "\n".join(lines) + "\n"


def card_recipe() -> object:
    """What the card says about the training."""
    return json.loads(CARD.read_text("utf-8").split("```json\n")[1].split("```")[0])


def copy_from(work: Path) -> None:
    """Takes the trained files out of the folder of the training."""
    for source, target, names in (
        (work / "model", BASE, _BASE_FILES),
        *((work / "adapters" / name, ADAPTER_FOLDER / name, _ADAPTER_FILES) for name in ADAPTERS),
    ):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in names:
            shutil.copyfile(source / name, target / name)
    for name in ADAPTERS:
        path = ADAPTER_FOLDER / name / "adapter_config.json"
        config = json.loads(path.read_text("utf-8")) | {"base_model_name_or_path": "tiny"}
        path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")


def write_card(rows: Sequence[Row], parameters: int, count: int, most: int) -> None:
    """The card and the hashes."""
    CARD.write_text(
        _CARD.format(
            parameters=parameters / 1e6, table=table(rows), count=count, most=most,
            recipe=json.dumps(as_json(), indent=1),
        ),
        "utf-8",
    )  # fmt: skip
    SUMS.write_text(sums(), "utf-8")
