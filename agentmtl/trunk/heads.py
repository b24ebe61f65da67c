"""Heads of the shared trunk: low-rank adapters with their output layers, a small folder each.

    head.safetensors   adapter.<module>.{A,B} (rank, in) and (out, rank), and output.<name>.{weight,bias}
    card.json          what it does, the trunk it was made for, how it was trained, and how well it does

A weight of the trunk becomes W + scale · B·A (LoRA: Hu et al., arXiv 2106.09685, equation 3). A head fits the
one trunk whose weights' hash its card names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError
from agentmtl.trunk.encoder import EncoderIdentity

FORMAT = 1
TENSORS, CARD = "head.safetensors", "card.json"
_AGAIN = "Make it again: agentmtl train HEAD --data … --out DIR"

Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadCard:
    """`trunk`: the hash of the weights it adapts, and `trunk_name` what they are called. `scale`: of B·A.

    `layers`: it reads the trunk's first so many, 0 all of them. `outputs`: name → numbers a token; with
    `first_only` of the first token alone. `data`:
    sets with hash, records and licence; `calibration`: what the expert needs to read its scores.
    """

    task: str
    trunk: str
    trunk_name: str
    rank: int
    scale: float
    max_length: int
    outputs: Mapping[str, int]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    seed: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    layers: int = 0
    first_only: bool = False
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def is_trained_on(self, sha256: str) -> bool:
        """Whether it, or the head it started from, learned from the set with this hash."""
        return any(entry.get("sha256") == sha256 and entry.get("train") for entry in self.data.values())


@dataclass(frozen=True, slots=True)
class Head:
    """A head in memory. `adapters`: layer → (A, B); `outputs`: name → (weight (out, d), bias (out,))."""

    card: HeadCard
    adapters: Mapping[str, tuple[Tensor, Tensor]]
    outputs: Mapping[str, tuple[Tensor, Tensor]]

    def check_trunk(self, identity: EncoderIdentity) -> None:
        """Raises EncoderError where the head was made for another trunk."""
        if self.card.trunk != identity.weights:
            raise EncoderError(
                f"The head {self.card.task} was made for the trunk {self.card.trunk[:19]}…, not for "
                f"{identity.name} ({identity.weights[:19]}…).",
                f"Make one: agentmtl train {self.card.task} --encoder {identity.name} --data … --out DIR",
            )

    def check_output(self, name: str) -> None:
        """Raises EncoderError where the head is another task's."""
        if name not in self.outputs:
            raise EncoderError(
                f"The head is for {self.card.task}: it has no output {name!r}.",
                "Give the folder of another head.",
            )


def save_head(head: Head, folder: Path) -> None:
    """Write a head as float16, which halves it and costs no answer."""
    from safetensors.numpy import save_file

    tensors = {
        f"adapter.{n}.{part}": t for n, ab in head.adapters.items() for part, t in zip("AB", ab, strict=True)
    }
    for name, (weight, bias) in head.outputs.items():
        tensors |= {f"output.{name}.weight": weight, f"output.{name}.bias": bias}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: np.ascontiguousarray(t, np.float16) for n, t in tensors.items()}, folder / TENSORS)
    text = json.dumps(head.card.to_json(), indent=1, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", "utf-8")


def load_head(folder: Path) -> Head:
    """Read a head. Raises EncoderError where a file is missing or not what `save_head` writes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        card = HeadCard(**json.loads((folder / CARD).read_text("utf-8")))
        tensors = {n: t.astype(np.float32) for n, t in load_file(folder / TENSORS).items()}
        adapters = {
            n.removeprefix("adapter.")[:-2]: (a, tensors[n[:-1] + "B"])
            for n, a in tensors.items()
            if n.startswith("adapter.") and n.endswith(".A")
        }
        outputs = {n: (tensors[f"output.{n}.weight"], tensors[f"output.{n}.bias"]) for n in card.outputs}
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise EncoderError(f"The head {folder} cannot be read: {error}.", _AGAIN) from error
    if card.format != FORMAT:
        raise EncoderError(f"The head {folder} has format {card.format}, not {FORMAT}.", _AGAIN)
    return Head(card, adapters, outputs)


def shipped_head(task: str) -> Path | None:
    """The folder of the head that comes with the package, if one does. "./name" is a folder of one's own."""
    if Path(task).name != task:
        return None
    folder = Path(str(files("agentmtl.trunk").joinpath("shipped", task)))
    return folder if (folder / CARD).is_file() else None
