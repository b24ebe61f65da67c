"""agentmtl index verify, info and list: the state of an index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmtl.cli.output import INDEXES, JsonFlag, emit, index_folder, plural, say, settings_from, tell
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.retrieval.index import Index

Folder = Annotated[str, typer.Argument(help="The index's folder, or its name in ./indexes.", metavar="DIR")]


def open_index(folder: str | None, backend: str | None = None) -> Index:
    from agentmtl.retrieval.index import Index

    return Index.open(index_folder(folder), backend=settings_from(backend=backend).backend)


def verify(folder: Folder, as_json: JsonFlag = False) -> None:
    """Hash every byte of an index; a line a damaged file, and exit code 4.

    Examples:

      agentmtl index verify indexes/docs

      agentmtl index verify indexes/docs --json
    """
    from agentmtl.index.verify import verify as check

    report = check(index_folder(folder))
    if as_json:
        fields = ("generation", "files", "bytes", "damaged", "unknown")
        emit({"schema": SCHEMA_VERSION, "ok": report.ok, **{n: getattr(report, n) for n in fields}})
    else:
        for line in report.damaged:
            say(f"damaged  {line}")
        for name in report.unknown:
            say(f"unknown  {name} (no generation needs it)")
        if report.ok:
            size = f"{report.bytes / 1e6:.1f} MB"
            say(f"ok  {plural(report.files, 'file')}, {size}, generation {report.generation}")
    if not report.ok:
        tell("agentmtl: the index is damaged.\n  Restore these files, or build the index again.")
        raise typer.Exit(4)


def info(folder: Folder, as_json: JsonFlag = False) -> None:
    """What an index holds and what made it.

    Examples:

      agentmtl index info indexes/docs

      agentmtl index info indexes/docs --json
    """
    show_info(open_index(folder), as_json)


def list_(
    folder: Annotated[
        str | None, typer.Argument(help="An index; without it, all in ./indexes.", metavar="DIR")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """The documents of an index, or the indexes in ./indexes.

    Examples:

      agentmtl index list

      agentmtl index list indexes/docs --json
    """
    if folder is None:
        found = sorted(str(p.parent) for p in INDEXES.rglob("CURRENT"))
        if as_json:
            emit({"schema": SCHEMA_VERSION, "indexes": found})
        else:
            say("\n".join(found) if found else "No index in ./indexes yet.")
        return
    rows = [
        {"source": source, "title": title, "file": file}
        for _, (_, source, title, file) in open_index(folder).snapshot.live_rows(
            "SELECT row, source_id, title, file FROM documents"
        )
    ]
    if as_json:
        emit({"schema": SCHEMA_VERSION, "documents": rows})
        return
    for row in rows:
        say(f"{row['source']}\t{row['title']}")


def show_info(index: Index, as_json: bool) -> None:
    manifest = index.snapshot.manifest
    data: dict[str, Any] = {
        "folder": str(index.folder),
        "generation": manifest.generation,
        "created": manifest.created,
        "units": dict(manifest.live),
        "segments": len(manifest.segments),
        "bytes": folder_size(index.folder),
        "settings": manifest.settings.to_json(),
        "code_version": manifest.code_version,
        "streams": sorted(manifest.streams),
        "tasks": sorted(manifest.tasks),
        "examples": examples_read(index),
        "fitted": fitted_hash(index),
    }
    if as_json:
        emit({"schema": SCHEMA_VERSION, **data})
        return
    encoder = manifest.settings.encoder
    say(f"{index.folder}: generation {manifest.generation} of {manifest.created}")
    say("units     " + ", ".join(f"{n:,} {level}" for level, n in manifest.live.items()))
    say(f"encoder   {encoder.name} ({encoder.dimension} dimensions, {encoder.weights[:19]}…)")
    say(
        f"passages  at most {manifest.settings.chunking.max_words} words; factory {manifest.settings.factory}"
    )
    say(f"keys      {plural(len(manifest.streams), 'token stream')}")
    say(f"weights   {fitted_hash(index) or 'of this version'}")
    if manifest.tasks:
        say("tasks     " + ", ".join(sorted(manifest.tasks)))
        for line in reading(index):
            say(f"          {line}")
    say(f"on disk   {data['bytes'] / 1e6:.1f} MB in {plural(data['segments'], 'segment')}")


def examples_read(index: Index) -> dict[str, Any]:
    """For each task, where the encoder has a head: who reads its examples, and how well either does."""
    from agentmtl.index.instructions import EXAMPLES, HEAD

    if not index.settings.encoder.demonstrations:
        return {}
    unsaid = {"by": HEAD, "asked": 0}  # of indexes made before anybody was asked
    return {name: card.get(EXAMPLES, unsaid) for name, card in index.snapshot.manifest.tasks.items()}


def reading(index: Index) -> Iterator[str]:
    """The same in words, a line a task."""
    for name, told in examples_read(index).items():
        yield f"{name}: examples read by the {told['by']}{_shares(told)}"


def _shares(told: Mapping[str, Any]) -> str:
    if not told["asked"]:
        return ""
    return f" (predicted from the others: head {told['head']:.1%}, trunk {told['trunk']:.1%})"


def fitted_hash(index: Index) -> str | None:
    """Names the fitted values that an index keeps: 12 hex digits; None where it keeps none."""
    from agentmtl.index.manifest import canonical_json

    kept = index.snapshot.manifest.fitted
    return hashlib.sha256(canonical_json(kept)).hexdigest()[:12] if kept else None


def folder_size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
