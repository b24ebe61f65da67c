"""Pairs of texts to token ids: [CLS] first [SEP] second [SEP], with the place of every token of the second.

A second text too long for the model is cut into windows that overlap, so that nothing of it goes unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError
from agentmtl.trunk.model_files import ModelFiles

OVERLAP = 96  # tokens that neighbouring windows share, at most half of what fits
LONGEST_FIRST = 96  # tokens of the first text that are read, at most half of a window
MAX_CHARACTERS = 200_000  # of a second text

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a pair, whose number is `pair`.

    `ids`, `types` (n,); `starts`, `ends` (n,): the characters [start, end) of the second text that a token
    stands for, −1 for tokens that are not of it.
    """

    pair: int
    ids: Ids
    types: Ids
    starts: Ids
    ends: Ids


@dataclass(frozen=True, slots=True)
class PaddedWindows:
    """(n, longest) arrays; `mask` is 1 where there is a token."""

    ids: Ids
    types: Ids
    mask: Ids


class PairCutter:
    """Tokenises pairs for a model, at most `max_length` tokens a window."""

    def __init__(self, files: ModelFiles, max_length: int) -> None:
        """Raises EncoderError where the model's tokeniser cannot be read or has no separators."""
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(files.tokenizer))
        except Exception as error:  # noqa: BLE001 - the Rust library raises plain Exception; re-raised typed
            raise EncoderError(
                f"{files.tokenizer} cannot be read: {error}.", "Install the model again."
            ) from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        frame = self._tokenizer.encode("", "").ids
        if len(frame) < 3:
            raise EncoderError(
                f"The tokeniser {files.tokenizer} does not separate pairs of texts.",
                "Choose a trunk of the BERT family.",
            )
        self._first, self._between, self._last = frame[0], frame[1:-1], frame[-1]
        self.pad_id: int = self._tokenizer.token_to_id(files.pad_token) or 0
        self._max_length = max_length

    def windows(self, firsts: Sequence[str], seconds: Sequence[str]) -> list[Window]:
        """The windows of every pair, in order; a pair has one at least."""
        known: dict[str, list[int]] = {}
        for text, encoding in zip(
            dict.fromkeys(firsts), self._encode(list(dict.fromkeys(firsts))), strict=True
        ):
            known[text] = encoding[0][: min(LONGEST_FIRST, self._max_length // 2)]
        found: list[Window] = []
        for pair, (first, second) in enumerate(zip(firsts, self._encode(seconds), strict=True)):
            found += self._cut(pair, known[first], *second)
        return found

    def first_windows(self, firsts: Sequence[str], seconds: Sequence[str]) -> list[Window]:
        """One window a pair: the beginning of the second text, as much as fits."""
        found: dict[int, Window] = {}
        for window in self.windows(firsts, seconds):
            found.setdefault(window.pair, window)
        return [found[pair] for pair in range(len(seconds))]

    def singles(self, texts: Sequence[str]) -> list[Window]:
        """One window a text alone, [CLS] text [SEP], as the trunk reads what it embeds."""
        return [
            self._window(n, [self._first], ids[: self._max_length - 2], offsets[: self._max_length - 2])
            for n, (ids, offsets) in enumerate(self._encode(texts))
        ]

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        clean = [text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8") for text in texts]
        found = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in found]

    def _cut(
        self, pair: int, first: list[int], second: list[int], offsets: list[tuple[int, int]]
    ) -> list[Window]:
        head = [self._first, *first, *self._between]
        room = self._max_length - len(head) - 1
        overlap = min(OVERLAP, room // 2)  # beside a long first text, or in a short model, there is less room
        starts = range(0, len(second) - overlap, room - overlap) if len(second) > room else range(1)
        return [self._window(pair, head, second[at : at + room], offsets[at : at + room]) for at in starts]

    def _window(self, pair: int, head: list[int], part: list[int], offsets: list[tuple[int, int]]) -> Window:
        ids = np.array([*head, *part, self._last], np.int64)
        types = np.zeros(len(ids), np.int64)
        if len(head) > 1:
            types[len(head) :] = 1
        places = np.full((len(ids), 2), -1, np.int64)
        if part:
            places[len(head) : -1] = offsets
        return Window(pair, ids, types, places[:, 0].copy(), places[:, 1].copy())

    def pad(self, windows: Sequence[Window]) -> PaddedWindows:
        """The windows side by side, as wide as the longest."""
        width = max(len(window.ids) for window in windows)
        ids = np.full((len(windows), width), self.pad_id, np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, window in enumerate(windows):
            n = len(window.ids)
            ids[row, :n], types[row, :n], mask[row, :n] = window.ids, window.types, 1
        return PaddedWindows(ids, types, mask)
