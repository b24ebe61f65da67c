"""The corpus's constraint as a logits processor of vLLM, for both of its model runners.

    AGENTMTL_IDENTIFIERS_INDEX=indexes/docs vllm serve MODEL \\
        --logits-processors agentmtl.integrations.vllm_identifiers:IdentifierLogitsProcessor

A request asks for it with `vllm_xargs={"identifiers": true}` (over HTTP) or `extra_args` (in process), with
"longest" (tokens) and "titles" (true: keys that begin as a title does). The index is the server's own and
never named by a request. It needs the model's token stream: `agentmtl index stream DIR --tokenizer MODEL`.

vLLM has two interfaces: of the V1 runner (rows of a batch that moves, `vllm.v1.sample.logits_processor`) and
of the V2 runner (slots, `vllm.v1.worker.gpu.sample.logits_processor`). Which one runs is decided late, from
the environment, Triton and the model's features, and each runner refuses a class of the other's at start-up.
So the class above is of both, and making one gives that of the runner which makes it. It is passed by name
and never registered as a plug-in: those are loaded at every start of every engine.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.index.identifiers import Ngrams, load_tokenizer, ngrams_of
from agentmtl.index.store import Store
from agentmtl.retrieval.identifiers.constraint import CorpusConstraint

INDEX_VARIABLE = "AGENTMTL_IDENTIFIERS_INDEX"
ARGUMENTS = frozenset({"identifiers", "longest", "titles"})
LONGEST, MAX_LONGEST = 10, 64
_FORBIDDEN = float("-inf")
_EXCLUDED = ("structured_outputs", "allowed_token_ids", "bad_words", "logit_bias", "min_tokens")
_log = logging.getLogger(__name__)


def _interface(module: str) -> Any:
    """The base class of one of vLLM's interfaces; an empty class where vLLM does not have it."""
    try:
        return importlib.import_module(module).LogitsProcessor
    except (ImportError, AttributeError):
        return type("Absent", (), {})


_V1: Any = _interface("vllm.v1.sample.logits_processor")
_V2: Any = _interface("vllm.v1.worker.gpu.sample.logits_processor")


# --- what both share ----------------------------------------------------------------------------------------


def asked(params: Any) -> dict[str, Any] | None:
    """What a request asks of us: {"longest", "titles"}; None where it asks for nothing.

    Raises ValueError, as vLLM expects, for arguments of the wrong kind and for other constraints on the
    output, with which nothing might be left to generate. vLLM calls this before a request is queued.
    """
    given: Mapping[str, Any] = getattr(params, "extra_args", None) or {}
    if not ARGUMENTS & set(given):
        return None
    wanted = _flag(given, "identifiers")
    titles = _flag(given, "titles")
    longest = given.get("longest", LONGEST)
    if isinstance(longest, bool) or not isinstance(longest, int) or not 1 <= longest <= MAX_LONGEST:
        raise ValueError(f"longest must be 1 to {MAX_LONGEST}, not {longest!r}")
    if not wanted:
        raise ValueError('longest and titles go with "identifiers": true')
    for name in _EXCLUDED:
        if getattr(params, name, None):
            raise ValueError(f"identifiers do not go with {name}: nothing might be left to generate")
    return {"longest": longest, "titles": titles}


def _flag(given: Mapping[str, Any], name: str) -> bool:
    """A boolean, which vLLM's HTTP interface hands over as 1 or 0."""
    value = given.get(name, False)
    if value not in (True, False):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return bool(value)


class _Corpus:
    """The server's index and the model's end token, from which requests' constraints are made."""

    def __init__(self, vllm_config: Any) -> None:
        """Raises UsageError where no index is named or it lacks the model's token stream."""
        model = vllm_config.model_config
        self._stop = _end_token(getattr(model, "hf_text_config", None) or model.hf_config)
        self._ngrams = served_ngrams(str(getattr(model, "tokenizer", None) or model.model))

    def constraint(self, params: Any) -> CorpusConstraint | None:
        """That of a request; None for one that asks for none."""
        wanted = asked(params)
        if wanted is None:
            return None
        own = getattr(params, "eos_token_id", None)  # of the tokeniser; None with ignore_eos
        stop = self._stop if own is None else int(own)
        return CorpusConstraint(self._ngrams, stop, wanted["longest"], wanted["titles"])


def _end_token(config: Any) -> int:
    """The first, where a model has several. Raises UsageError where it has none."""
    found = config.eos_token_id
    if found is None:
        raise UsageError("The model has no end token.", "Set eos_token_id in its config.json.")
    return int(found[0] if isinstance(found, Sequence) else found)


