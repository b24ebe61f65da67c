"""Units and LangChain's documents, both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.documents import Document as LangChainDocument

from agentmtl.errors import UsageError
from agentmtl.schema import DEMONSTRATION_MARK, Document, Hit, Metadata, MetadataValue, Unit

SCORE, SOURCE, SPAN = "_score", "_source", "_span"  # of a hit, in a document's metadata
_NESTED = "_json"  # metadata that an index cannot hold as it is


def document_of(hit: Hit) -> LangChainDocument:
    """A hit with its unit's id: text, and as metadata what the index holds, the score, the record it is of
    and its [start, end) there."""
    unit = hit.unit
    metadata = metadata_of(unit) | {SCORE: hit.score, SOURCE: unit.source_id, SPAN: [unit.start, unit.end]}
    if unit.title:
        metadata.setdefault("title", unit.title)
    return LangChainDocument(id=unit.id, page_content=unit.text, metadata=metadata)


def record_of(hit: Hit) -> LangChainDocument:
    """The record that was stored, under the id it was given, and nothing more."""
    return LangChainDocument(
        id=hit.unit.source_id, page_content=hit.unit.text, metadata=metadata_of(hit.unit)
    )


def metadata_of(unit: Unit) -> dict[str, Any]:
    """What the user gave, nested values included."""
    metadata = {name: value for name, value in unit.metadata.items() if name != DEMONSTRATION_MARK}
    nested = metadata.pop(_NESTED, None)
    return metadata | (json.loads(nested) if isinstance(nested, str) else {})


def stored(text: str, metadata: Mapping[str, Any], id_: str | None) -> Document:
    """A record to index. Raises UsageError for metadata that is no JSON."""
    flat, nested = dict[str, MetadataValue](), dict[str, Any]()
    for name, value in metadata.items():
        (flat if _is_flat(value) else nested)[name] = value
    try:
        held: Metadata = flat | ({_NESTED: json.dumps(nested)} if nested else {})
    except TypeError as error:
        raise UsageError(
            f"Metadata of a document cannot be stored: {error}.", "Give text, numbers, booleans and lists."
        ) from error
    source = str(id_ if id_ is not None else uuid4())
    return Document(source, text, title=str(metadata.get("title") or ""), metadata=held, origin=source)


def _is_flat(value: Any) -> bool:
    scalar = str | int | float | bool | None
    return isinstance(value, scalar) or (
        isinstance(value, Sequence) and all(isinstance(one, scalar) for one in value)
    )
