"""agentmtl search: what the retriever finds, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.output import (
    BackendFlag,
    IndexFlag,
    JsonFlag,
    bold,
    dim,
    emit,
    index_folder,
    say,
    settings_from,
    tell,
)
from agentmtl.errors import UsageError
from agentmtl.schema import LEVELS, SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.schema import Hit

SHOWN_CHARACTERS = 300  # of a hit's text, for people


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    index: IndexFlag = None,
    level: Annotated[
        str, typer.Option("--level", "-l", help="document, passage, sentence or entity.")
    ] = "passage",
    k: Annotated[int | None, typer.Option("-k", help="How many hits.")] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", "-w", help="Filter over metadata, e.g. 'year >= 1969 and \"moon\" in tags'."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Only units whose metadata names this task.")
    ] = None,
    channel: Annotated[str, typer.Option("--channel", help="fused, dense or lexical.")] = "fused",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each channel's score and the matched words.")
    ] = False,
    backend: BackendFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Search an index.

    Examples:

      agentmtl search "first computer program" --index indexes/docs --explain

      agentmtl search "bridges" --index indexes/docs --level sentence --where 'topic == "engineering"' --json
    """
    settings = settings_from(k=k, backend=backend)
    hits = _hits(query, index, level, settings.k, where, task, channel, settings.backend)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "query": query, "hits": [hit.to_json() for hit in hits]})
        return
    for rank, hit in enumerate(hits, 1):
        _show(rank, hit, explain)
    if not hits:
        tell("No hits." + (" The filter may admit nothing." if where else ""))


def _hits(
    query: str,
    index: str | None,
    level: str,
    k: int,
    where: str | None,
    task: str | None,
    channel: str,
    backend: str,
) -> list[Hit]:
    from agentmtl.retrieval.index import Index
    from agentmtl.retrieval.retriever import CHANNELS

    if level not in LEVELS:
        raise UsageError(f"{level!r} is not a level.", f"Choose one of {', '.join(LEVELS)}.")
    if channel not in CHANNELS:
        raise UsageError(f"{channel!r} is not a channel.", f"Choose one of {', '.join(CHANNELS)}.")
    opened = Index.open(index_folder(index), backend=backend)
    return list(opened.retrieve(query, task, level, k, where, channel))


def _show(rank: int, hit: Hit, explain: bool) -> None:
    unit = hit.unit
    text = " ".join(unit.text.split())
    text = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    say(f"{rank:>2}. {bold(unit.title or unit.text[:60])}  {dim(f'{hit.score:.3f}  {unit.source_id}')}")
    if unit.level == "entity":
        say(f"    mentioned in {len(unit.mentions)} passages")
    else:
        say(f"    {text}")
    if explain:
        scores = "  ".join(f"{name} {score:.4f}" for name, score in hit.channels.items())
        say(dim(f"    {scores}  words: {', '.join(hit.keys) or '—'}  id {unit.id} [{unit.start}:{unit.end}]"))
