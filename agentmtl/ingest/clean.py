"""The text that is stored, and to which every span refers, is what these functions return.

Characters are otherwise left as the source has them: no Unicode normalisation form is applied, so a cited
span can be found in the source by an exact search. Matching folds case and forms where it needs to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from agentmtl.ingest.limits import Limits
from agentmtl.schema import MetadataValue, Scalar

_NEWLINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls mean nothing in text, and ESC or CSI would command the terminal that shows a citation.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_WORD_BREAKS = re.compile(r"\s+")
_INT64 = 2**63


def clean_text(text: str) -> str:
    """`text` without control characters (tab and newline stay), with one kind of newline, trimmed.

    Lone surrogates, which no file can hold, become U+FFFD; a byte order mark at the start is dropped.
    Applying it twice changes nothing.
    """
    text = _CONTROLS.sub("", _NEWLINES.sub("\n", text))
    if not text.isascii():
        text = _SURROGATES.sub("\ufffd", text)
    return _trim(text)


def _trim(text: str) -> str:
    while (trimmed := text.strip().lstrip("\ufeff")) != text:
        text = trimmed
    return text


def clean_line(text: str) -> str:
    """`text` cleaned and on one line, for titles and identifiers."""
    return _WORD_BREAKS.sub(" ", clean_text(text))


def clean_metadata(fields: Mapping[str, Any], limits: Limits) -> dict[str, MetadataValue]:
    """Values an index can store and filter on, from decoded JSON.

    Strings, numbers, booleans, null and flat lists of them stay. A nested value becomes its JSON text.
    An integer beyond 64 bits becomes its digits. Left out: NaN and infinities, which no JSON can carry,
    and a value of more than `limits.metadata_chars` characters.
    """
    kept: dict[str, MetadataValue] = {}
    for name, value in fields.items():
        key = clean_line(name)
        if key and _fits(stored := _value(value), limits):
            kept[key] = stored
    return kept


def _fits(value: MetadataValue, limits: Limits) -> bool:
    if isinstance(value, str):
        return len(value) <= limits.metadata_chars
    if isinstance(value, list):
        finite = all(_fits(item, limits) for item in value)
        return finite and sum(len(str(item)) for item in value) <= limits.metadata_chars
    return not (isinstance(value, float) and not math.isfinite(value))


def _value(value: Any) -> MetadataValue:
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return [_scalar(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, (list, dict)):
        return clean_text(_json_text(value))
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return clean_text(str(value))


def _json_text(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
