"""agentmtl demo: a cited answer over the bundled sample corpus, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.ask import show
from agentmtl.cli.output import INDEXES, BackendFlag, JsonFlag, emit, say, settings_from, tell, watching


def demo(
    question: Annotated[
        str | None, typer.Argument(help="A question of your own about the sample corpus.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the index goes.")] = INDEXES / "demo",
    backend: BackendFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Index the bundled sample corpus and answer a question that needs two of its documents.

    Examples:

      agentmtl demo

      agentmtl demo "Who built the H4 marine timekeeper?" --json
    """
    from agentmtl.agent.agent import Agent
    from agentmtl.retrieval.index import Index
    from agentmtl.sample import DEMO_QUESTION, corpus_path

    settings = settings_from(backend=backend)
    asked = question or DEMO_QUESTION
    with watching("building", quiet=as_json) as watch:
        index, report = Index.build(out, [str(corpus_path())], backend=settings.backend, progress=watch)
    count = index.snapshot.count("document")
    tell(f"{count} documents indexed in {out} ({report.added} new, {report.unchanged} unchanged).")
    agent = Agent(
        index, hops=settings.hops, threshold=settings.threshold, log=settings.log, backend=settings.backend
    )
    answer = agent.ask(asked)
    if as_json:
        emit(answer.to_json())
    else:
        say(f"Q: {asked}")
        show(answer, agent)
        tell(f'\nNext: agentmtl ask "…" --index {out}')
    if answer.abstained:
        raise typer.Exit(3)
