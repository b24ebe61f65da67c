"""Texts to token ids, and token ids to batches that hold little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError
from agentmtl.trunk.model_files import ModelFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = NDArray[np.int64]
# Characters looked at per token kept. Real text has 3 to 5; the bound keeps a 200 MB line from being
# tokenised whole for the sake of its first 256 tokens.
_CHARACTERS_PER_TOKEN = 1000
# A text joins a batch where it fills this share of the width, less a few tokens: a batch has a cost too.
_LEAST_FILLED = 0.75
_SHORT = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` and `mask`, both (n, longest), int64; `rows` are the texts' places in the window."""

    ids: Ids
    mask: Ids
    rows: NDArray[np.intp]


class TokenCutter:
    """Token ids of texts, cut at the model's maximum length, special tokens included."""

    def __init__(self, files: ModelFiles) -> None:
        from tokenizers import Tokenizer

        try:
            tokenizer: Tokenizer = Tokenizer.from_file(str(files.tokenizer))
        except Exception as error:  # noqa: BLE001 - the Rust library raises plain Exception; re-raised typed
            raise EncoderError(
                f"{files.tokenizer} cannot be read: {error}.", "Install the model again."
            ) from None
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=files.identity.max_length)
        self._tokenizer = tokenizer
        self._longest = files.identity.max_length * _CHARACTERS_PER_TOKEN
        self.pad_id: int = tokenizer.token_to_id(files.pad_token) or 0

    def cut(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text. Lone surrogates, which UTF-8 cannot hold, are read as "?"."""
        clean = [_encodable(text[: self._longest]) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(clean)]


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def pack(tokens: Sequence[Sequence[int]], budget: int, pad_id: int, multiple: int = 1) -> Iterator[Batch]:
    """Batches of at most `budget` padded tokens (a longer text is alone), longest texts first.

    Sorting by length puts texts of like length together, and a batch ends before a text much shorter than
    its first, so little padding is computed. The longest come first so that the last batches are small and
    parallel workers end together. Widths are rounded up to a `multiple`, so that few shapes occur.
    """
    lengths = np.fromiter((len(ids) for ids in tokens), dtype=np.intp, count=len(tokens))
    order = np.argsort(-lengths, kind="stable")
    descending = -lengths[order]
    start = 0
    while start < len(order):
        width = max(1, -(-int(lengths[order[start]]) // multiple) * multiple)
        like = int(np.searchsorted(descending, -(_LEAST_FILLED * width - _SHORT), side="right")) - start
        rows = order[start : start + max(1, min(budget // width, like))]
        yield _padded(tokens, rows, width, pad_id)
        start += len(rows)


def _padded(tokens: Sequence[Sequence[int]], rows: NDArray[np.intp], width: int, pad_id: int) -> Batch:
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        length = len(tokens[row])
        ids[place, :length] = tokens[row]
        mask[place, :length] = 1
    return Batch(ids, mask, rows)