def constrain(constraint: CorpusConstraint, key: Sequence[int], logits: Any) -> None:
    """Forbid in `logits` (vocabulary,), in place, every token that does not go on as the corpus does.

    Something always stays allowed, and a failure ends this one key: an engine that dies takes every request
    with it.
    """
    stop = constraint.stop
    try:
        allowed = [stop] if stop in key else constraint.allowed(key)
    except Exception:  # noqa: BLE001 - see above; it is logged with its trace
        _log.exception("The corpus cannot be read: a key ends early.")
        allowed = [stop]
    allowed = [token for token in allowed if 0 <= token < logits.shape[-1]]
    kept = logits[allowed].clone()
    logits.fill_(_FORBIDDEN)
    logits[allowed] = kept
    if not bool((kept > _FORBIDDEN).any()):
        logits[stop] = 0.0


def served_ngrams(model: str) -> Ngrams:
    """The n-grams of the server's index by its model's tokeniser. Raises UsageError without an index."""
    folder = os.environ.get(INDEX_VARIABLE)
    if not folder:
        raise UsageError("Which index holds the identifiers?", f"Set {INDEX_VARIABLE}=DIR.")
    return ngrams_of(Store(Path(folder)).open(), load_tokenizer(_tokenizer_of(model)).identity)


def _tokenizer_of(model: str) -> str:
    """The folder, or the file in Hugging Face's cache, where vLLM has it from."""
    if Path(model).exists():
        return model
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "tokenizer.json")
    return found if isinstance(found, str) else model


# --- the two interfaces -------------------------------------------------------------------------------------


class RowIdentifiers(_V1):  # type: ignore[misc]
    """For the V1 runner: constrains the rows of those requests that ask for it."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self._corpus = _Corpus(vllm_config)
        self._rows: dict[int, tuple[CorpusConstraint, Sequence[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose arguments are wrong. Raises ValueError."""
        asked(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """False: the likeliest token may be one that the corpus does not have there."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Take requests out, in, and to other rows, in the order that vLLM prescribes."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _prompt, output in batch_update.added:
            self._rows.pop(row, None)
            constraint = self._corpus.constraint(params)
            if constraint is not None:
                self._rows[row] = constraint, output
        for source, target, direction in batch_update.moved:
            moved = self._rows.pop(source, None)
            other = self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if other is not None and getattr(direction, "name", "") == "SWAP":
                self._rows[source] = other

    def apply(self, logits: Any) -> Any:
        """`logits` (rows, vocabulary), changed in place."""
        for row, (constraint, output) in self._rows.items():
            constrain(constraint, [int(token) for token in output], logits[row])
        return logits


class SlotIdentifiers(_V2):  # type: ignore[misc]
    """For the V2 runner: constrains the rows that belong to the slots of those requests that ask for it."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        self._corpus = _Corpus(vllm_config)
        self._states = req_states
        self._slots: dict[int, CorpusConstraint] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose arguments are wrong. Raises ValueError."""
        asked(sampling_params)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take over a slot; whether its logits will be changed."""
        self._slots.pop(req_idx, None)
        constraint = self._corpus.constraint(sampling_params)
        if constraint is not None:
            self._slots[req_idx] = constraint
        return constraint is not None

    def apply_staged_writes(self) -> None:
        """Nothing is staged: constraints stay on the host."""

    def apply(self, logits: Any, ctx: Any) -> Any:
        """`logits` (rows, vocabulary), changed in place."""
        if not any(int(slot) in self._slots for slot in ctx.idx_mapping_np):
            return logits
        slots = ctx.expanded_idx_mapping.tolist()
        places = ctx.expanded_local_pos.tolist()
        for row, (slot, place) in enumerate(zip(slots, places, strict=True)):
            if slot in self._slots:
                key = self._committed(slot) + ctx.input_ids[row - place + 1 : row + 1].tolist()
                constrain(self._slots[slot], key, logits[row])
        return logits

    def _committed(self, slot: int) -> list[int]:
        """The tokens generated so far. Where drafts are checked, a row's own drafts follow: at its request's
        place 0 the input is the last of these, from place 1 on the drafts."""
        states = self._states
        first, end = int(states.prompt_len.np[slot]), int(states.total_len.gpu[slot])
        found: list[int] = states.all_token_ids.gpu[slot, first:end].tolist()
        return found


class IdentifierLogitsProcessor(_V1, _V2):  # type: ignore[misc]
    """Of both interfaces, so that neither runner refuses it; making one gives that of the runner."""

    def __new__(cls, vllm_config: Any, *given: Any) -> Any:
        """The V1 runner gives (vllm_config, device, is_pin_memory), the V2 one (vllm_config, req_states)."""
        made: Any = RowIdentifiers if len(given) == 2 else SlotIdentifiers
        return made(vllm_config, *given)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose arguments are wrong. Raises ValueError."""
        asked(sampling_params)
