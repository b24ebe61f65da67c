"""agentmtl search: what the retriever finds, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmtl.cli.output import (
    BackendFlag,
    IndexFlag,
    JsonFlag,
    JudgeFlag,
    ProposerFlag,
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
    from agentmtl.retrieval.hits import Hits
    from agentmtl.retrieval.index import Index
    from agentmtl.retrieval.retriever import Retriever
    from agentmtl.schema import Hit
    from agentmtl.trunk.encoder import Vectors

RERANKED = 20  # hits that --rerank reads again
SHOWN_KEYS = 5  # of a hit
SHOWN_CHARACTERS = 300  # of a hit's text, for people


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    index: IndexFlag = None,
    level: Annotated[
        str, typer.Option("--level", "-l", help="document, passage, sentence, entity or demonstration.")
    ] = "passage",
    k: Annotated[int | None, typer.Option("-k", help="How many hits.")] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", "-w", help="Filter over metadata, e.g. 'year >= 1969 and \"moon\" in tags'."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Only units whose metadata names this task.")
    ] = None,
    channel: Annotated[
        str, typer.Option("--channel", help="fused, dense, lexical or identifiers.")
    ] = "fused",
    hops: Annotated[
        int, typer.Option("--hops", help="Passages over so many steps, for a question.", min=1, max=4)
    ] = 1,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Read the first 20 hits again, each with the query.")
    ] = False,
    distilled: Annotated[
        bool, typer.Option("--distilled", help="Encode the query by the head that the reranker taught.")
    ] = False,
    proposer: ProposerFlag = None,
    judge: JudgeFlag = "none",
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

      agentmtl search "Where was the builder of the H4 born?" --index indexes/demo --hops 2 --explain
    """
    settings = settings_from(k=k, backend=backend)
    opened = _open(index, level, channel, settings.backend)
    trace: tuple[Mapping[str, Any], ...] = ()
    if distilled and (hops > 1 or channel in ("lexical", "identifiers")):
        raise UsageError(
            "A distilled query serves dense and fused search.", "Leave --hops and --channel out."
        )
    if proposer and (hops > 1 or distilled or channel in ("dense", "lexical")):
        raise UsageError(
            "A proposer serves the channel of identifiers and the fused one.",
            "Leave --hops and --distilled out.",
        )
    depth = max(settings.k, RERANKED) if rerank else settings.k
    if hops > 1 and level == "passage":
        found, trace = _by_hops(opened, query, hops, depth, task_where(where, task), judge, settings.backend)
    elif proposer:
        mine = level == "demonstration" and task
        vector = opened.retriever.encode_inputs([query], task or "")[0] if mine else None
        found = _proposed(opened, proposer, level, channel).retrieve(
            query, level=level, k=depth, where=task_where(where, task), channel=channel,  # type: ignore[arg-type]
            vector=vector,
        )  # fmt: skip
    else:
        vector = _distilled(opened, query, settings.backend) if distilled else None
        found = opened.retrieve(query, task, level, depth, where, channel, hops, vector)  # type: ignore[arg-type]
    if rerank:
        from agentmtl.retrieval.rerank import load_reranker

        found = load_reranker(backend=settings.backend).rerank(query, found)
    hits = list(found[: settings.k])
    if as_json:
        data = {"schema": SCHEMA_VERSION, "query": query, "hits": [hit.to_json() for hit in hits]}
        emit({**data, "trace": [dict(step) for step in trace]} if trace else data)
        return
    if explain:
        _show_trace(trace)
    for rank, hit in enumerate(hits, 1):
        _show(rank, hit, explain)
    if not hits:
        tell("No hits." + (" The filter may admit nothing." if where else ""))


def _by_hops(
    opened: Index, query: str, hops: int, k: int, where: str | None, judge: str, backend: str
) -> tuple[Hits, tuple[Mapping[str, Any], ...]]:
    from agentmtl.experts.default import embedded_judge

    used = embedded_judge(judge, opened.settings.encoder, backend)
    result = opened.search_hops(query, hops=hops, k=k, where=where, judge=used)
    return result.hits, result.trace


def _distilled(opened: Index, query: str, backend: str) -> Vectors:
    from agentmtl.retrieval.query_tower import load_query_tower

    rows = load_query_tower(opened.settings.encoder, backend=backend).encode([query])
    vector: Vectors = rows[0]
    return vector


def _proposed(opened: Index, proposer: str, level: str, channel: str) -> Retriever:
    """A retriever whose identifiers a trained decoder proposes. Raises UsageError where nothing would come
    of it."""
    from agentmtl.retrieval.fusion import PROPOSED, Fusion
    from agentmtl.retrieval.identifiers.channel import Identifiers
    from agentmtl.retrieval.identifiers.trained import trained_keys
    from agentmtl.retrieval.retriever import Retriever

    keys = trained_keys(proposer)
    if channel == "fused" and not Fusion.of(opened.snapshot).weight(PROPOSED, level):  # type: ignore[arg-type]
        raise UsageError(
            f"In the fused search for {level} units a proposer has no say.",
            "Add --channel identifiers" + ("." if level == "sentence" else ", or --level sentence."),
        )
    return Retriever(opened.snapshot, opened.encoder, None, Identifiers((keys,), stream=keys.stream))


def _open(index: str | None, level: str, channel: str, backend: str) -> Index:
    from agentmtl.retrieval.index import Index
    from agentmtl.retrieval.retriever import CHANNELS

    if level not in LEVELS:
        raise UsageError(f"{level!r} is not a level.", f"Choose one of {', '.join(LEVELS)}.")
    if channel not in CHANNELS:
        raise UsageError(f"{channel!r} is not a channel.", f"Choose one of {', '.join(CHANNELS)}.")
    return Index.open(index_folder(index), backend=backend)


def task_where(where: str | None, task: str | None) -> str | None:
    """A filter narrowed to a task."""
    from agentmtl.retrieval.retriever import task_filter

    return task_filter(where, task)


def _show_trace(trace: Sequence[Mapping[str, Any]]) -> None:
    """What each hop asked, why, and what it found."""
    for step in trace:
        if step["step"] == "route":
            facets = f": {', '.join(step['facets'])}" if step["facets"] else ""
            say(dim(f"route {step['route']}{facets}"))
            continue
        proposed = ", ".join(f"{n} by {name}" for name, n in step["proposed"].items())
        say(dim(f"hop {step['hop']}: {proposed} steps proposed"))
        for chain in step["found"]:
            via = f" via {chain['via']}" if chain["via"] else ""
            path = " → ".join([*chain["from"], chain["passage"]])
            say(dim(f"    {chain['score']:+.2f}  {path} ({chain['by']}{via})"))


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
        hop = f"hop {hit.hop}  " if hit.hop > 1 else ""
        words = ", ".join(hit.keys) or "—"
        say(dim(f"    {hop}{scores}  words: {words}  id {unit.id} [{unit.start}:{unit.end}]"))
        for key in hit.identifiers[:SHOWN_KEYS]:
            place = "title" if key.in_title else f"[{key.start}:{key.end}]"
            say(dim(f"    key {key.text!r}  {key.count} in the index  weight {key.weight:.1f}  at {place}"))
