"""What a query says about metadata: sources and dates it names, as filters, and hits that cover them.

    A report of TechCrunch on May 3, 2023 …   →   source == "TechCrunch", date "2023-05-03"

A source counts where its name stands in the query in capitals or in quotes, the longest name first. The
dictionary is what the index itself holds, so nothing is learned and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentmtl.index.snapshot import Snapshot
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Hit

SOURCE_FIELDS = ("source", "publisher", "outlet")
DATE_FIELDS = ("published_at", "date", "published")
LEAST = 3  # chunks that must pass a facet's filter; else it is not applied
_BONUS = 1.0  # of a hit that a facet's filter admits, in standard deviations of the hits' scores
_MONTH_NAMES = """
january february march april may june july august september october november december
"""
_MONTHS = _MONTH_NAMES.split()
_DATE = re.compile(
    rf"\b(?:(?P<month>{'|'.join(_MONTHS)})\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<year>\d{{4}})"
    rf"|(?P<iso>\d{{4}}-\d{{2}}-\d{{2}}))\b",
    re.I,
)
_ALIAS_END = re.compile(r"\s*(?:\||:| - ).*")


@dataclass(frozen=True, slots=True)
class Facet:
    """A constraint: what it is about, its value, and the filter that admits it."""

    kind: str
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The sources of an index by every spelling, and which metadata fields hold source and date."""

    spellings: Mapping[str, str]
    source_field: str | None
    date_field: str | None


def dictionary_of(snapshot: Snapshot) -> Dictionary:
    """The sources and dates that the live documents name."""
    values: dict[str, set[str]] = {name: set() for name in (*SOURCE_FIELDS, *DATE_FIELDS)}
    for name in values:
        sql = f"SELECT row, json_extract(metadata, '$.{name}') FROM documents"  # a name of our own list
        for _, (_, value) in snapshot.live_rows(sql):
            if isinstance(value, str) and value:
                values[name].add(value)
    source = next((name for name in SOURCE_FIELDS if values[name]), None)
    date = next((name for name in DATE_FIELDS if values[name]), None)
    return Dictionary(spellings(values[source]) if source else {}, source, date)


def spellings(sources: Iterable[str]) -> dict[str, str]:
    """Every name a source goes by → the source: itself, and what stands before "|", " - " or ":"."""
    found: dict[str, str] = {}
    for source in sorted(sources):
        for spelling in dict.fromkeys((source, _ALIAS_END.sub("", source))):
            if len(spelling) > 1:
                found.setdefault(spelling, source)
    return found


def sources_in(query: str, known: Mapping[str, str]) -> list[str]:
    """The sources a query names, in the order of their names' length; a name inside a longer one is none."""
    taken: list[tuple[int, int]] = []
    found: list[str] = []
    for spelling in sorted(known, key=lambda s: (-len(s), s)):
        flags = 0 if any(c.isupper() for c in spelling) else re.I
        for match in re.finditer(rf"(?<!\w){re.escape(spelling)}(?!\w)", query, flags):
            quoted = query[max(0, match.start() - 1)] in "\"'‘“"
            free = not any(a < match.end() and match.start() < b for a, b in taken)
            if free and (quoted or any(c.isupper() for c in match[0])):
                taken.append(match.span())
                found.append(known[spelling])
    return list(dict.fromkeys(found))


def dates_in(query: str) -> list[str]:
    """The full dates a query names, as YYYY-MM-DD."""
    found = []
    for match in _DATE.finditer(query):
        if match["iso"]:
            found.append(match["iso"])
        else:
            month = _MONTHS.index(match["month"].lower()) + 1
            found.append(f"{match['year']}-{month:02d}-{int(match['day']):02d}")
    return list(dict.fromkeys(found))


def facets_of(query: str, known: Dictionary) -> list[Facet]:
    """The constraints of a query; sources first."""
    found = [
        Facet("source", source, f"{known.source_field} == {_quoted(source)}")
        for source in sources_in(query, known.spellings)
    ]
    if known.date_field:
        for date in dates_in(query):
            after = f"{date}~"  # sorts after every time of that day
            where = f"{known.date_field} >= {_quoted(date)} and {known.date_field} < {_quoted(after)}"
            found.append(Facet("date", date, where))
    return found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def any_of(facets: Sequence[Facet]) -> str | None:
    """A filter that admits what any source facet admits; dates are left to the ranking. None without one."""
    parts = [f"({facet.where})" for facet in facets if facet.kind == "source"]
    return " or ".join(parts) if parts else None


def retrieve_filtered(
    retriever: Retriever, query: str, facets: Sequence[Facet], k: int, hard: bool = True
) -> list[Hit]:
    """The k best passages under the facets: `hard` filters by them (unless fewer than `LEAST` pass), else
    what they admit is preferred."""
    where = any_of(facets)
    if where is None:
        return list(retriever.retrieve(query, k=k))
    admitted = list(retriever.retrieve(query, k=k, where=where))
    if hard and len(admitted) >= LEAST:
        return admitted
    every = list(retriever.retrieve(query, k=4 * k))
    if not every:
        return []
    mean = sum(h.score for h in every) / len(every)
    spread = (sum((h.score - mean) ** 2 for h in every) / len(every)) ** 0.5 or 1.0
    passing = {hit.id for hit in retriever.retrieve(query, k=4 * k, where=where)}
    raised = {h.id: h.score + (_BONUS * spread if h.id in passing else 0.0) for h in every}
    return sorted(every, key=lambda h: (-raised[h.id], h.id))[:k]


def select_covering(hits: Sequence[Hit], facets: Sequence[Facet], field: str, k: int) -> list[Hit]:
    """The first k hits such that every source facet has one before any has two; the rest in order."""
    values = [facet.value for facet in facets if facet.kind == "source"]
    queues = {v: [h for h in hits if h.unit.metadata.get(field) == v] for v in values}
    chosen: list[Hit] = []
    while len(chosen) < k and any(queues.values()):
        for value in values:
            if queues[value] and len(chosen) < k:
                chosen.append(queues[value].pop(0))
    seen = {hit.id for hit in chosen}
    return [*chosen, *(h for h in hits if h.id not in seen)][:k]
