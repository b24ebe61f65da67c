"""What the names and settings a user gives an index mean, checked before anything is written."""

from __future__ import annotations

from agentmtl.errors import UsageError
from agentmtl.index.manifest import IndexSettings
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.store import Store


def keys_of(snapshot: Snapshot, id_: str) -> list[str]:
    """The keys of the documents that `id_` names: a key, a source id, a file or a document unit's id."""
    for column in ("key", "source_id", "file"):
        if found := snapshot.documents(column, id_):
            return [key for _, _, key in found]
    place = snapshot.locate([id_]).get(id_)
    if place is None:
        raise UsageError(f"No document is called {id_!r}.", "See what there is: agentmtl index list DIR")
    level, (number, position) = place
    if level != "document":
        raise UsageError(f"{id_} is a {level}.", "Delete the document it belongs to, by its source id.")
    row = int(snapshot.segments[number].levels[level].docs[position])
    return [snapshot.document_key(number, row)]


def refuse_other_settings(store: Store, wanted: IndexSettings) -> None:
    """An index keeps the settings it was made with; other ones would be ignored in silence."""
    there = store.open_or_none()
    if there is None:
        return
    for name in ("chunking", "levels", "factory"):
        mine, given = getattr(there.settings, name), getattr(wanted, name)
        if mine != given:
            raise UsageError(
                f"The index in {store.folder} was built with {name} {mine}, not {given}.",
                "Leave that option out, or build into another folder.",
            )
