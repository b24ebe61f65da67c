"""agentmtl route: who would answer, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.output import BackendFlag, EncoderFlag, JsonFlag, dim, emit, say, settings_from
from agentmtl.errors import UsageError

if TYPE_CHECKING:
    from agentmtl.experts.registry import ExpertEntry
    from agentmtl.routing.decider import Decider
    from agentmtl.routing.description import Described
    from agentmtl.routing.route import Policy, Route, Router
    from agentmtl.trunk.encoder import Encoder

ABSTAIN = 0.5  # chance below which the chat model is asked, where there is one


def route(
    question: Annotated[str, typer.Argument(help="The question.")],
    file: Annotated[
        Path | None, typer.Option("--file", help="The registry; by default experts.toml here, or the user's.")
    ] = None,
    router: Annotated[
        Path | None, typer.Option("--router", help="A fitted router's folder; else by description.")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            help="A chat model that decides where the router abstains: PROVIDER:MODEL, or an expert.",
            metavar="NAME",
        ),
    ] = None,
    cost_weight: Annotated[
        float,
        typer.Option("--cost-weight", help="Probability that a dollar a thousand calls is worth.", min=0),
    ] = 0.0,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Abstain below this chance; 0, or with --llm .5, by default."),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--last", help="Who answered before in the conversation.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Leave out experts that are not well.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="The tier, the places in the question, every expert.")
    ] = False,
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say which registered expert would answer a question, without asking it.

    Examples:

      agentmtl route "When was the bridge opened?"

      agentmtl route "When was the bridge opened?" --explain --json
    """
    from agentmtl.experts.registry import Registry
    from agentmtl.routing.description import Described
    from agentmtl.routing.route import Policy
    from agentmtl.trunk import load_encoder

    entries = Registry(file).entries()
    settings = settings_from(encoder=encoder, backend=backend)
    loaded = load_encoder(settings.encoder, backend=settings.backend)
    experts = [Described(e.name, e.card, e.examples) for e in entries.values()]
    costs = {name: 1000 * entry.expected_usd() for name, entry in entries.items()}
    if threshold is None:
        threshold = ABSTAIN if llm else 0.0
    policy = Policy(cost_weight, threshold, costs, _live(entries, check))
    decider = decider_of(experts, router, loaded, policy, _model(llm, entries) if llm else None)
    found = decider.decide(question, last=last)
    if as_json:
        emit(found.to_json())
    else:
        _show(found, entries, explain)


def _live(entries: Mapping[str, ExpertEntry], check: bool) -> frozenset[str]:
    """The registered experts; with `check` those that are well."""
    if not check:
        return frozenset(entries)
    from agentmtl.integrations.experts import health

    return frozenset(name for name, entry in entries.items() if health(entry) == "ok")


def _model(name: str, entries: Mapping[str, ExpertEntry]) -> ExpertEntry:
    """The chat model of a name: a registered expert's, or one that is given as PROVIDER:MODEL."""
    from agentmtl.experts.registry import ExpertEntry

    entry = entries.get(name) or ExpertEntry(name.partition("@")[0], "chat", "Routes.", name)
    if entry.kind == "embedded":
        raise UsageError(f"{name} is no chat model.", "Give --llm PROVIDER:MODEL, or a chat expert.")
    return entry


def decider_of(
    experts: list[Described],
    folder: Path | None,
    encoder: Encoder,
    policy: Policy,
    model: ExpertEntry | None,
) -> Decider:
    """The router with its policy, and after it the chat model where there is one."""
    from agentmtl.routing.decider import RouterDecider, Tiers
    from agentmtl.routing.description import DescriptionRouter
    from agentmtl.routing.fitted import FittedRouter

    known: Router
    if folder is not None:
        known, tier = FittedRouter.load(folder, encoder), "fitted"
        if not {one.name for one in experts} & set(known.experts):
            raise UsageError(
                f"The router knows {', '.join(known.experts)}, and none of them is registered.",
                "Register them: agentmtl experts add",
            )
    else:
        known, tier = DescriptionRouter(experts, encoder), "description"
    cheap = RouterDecider(known, encoder, policy, experts=experts, tier=tier)
    if model is None:
        return cheap
    from dataclasses import replace

    from agentmtl.experts.calling import Caller
    from agentmtl.integrations.experts import model_name
    from agentmtl.integrations.models import open_chat_model
    from agentmtl.routing.llm import LLMRouter

    opened = open_chat_model(model_name(model))
    caller = Caller(opened, model.name, price=model.price, max_tokens=model.max_tokens)
    return Tiers([cheap, LLMRouter(caller, experts, replace(policy, threshold=0.0))])


def _show(found: Route, entries: Mapping[str, ExpertEntry], explain: bool) -> None:
    say(f"{found.expert or '(nobody)'}  {found.confidence:.2f}  {dim(found.reason)}")
    if not explain:
        return
    say(f"  decided by: {found.tier}{', abstaining' if found.abstained else ''}")
    words = [span.text for span in found.spans if not span.unit]
    if words:
        say(f"  by the words: {', '.join(words)}")
    for name, value in found.args.items():
        say(f"  argument {name}: {value}")
    for why in found.dropped:
        say(f"  {why}")
    for name in sorted(found.scores, key=lambda n: -found.scores[n]):
        card = entries[name].card if name in entries else "(not registered)"
        price = dim(f"{found.costs.get(name, 0.0):.2f} usd a thousand")
        say(f"  {found.scores[name]:.3f}  {name}  {price}  {card}")
