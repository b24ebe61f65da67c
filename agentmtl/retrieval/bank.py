"""A bank of labelled examples of many tasks, for a task that has few of its own.

One matrix over all tasks. What is found for an input is filtered by task (strictly, by a preference, or not
at all), and never says the same as the input: examples whose words are the input's, or whose 3-word shingles
overlap with it by 0.9 and more, are left out, so that tasks made of the same texts do not answer each other.

    bank.jsonl           {"task", "input", "output"} a line
    bank.safetensors     vectors (n, d) of the inputs; meanings (m, d) of the outputs, output (n,) which
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError
from agentmtl.retrieval.demonstrations import alike, shingles
from agentmtl.trunk.encoder import Vectors

Filter: TypeAlias = Literal["strict", "prior", "none"]
Floats: TypeAlias = NDArray[np.float64]

EXAMPLES, TENSORS = "bank.jsonl", "bank.safetensors"
PREFERENCE = 0.1  # of cosine, for the preferred task's own
_shingles = lru_cache(maxsize=1 << 16)(shingles)  # of entries, which are looked at again and again
_SPARE = 8  # more than k looked at, for what the filter takes out
_AGAIN = "Make it again: agentmtl train bank --data DIR --out DIR"


@dataclass(frozen=True, slots=True)
class Entry:
    """An example of the bank."""

    task: str
    input: str
    output: str


@dataclass(frozen=True, slots=True, eq=False)
class DemonstrationBank:
    """`vectors` (n, d) of the inputs, of unit length; `meanings` (m, d): what an output says, apart from what
    all outputs of its task say; `of_output` (n,): which of them each entry has."""

    entries: tuple[Entry, ...]
    vectors: Vectors
    meanings: Vectors
    of_output: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.entries)

    def without(self, tasks: Collection[str]) -> DemonstrationBank:
        """The examples of all other tasks."""
        rows = [n for n, entry in enumerate(self.entries) if entry.task not in tasks]
        kept = tuple(self.entries[n] for n in rows)
        return DemonstrationBank(kept, self.vectors[rows], self.meanings, self.of_output[rows])

    def nearest(
        self,
        text: str,
        vector: Vectors,
        k: int,
        task: str = "",
        filtered: Filter = "none",
        preference: float = PREFERENCE,
    ) -> tuple[list[int], list[float]]:
        """The `k` entries nearest to an input with vector (d,), best first, and their scores: the cosine,
        with `preference` added for those of `task` where the filter is "prior". "strict": of `task` alone."""
        scores = np.asarray(self.vectors @ vector, np.float64)
        if filtered != "none":
            mine = np.array([entry.task == task for entry in self.entries], bool)
            scores = np.where(mine, scores + preference * (filtered == "prior"), scores)
            if filtered == "strict":
                scores = np.where(mine, scores, -np.inf)
        rows = self._unlike(text, scores, k)
        return rows, [float(scores[row]) for row in rows]

    def _unlike(self, text: str, scores: Floats, k: int) -> list[int]:
        """The best `k` that do not say the same as the text."""
        said = shingles(text)
        depth = min(len(scores), k + _SPARE)
        best = np.argpartition(-scores, depth - 1)[:depth] if depth else np.empty(0, np.int64)
        order = best[np.argsort(-scores[best], kind="stable")]
        left = [int(row) for row in order if np.isfinite(scores[row])]
        found = [row for row in left if not alike(said, _shingles(self.entries[row].input))]
        if len(found) >= k or len(left) < depth or depth == len(scores):
            return found[:k]
        every = [int(row) for row in np.argsort(-scores, kind="stable") if np.isfinite(scores[row])]
        return [row for row in every if not alike(said, _shingles(self.entries[row].input))][:k]


def save_bank(bank: DemonstrationBank, folder: Path) -> None:
    """Write a bank, its vectors as float16."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"task": e.task, "input": e.input, "output": e.output}) for e in bank.entries]
    (folder / EXAMPLES).write_text("".join(line + "\n" for line in lines), "utf-8")
    tensors = {
        "vectors": bank.vectors.astype(np.float16),
        "meanings": bank.meanings.astype(np.float16),
        "output": bank.of_output.astype(np.int32),
    }
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / TENSORS)


def load_bank(folder: Path) -> DemonstrationBank:
    """Read what `save_bank` writes. Raises EncoderError where it is not that."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        lines = (folder / EXAMPLES).read_text("utf-8").splitlines()
        entries = tuple(Entry(**json.loads(line)) for line in lines)
        tensors = load_file(folder / TENSORS)
        vectors, meanings = (np.asarray(tensors[n], np.float32) for n in ("vectors", "meanings"))
        bank = DemonstrationBank(entries, vectors, meanings, np.asarray(tensors["output"], np.int64))
        if not len(entries) == len(vectors) == len(bank.of_output):
            raise ValueError("its files are of different lengths")
    except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
        raise EncoderError(f"The bank {folder} cannot be read: {error}.", _AGAIN) from error
    return bank


def build_bank(entries: Sequence[Entry], vectors: Vectors, meanings: Sequence[Vectors]) -> DemonstrationBank:
    """Of entries with vectors (n, d) and what the output of each says (n of (d,)); the mean over the outputs
    of a task is taken from each, so that what they have in common says nothing."""
    places: dict[tuple[str, str], int] = {}
    rows: list[Vectors] = []
    for entry, meaning in zip(entries, meanings, strict=True):
        if (entry.task, entry.output) not in places:
            places[entry.task, entry.output] = len(rows)
            rows.append(meaning)
    found = np.stack(rows) if rows else np.empty((0, vectors.shape[-1]), np.float32)
    for task in {task for task, _ in places}:
        mine = [n for (of, _), n in places.items() if of == task]
        found[mine] = centred(found[mine])
    of_output = np.array([places[entry.task, entry.output] for entry in entries], np.int64)
    return DemonstrationBank(tuple(entries), vectors, found, of_output)


def centred(vectors: Vectors) -> Vectors:
    """(n, d) less their mean, of unit length."""
    apart = vectors - vectors.mean(axis=0)
    return np.asarray(apart / np.maximum(np.linalg.norm(apart, axis=-1, keepdims=True), 1e-9), np.float32)
