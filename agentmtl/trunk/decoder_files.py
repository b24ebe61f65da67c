"""A trained decoder on disk, and at work: a folder with its weights as float16 and a card.

    head.safetensors   the decoder's own tensors, and `prior` (v + 4,), ln of tokens' shares of the training
    text card.json          its shape, the trunk it was made for, how it was trained, and how well it does

The trunk's word vectors are not in it. A decoder fits the one trunk whose weights' hash its card names.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError
from agentmtl.schema import Level
from agentmtl.trunk.decoder import ASKED, MARKED, PROMPT, DecoderShape, Memory, Read, decoder_module, padded
from agentmtl.trunk.heads import CARD, TENSORS
from agentmtl.trunk.loading import model_files
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.query_states import QueryStates, States

FORMAT = 2
TASK = "identifiers"
_PRIOR = "prior"
_AGAIN = "Make it again: agentmtl train identifiers --data DIR --out DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderCard:
    """`trunk`: the hash of its weights, and `trunk_name` what it is called. `tokenizer`: the identity of the
    token streams whose n-grams it speaks of. `data`: sets with hash, records and licence."""

    trunk: str
    trunk_name: str
    tokenizer: str
    shape: DecoderShape
    task: str = TASK
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    seed: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fresh_decoder(states: QueryStates, prior: NDArray[np.float32], shape: DecoderShape, seed: int = 0) -> Any:
    """A decoder to train, over the trunk that `states` reads with. `prior` (v + 4,) of its tokeniser's ids.

    Raises EncoderError where the trunk does not load, or lacks vectors of some tokens.
    """
    words = states.words()
    known = len(prior) - MARKED
    if len(words) < known:
        raise EncoderError(
            f"The trunk has {len(words)} word vectors for {known} tokens.",
            "Choose a trunk with its own tokeniser.",
        )
    return decoder_module(words[:known], prior, _prompts(states), shape, seed)


def _prompts(states: QueryStates) -> Read:
    return padded(states.read([PROMPT.format(level=level) for level in ASKED]))


def save_decoder(module: Any, card: DecoderCard, folder: Path) -> None:
    """Write a decoder as float16."""
    from safetensors.numpy import save_file

    tensors = {n: p.detach().float().cpu().numpy() for n, p in module.named_parameters()}
    tensors[_PRIOR] = module.prior.cpu().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: np.ascontiguousarray(t, np.float16) for n, t in tensors.items()}, folder / TENSORS)
    text = json.dumps(card.to_json(), indent=1, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", "utf-8")


class KeyDecoder:
    """A decoder from a folder, opened at first use. Threads take turns."""

    def __init__(self, folder: Path, files: ModelFiles | None = None) -> None:
        """`files`: the trunk's, by default of the name on the card.

        Raises EncoderError where the folder is damaged, or the trunk is another than it was made for.
        """
        self.card = read_card(folder)
        files = files or model_files(self.card.trunk_name)
        if files.identity.weights != self.card.trunk:
            raise EncoderError(
                f"The decoder {folder} was made for the trunk {self.card.trunk[:19]}…, not for "
                f"{files.identity.name} ({files.identity.weights[:19]}…).",
                f"Make one: agentmtl train identifiers --encoder {files.identity.name} --data DIR --out DIR",
            )
        self._folder, self._states = folder, QueryStates(files)
        self._lock = threading.Lock()
        self._module: Any = None
        self._last: tuple[str, States] | None = None

    @property
    def files(self) -> ModelFiles:
        """The trunk's."""
        return self._states.files

    @property
    def module(self) -> Any:
        """The decoder, for scoring. Raises EncoderError where it does not load."""
        with self._lock:
            if self._module is None:
                self._module = _load(self._folder, self.card, self._states)
            return self._module

    def remember(self, query: str, level: Level, prior: Any = None) -> Memory:
        """What the decoder attends to; the trunk reads a query that comes again, for another level, once.
        `prior` (v + 4,): a tensor of ln shares of the corpus that is asked; None: of the training texts."""
        import torch

        last = self._last
        if last is None or last[0] != query:
            last = self._last = query, self._states.read([query])[0]
        memory: Memory = self.module.remember(padded([last[1]]), torch.tensor([ASKED.index(level)]), prior)
        return memory


def read_card(folder: Path) -> DecoderCard:
    """The card of a decoder. Raises EncoderError where there is none, or it is another head's."""
    try:
        data = json.loads((folder / CARD).read_text("utf-8"))
        if data.get("task") != TASK:
            raise EncoderError(f"{folder} holds no decoder of identifiers.", "Give the folder of one.")
        card = DecoderCard(**{**data, "shape": DecoderShape(**data["shape"])})
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise EncoderError(f"The decoder {folder} cannot be read: {error}.", _AGAIN) from error
    if card.format != FORMAT:
        raise EncoderError(f"The decoder {folder} has format {card.format}, not {FORMAT}.", _AGAIN)
    return card


def _load(folder: Path, card: DecoderCard, states: QueryStates) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = {n: t.astype(np.float32) for n, t in load_file(folder / TENSORS).items()}
        module = fresh_decoder(states, tensors[_PRIOR], card.shape)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(torch.from_numpy(tensors[name]))
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"The decoder {folder} cannot be read: {error}.", _AGAIN) from error
    return module.eval()
