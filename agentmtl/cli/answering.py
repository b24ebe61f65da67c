"""Who answers, and with what: the options that `ask` shares with other commands, and the agent they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentmtl.agent.agent import Agent
    from agentmtl.compute.difficulty import ByDifficulty
    from agentmtl.experts.expert import Expert
    from agentmtl.retrieval.index import Index
    from agentmtl.routing.decider import Decider
    from agentmtl.schema import Allocation
    from agentmtl.settings import Settings

ROUTED = "routed"
_EMBEDDED = ("auto", "reader", "sentences")

AnsweringFlag = Annotated[
    str,
    typer.Option(
        "--expert",
        help="auto, reader, sentences, a head's folder, a registered name, or routed: whom the router takes.",
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


RouterFlag = Annotated[
    Path | None,
    typer.Option("--router", help="Of --expert routed: a fitted router's folder; else by description."),
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
    router: Path | None = None
    allocation: Path | None = None


def agent_of(index: Index, settings: Settings, given: Answering) -> Agent:
    """The agent that these options describe. Raises UsageError for one that says nothing known."""
    from agentmtl.agent.agent import Agent
    from agentmtl.agent.reward import Reward
    from agentmtl.experts.prompting import prompts_in
    from agentmtl.spending import parse_budget

    experts = _experts(index, settings, given)
    return Agent(
        index,
        hops=settings.hops,
        threshold=settings.threshold,
        log=settings.log,
        expert=experts[0] if experts else given.expert,
        experts=experts[1:],
        decider=_decider(index, given, experts) if given.expert == ROUTED else None,
        judge=given.judge,
        allocation=_allocation(given),
        budget=parse_budget(given.budget) if given.budget else None,
        reward=Reward.load(given.reward) if given.reward else None,
        task=given.task,
        demonstrations=given.demonstrations if given.task else 0,
        backend=settings.backend,
        prompts=prompts_in(settings.prompts),
    )


def chat_expert(name: str, max_tokens: int, prompts: str = "") -> Expert:
    """A chat model by its name, as the expert that answers. `prompts`: a folder of one's own."""
    from agentmtl.experts.calling import Caller
    from agentmtl.experts.chat import ChatExpert
    from agentmtl.experts.prompting import prompts_in
    from agentmtl.integrations.models import open_chat_model

    caller = Caller(open_chat_model(name), name.partition("@")[0], max_tokens=max_tokens)
    return ChatExpert(caller, prompts=prompts_in(prompts))


def _experts(index: Index, settings: Settings, given: Answering) -> list[Expert]:
    """A chat model, one of the registry or all of it; [] where the name is that of an embedded expert."""
    if given.llm is not None:
        return [chat_expert(given.llm, given.max_tokens, settings.prompts)]
    from agentmtl.experts.prompting import prompts_in
    from agentmtl.experts.registry import Registry

    entries = {} if given.expert in _EMBEDDED else Registry().entries()
    if given.expert != ROUTED:
        entries = {name: entry for name, entry in entries.items() if name == given.expert}
    if not entries:
        return []
    from agentmtl.integrations.experts import open_expert

    prompts, encoder = prompts_in(settings.prompts), index.settings.encoder
    return [open_expert(entry, encoder, settings.backend, prompts, index.tasks) for entry in entries.values()]


def _decider(index: Index, given: Answering, opened: Sequence[Expert]) -> Decider:
    """The router among the registered experts, over the index's own encoder."""
    from agentmtl.cli.route import decider_of
    from agentmtl.experts.registry import Registry
    from agentmtl.routing.description import Described
    from agentmtl.routing.route import Policy

    entries = Registry().entries()
    experts = [
        Described(one.name, one.card, entries[name].examples, getattr(one, "schema", None))
        for name, one in zip(entries, opened, strict=True)
    ]
    return decider_of(experts, given.router, index.encoder, Policy(), None)


def _allocation(given: Answering) -> Allocation | ByDifficulty:
    """What the flags say, and over it what the file does; by difficulty where the file has that."""
    from dataclasses import replace

    from agentmtl.errors import UsageError
    from agentmtl.schema import Allocation, Share

    shares = {"sample": Share(samples=given.samples, aggregator=given.aggregator)}
    if given.updater not in ("auto", "embedded"):
        raise UsageError(f"There is no updater {given.updater!r}.", "Choose auto or embedded.")
    if given.updater == "embedded":
        shares["hop"] = Share("embedded")
    if given.allocation is not None:
        from agentmtl.compute.difficulty import read_by_difficulty
        from agentmtl.compute.frontier import read_allocation

        if leveled := read_by_difficulty(given.allocation):
            merged = tuple(Allocation({**shares, **one.shares}) for one in leveled.allocations)
            return replace(leveled, allocations=merged)
        shares |= read_allocation(given.allocation)[0].shares
    return Allocation(shares)
