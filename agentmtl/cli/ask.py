"""agentmtl ask: a cited answer, or an honest refusal (exit 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.answering import (
    AggregatorFlag,
    AllocationFlag,
    Answering,
    AnsweringFlag,
    BudgetFlag,
    DemonstrationsFlag,
    LlmFlag,
    MaxTokensFlag,
    RewardFlag,
    RouterFlag,
    SamplesFlag,
    TaskFlag,
    UpdaterFlag,
    agent_of,
)
from agentmtl.cli.output import (
    BackendFlag,
    IndexFlag,
    JsonFlag,
    JudgeFlag,
    dim,
    emit,
    index_folder,
    plural,
    say,
    settings_from,
    tell,
)
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION, Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentmtl.agent.agent import Agent
    from agentmtl.agent.conversation import Session
    from agentmtl.agent.streaming import Event
    from agentmtl.schema import Citation, Usage

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
    expert: AnsweringFlag = "auto",
    judge: JudgeFlag = "none",
    llm: LlmFlag = None,
    samples: SamplesFlag = 1,
    aggregator: AggregatorFlag = "majority",
    updater: UpdaterFlag = "auto",
    max_tokens: MaxTokensFlag = 256,
    budget: BudgetFlag = None,
    task: TaskFlag = "",
    demonstrations: DemonstrationsFlag = 4,
    reward: RewardFlag = None,
    router: RouterFlag = None,
    allocation: AllocationFlag = None,
    session: Annotated[
        str, typer.Option("--session", help="The conversation it belongs to; kept in the log.")
    ] = "",
    run: Annotated[
        str, typer.Option("--run", help="Keep every step on disk under this name, and go on where it was.")
    ] = "",
    stream: Annotated[
        bool, typer.Option("--stream", help="Show steps and words as they come; with --json, a line each.")
    ] = False,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print what the chat model would be sent, and stop.")
    ] = False,
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

      agentmtl ask "When was the bridge opened?" --index indexes/docs --llm vllm:MODEL --show-prompt
    """
    from agentmtl.retrieval.index import Index

    settings = settings_from(hops=hops, threshold=threshold, backend=backend, log=False if no_log else None)
    opened = Index.open(index_folder(index), backend=settings.backend)
    given = Answering(
        expert,
        judge,
        llm,
        samples,
        aggregator,
        updater,
        max_tokens,
        budget,
        task,
        demonstrations,
        reward,
        router,
        allocation,
    )
    agent = agent_of(opened, settings, given)
    if show_prompt:
        _show_prompt(agent.messages(question, where=where), as_json)
        return
    talk = agent.session(session) if session else None
    if stream and run:
        raise UsageError("A run that is kept is not streamed.", "Leave out --stream or --run.")
    if stream:
        answer = _watched(agent.stream(question, where=where, session=talk), as_json)
    else:
        answer = agent.ask(question, where=where, session=talk, run=run)
    if as_json:
        emit(answer.to_json())
    else:
        show(answer, agent, talk)
    if answer.abstained:
        raise typer.Exit(ABSTAINED)


def _watched(events: Iterator[Event], as_json: bool) -> Answer:
    """The answer at the end of the events, each shown as it comes: for people on stderr."""
    writing = False
    for event in events:
        if isinstance(event, Answer):
            return event
        if as_json:
            emit({"schema": SCHEMA_VERSION, **event})
        elif event["step"] == "token":
            typer.echo(event["text"], nl=False, err=True)
            writing = True
        else:
            tell(("\n" if writing else "") + _told(event))
            writing = False
    raise AssertionError("the last event is the answer")


def _told(step: Event) -> str:
    """A step in a line: its name and what of it is short."""
    assert not isinstance(step, Answer)
    short = {name: value for name, value in step.items() if name != "step"}
    parts = []
    for name, value in short.items():
        if isinstance(value, list):
            value = len(value) if name in ("passages", "examples") else ", ".join(map(str, value))
        if isinstance(value, float):
            value = f"{value:.2f}"
        if value not in ("", {}, None):
            parts.append(f"{name} {value}")
    return dim(f"{step['step']}: " + "; ".join(parts))


def _show_prompt(messages: list[tuple[str, str]], as_json: bool) -> None:
    if as_json:
        told = [{"role": role, "text": text} for role, text in messages]
        emit({"schema": SCHEMA_VERSION, "messages": told})
        return
    for role, text in messages:
        say(dim(f"--- {role}"))
        say(text)
    if not messages:
        tell("The embedded experts are sent no prompt; give --llm.")


def show(answer: Answer, agent: Agent, session: Session | None = None) -> None:
    """The answer for people: text, then every citation with its place; what was looked up, where that is not
    what was asked."""
    alone = next((s["question"] for s in answer.trace if s["step"] == "rewrite"), answer.question)
    if session is not None and alone != answer.question:
        tell(dim(f"looked up: {alone}"))
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
        say(dim(f"confidence {answer.confidence:.2f}  {answer.route}  {_cost(answer.usage)}"))


def _cost(spent: Usage) -> str:
    seconds = f"{spent.seconds:.2f} s"
    if not spent.calls:
        return seconds
    return f"{seconds}  {plural(spent.calls, 'call')}  {spent.prompt_tokens}+{spent.output_tokens} tokens"


def _line(citation: Citation) -> str:
    text = " ".join(citation.text.split())
    place = f"[{citation.marker}] {citation.source} [{citation.start}:{citation.end}] “{text}”"
    if not citation.quote:
        return place
    step = f" (step {citation.hop})" if citation.hop > 1 else ""
    return f"{place} in “{' '.join(citation.quote.split())}”{step}"
