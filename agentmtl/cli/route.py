"""agentmtl route: who would answer, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.output import BackendFlag, EncoderFlag, JsonFlag, dim, emit, say, settings_from


def route(
    question: Annotated[str, typer.Argument(help="The question.")],
    file: Annotated[
        Path | None, typer.Option("--file", help="The registry; by default experts.toml here, or the user's.")
    ] = None,
    router: Annotated[
        Path | None, typer.Option("--router", help="A fitted router's folder; else by description.")
    ] = None,
    cost_weight: Annotated[
        float,
        typer.Option("--cost-weight", help="Probability that a dollar a thousand calls is worth.", min=0),
    ] = 0.0,
    threshold: Annotated[float, typer.Option("--threshold", help="Abstain below this chance.")] = 0.0,
    check: Annotated[bool, typer.Option("--check", help="Leave out experts that are not well.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Every expert, its chance and card.")] = False,
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
    from agentmtl.routing.description import Described, DescriptionRouter
    from agentmtl.routing.fitted import FittedRouter
    from agentmtl.routing.route import Policy, Router, choose
    from agentmtl.trunk import load_encoder

    entries = Registry(file).entries()
    settings = settings_from(encoder=encoder, backend=backend)
    loaded = load_encoder(settings.encoder, backend=settings.backend)
    known: Router
    if router is not None:
        known = FittedRouter.load(router)
    else:
        known = DescriptionRouter([Described(e.name, e.card, e.examples) for e in entries.values()], loaded)
    live = None
    if check:
        from agentmtl.integrations.experts import health

        live = frozenset(name for name, entry in entries.items() if health(entry) == "ok")
    costs = {name: 1000 * entry.price.usd(1_000, entry.max_tokens) for name, entry in entries.items()}
    policy = Policy(cost_weight, threshold, costs, live)
    found = choose(known, loaded.encode([question], "query")[0].astype(float), question, policy)
    if as_json:
        emit(found.to_json())
        return
    say(f"{found.expert}  {found.confidence:.2f}  {dim(found.reason)}")
    for name in sorted(found.scores, key=lambda n: -found.scores[n]) if explain else ():
        card = entries[name].card if name in entries else ""
        price = dim(f"{costs.get(name, 0.0):.2f} usd a thousand")
        say(f"  {found.scores[name]:.3f}  {name}  {price}  {card}")
