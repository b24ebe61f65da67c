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
    plural,
    say,
    settings_from,
    tell,
)
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.experts.expert import Expert
    from agentmtl.schema import Answer, Citation, Usage

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
    llm: Annotated[
        str | None,
        typer.Option("--llm", help="A chat model: vllm:MODEL@URL, or PROVIDER:MODEL.", metavar="NAME"),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Of the chat model, at most.", min=1)] = 1,
    aggregator: Annotated[
        str, typer.Option("--aggregator", help="Of samples: majority, weighted or best-of-n.")
    ] = "majority",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Of one sample.", min=1)] = 256,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="What it may cost: calls=20,tokens=4000,usd=.02,seconds=3"),
    ] = None,
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
    from agentmtl.agent.agent import Agent
    from agentmtl.retrieval.index import Index
    from agentmtl.schema import Share
    from agentmtl.spending import parse_budget

    settings = settings_from(hops=hops, threshold=threshold, backend=backend, log=False if no_log else None)
    opened = Index.open(index_folder(index), backend=settings.backend)
    agent = Agent(
        opened,
        hops=settings.hops,
        threshold=settings.threshold,
        log=settings.log,
        expert=expert if llm is None else _chat_expert(llm, max_tokens, settings.prompts),
        judge=judge,
        share=Share(samples=samples, aggregator=aggregator),
        budget=parse_budget(budget) if budget else None,
        backend=settings.backend,
    )
    if show_prompt:
        _show_prompt(agent.messages(question, where=where), as_json)
        return
    answer = agent.ask(question, where=where)
    if as_json:
        emit(answer.to_json())
    else:
        show(answer, agent)
    if answer.abstained:
        raise typer.Exit(ABSTAINED)


def _chat_expert(name: str, max_tokens: int, prompts: str) -> Expert:
    """A chat model as the expert that answers."""
    from agentmtl.experts.calling import Caller
    from agentmtl.experts.chat import ChatExpert
    from agentmtl.experts.prompting import prompts_in
    from agentmtl.integrations.models import open_chat_model

    caller = Caller(open_chat_model(name), name.partition("@")[0], max_tokens=max_tokens)
    return ChatExpert(caller, prompts=prompts_in(prompts))


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
