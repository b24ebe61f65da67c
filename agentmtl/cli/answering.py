"""Who answers, and with what: the options that `ask` shares with other commands, and the agent they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.experts.expert import Expert
    from agentmtl.retrieval.index import Index
    from agentmtl.schema import Allocation
    from agentmtl.settings import Settings

_EMBEDDED = ("auto", "reader", "sentences")

AnsweringFlag = Annotated[
    str,
    typer.Option(
        "--expert", help="auto, reader, sentences, a reader head's folder, or a registered expert's name."
    ),
]
LlmFlag = Annotated[
    str | None,
    typer.Option("--llm", help="A chat model: vllm:MODEL@URL, or PROVIDER:MODEL.", metavar="NAME"),
]
SamplesFlag = Annotated[int, typer.Option("--samples", help="Of the chat model, at most.", min=1)]
AggregatorFlag = Annotated[
    str,
    typer.Option("--aggregator", help="Of samples: majority, weighted, best-of-n, fuse or refine."),
]
UpdaterFlag = Annotated[
    str,
    typer.Option("--updater", help="Who says what later hops look up: auto (the chat model) or embedded."),
]
MaxTokensFlag = Annotated[int, typer.Option("--max-tokens", help="Of one sample.", min=1)]
BudgetFlag = Annotated[
    str | None,
    typer.Option("--budget", help="What it may cost: calls=20,tokens=4000,usd=.02,seconds=3"),
]
TaskFlag = Annotated[
    str, typer.Option("--task", help="A task of the index, whose labelled examples the model is shown.")
]
DemonstrationsFlag = Annotated[
    int, typer.Option("--demonstrations", help="How many examples of --task, at most.", min=0)
]


RewardFlag = Annotated[
    Path | None,
    typer.Option("--reward", help="What best-of-n chooses by: a file of `agentmtl train reward`."),
]


AllocationFlag = Annotated[
    Path | None,
    typer.Option("--allocation", help="What stages are given: a file of `agentmtl tune`, before flags."),
]


@dataclass(frozen=True, slots=True)
class Answering:
    """The options as given."""

    expert: str = "auto"
    judge: str = "none"
    llm: str | None = None
    samples: int = 1
    aggregator: str = "majority"
    updater: str = "auto"
    max_tokens: int = 256
    budget: str | None = None
    task: str = ""
    demonstrations: int = 4
    reward: Path | None = None
    allocation: Path | None = None


def agent_of(index: Index, settings: Settings, given: Answering) -> Agent:
    """The agent that these options describe. Raises UsageError for one that says nothing known."""
    from agentmtl.agent.agent import Agent
    from agentmtl.agent.reward import Reward
    from agentmtl.spending import parse_budget

    return Agent(
        index,
        hops=settings.hops,
        threshold=settings.threshold,
        log=settings.log,
        expert=_expert(index, settings, given),
        judge=given.judge,
        allocation=_allocation(given),
        budget=parse_budget(given.budget) if given.budget else None,
        reward=Reward.load(given.reward) if given.reward else None,
        task=given.task,
        demonstrations=given.demonstrations if given.task else 0,
        backend=settings.backend,
    )


def chat_expert(name: str, max_tokens: int) -> Expert:
    """A chat model by its name, as the expert that answers."""
    from agentmtl.experts.calling import Caller
    from agentmtl.experts.chat import ChatExpert
    from agentmtl.integrations.models import open_chat_model

    return ChatExpert(Caller(open_chat_model(name), name.partition("@")[0], max_tokens=max_tokens))


def _expert(index: Index, settings: Settings, given: Answering) -> Expert | str:
    """A chat model, one of the registry, or the name of an embedded expert."""
    if given.llm is not None:
        return chat_expert(given.llm, given.max_tokens)
    from agentmtl.experts.registry import Registry

    entries = {} if given.expert in _EMBEDDED else Registry().entries()
    if given.expert not in entries:
        return given.expert
    from agentmtl.integrations.experts import open_expert

    return open_expert(entries[given.expert], index.settings.encoder, settings.backend)


def _allocation(given: Answering) -> Allocation:
    from agentmtl.errors import UsageError
    from agentmtl.schema import Allocation, Share

    shares = {"sample": Share(samples=given.samples, aggregator=given.aggregator)}
    if given.updater not in ("auto", "embedded"):
        raise UsageError(f"There is no updater {given.updater!r}.", "Choose auto or embedded.")
    if given.updater == "embedded":
        shares["hop"] = Share("embedded")
    if given.allocation is not None:
        from agentmtl.compute.frontier import read_allocation

        shares |= read_allocation(given.allocation)[0].shares
    return Allocation(shares)
