"""Citations are checked against the stored text before anyone sees them."""

from __future__ import annotations

from collections.abc import Sequence

from agentmtl.index.snapshot import Snapshot
from agentmtl.schema import Candidate, Citation


def is_exact(snapshot: Snapshot, citation: Citation) -> bool:
    """Whether the unit exists and its document's stored text reads `citation.text` at [start, end), with the
    quote, where there is one, around it."""
    place = snapshot.locate([citation.unit_id]).get(citation.unit_id)
    if place is None or place[0] == "entity":
        return False
    level, (number, position) = place
    row = int(snapshot.segments[number].levels[level].docs[position])
    text = snapshot.document_text(number, row)
    span = text[citation.start : citation.end]
    quoted = not citation.quote or (span in citation.quote and citation.quote in text)
    return bool(citation.text) and span == citation.text and quoted


def exact_only(snapshot: Snapshot, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates all of whose citations are exact, and that have any."""
    return [c for c in candidates if c.citations and all(is_exact(snapshot, x) for x in c.citations)]
