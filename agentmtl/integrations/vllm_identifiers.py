"""The corpus's constraint as a logits processor of vLLM.

    AGENTMTL_IDENTIFIERS_INDEX=indexes/docs vllm serve MODEL \\
        --logits-processors agentmtl.integrations.vllm_identifiers:IdentifierLogitsProcessor

A request asks for it with `extra_args={"identifiers": true}` (and "longest" tokens, "titles": true); the
index is the server's own and never named by a request. It needs the model's token stream: `agentmtl index
stream DIR --tokenizer MODEL`. Written against vLLM's v1 interface (`update_state`, `apply`); this module is
tested against objects of that form, and has not met a server yet.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.index.identifiers import Ngrams, load_tokenizer, ngrams_of
from agentmtl.index.store import Store
from agentmtl.retrieval.identifiers.constraint import CorpusConstraint

INDEX_VARIABLE = "AGENTMTL_IDENTIFIERS_INDEX"
MAX_LONGEST = 64
_FORBIDDEN = float("-inf")


class RequestConstraint:
    """One request's processor, as vLLM's per-request interface calls it: (output ids, logits) → logits."""

    def __init__(self, constraint: CorpusConstraint) -> None:
        self._constraint = constraint

    def __call__(self, output_ids: Sequence[int], logits: Any) -> Any:
        """`logits` (vocabulary,) with every token forbidden that does not go on as the corpus does."""
        key = [int(i) for i in output_ids]
        stop = self._constraint.stop
        allowed = [stop] if stop in key else self._constraint.allowed(key)
        kept = logits[allowed].clone()
        logits.fill_(_FORBIDDEN)
        logits[allowed] = kept
        return logits


class IdentifierLogitsProcessor:
    """The batch interface of vLLM v1: constrains the rows of those requests that ask for it."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        model = vllm_config.model_config
        self._stop = int(model.hf_config.eos_token_id)
        self._ngrams = served_ngrams(str(getattr(model, "tokenizer", None) or model.model))
        self._rows: dict[int, tuple[RequestConstraint, Sequence[int]]] = {}

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Refuse a request whose arguments are of the wrong kind, before it is queued."""
        arguments = getattr(params, "extra_args", None) or {}
        longest = arguments.get("longest", 10)
        if not isinstance(longest, int) or not 1 <= longest <= MAX_LONGEST:
            raise ValueError(f"longest must be 1 to {MAX_LONGEST}, not {longest!r}")

    def is_argmax_invariant(self) -> bool:
        """False: the likeliest token may be one that the corpus does not have there."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Take requests in, out, and to other rows, in the order vLLM prescribes: removed, added, moved."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _prompt, output in batch_update.added:
            self._rows.pop(row, None)
            arguments = getattr(params, "extra_args", None) or {}
            if arguments.get("identifiers") is True:
                self._rows[row] = self._constraint(arguments), output
        for source, target, direction in batch_update.moved:
            moved = self._rows.pop(source, None)
            other = self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if other is not None and getattr(direction, "name", str(direction)).upper() == "SWAP":
                self._rows[source] = other

    def _constraint(self, arguments: dict[str, Any]) -> RequestConstraint:
        longest, titles = int(arguments.get("longest", 10)), arguments.get("titles") is True
        return RequestConstraint(CorpusConstraint(self._ngrams, self._stop, longest, titles))

    def apply(self, logits: Any) -> Any:
        """`logits` (rows, vocabulary), changed in place."""
        for row, (constraint, output) in self._rows.items():
            constraint(output, logits[row])
        return logits


def served_ngrams(model: str) -> Ngrams:
    """The n-grams of the server's index by its model's tokeniser. Raises UsageError without an index."""
    folder = os.environ.get(INDEX_VARIABLE)
    if not folder:
        raise UsageError("Which index holds the identifiers?", f"Set {INDEX_VARIABLE}=DIR.")
    return ngrams_of(Store(Path(folder)).open(), load_tokenizer(model).identity)
