"""agentmtl ask: a cited answer, or an honest refusal (exit 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.output import (
    BackendFlag,
    ExpertFlag,
    IndexFlag,
    JsonFlag,
    JudgeFlag,
    dim,
    emit,
    index_folder,
    say,
    settings_from,
    tell,
)

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.schema import Answer, Citation

ABSTAINED = 3


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    index: IndexFlag = None,
    hops: Annotated[
        int | None, typer.Option("--hops", help="Retrieval steps, at most.", min=1, max=4)
    ] = None,
    where: Annotated[str | None, typer.Option("--where", "-w", help="Filter over metadata.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Abstain below this confidence; -1 is the calibrated one."),
    ] = None,
    expert: ExpertFlag = "auto",
    judge: JudgeFlag = "none",
    backend: BackendFlag = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Leave this question out of `agentmtl log`.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Answer a question from an index, with citations; exit code 3 when the evidence does not suffice.

    Examples:

      agentmtl ask "Where was the clockmaker who built the H4 marine timekeeper born?" --index indexes/demo

      agentmtl ask "When was the bridge opened?" --index indexes/docs --where 'topic == "engineering"' --json
    """
    from agentmtl.agent.agent import Agent
    from agentmtl.retrieval.index import Index

    settings = settings_from(hops=hops, threshold=threshold, backend=backend, log=False if no_log else None)
    opened = Index.open(index_folder(index), backend=settings.backend)
    agent = Agent(
        opened,
        hops=settings.hops,
        threshold=settings.threshold,
        log=settings.log,
        expert=expert,
        judge=judge,
        backend=settings.backend,
    )
    answer = agent.ask(question, where=where)
    if as_json:
        emit(answer.to_json())
    else:
        show(answer, agent)
    if answer.abstained:
        raise typer.Exit(ABSTAINED)


def show(answer: Answer, agent: Agent) -> None:
    """The answer for people: text, then every citation with its place."""
    if answer.abstained:
        tell(
            f"No answer: the evidence does not suffice (confidence {answer.confidence:.2f}, "
            f"threshold {agent.threshold:.2f}). Nearest:"
        )
    else:
        say(answer.text)
        say()
    for citation in answer.citations:
        (tell if answer.abstained else say)(_line(citation))
    if not answer.abstained:
        say(dim(f"confidence {answer.confidence:.2f}  {answer.route}  {answer.usage.seconds:.2f} s"))


def _line(citation: Citation) -> str:
    text = " ".join(citation.text.split())
    place = f"[{citation.marker}] {citation.source} [{citation.start}:{citation.end}] “{text}”"
    if not citation.quote:
        return place
    step = f" (step {citation.hop})" if citation.hop > 1 else ""
    return f"{place} in “{' '.join(citation.quote.split())}”{step}"
