"""agentmtl experts …: who answers, and how to serve the adapters."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.output import JsonFlag, dim, emit, say
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.experts.registry import ExpertEntry

app = typer.Typer(no_args_is_help=True, help="Who answers: register, check and serve.", rich_markup_mode=None)

File = Annotated[
    Path | None,
    typer.Option("--file", help="The registry; by default experts.toml here, or the user's."),
]


@app.command("list")
def list_experts(
    check: Annotated[bool, typer.Option("--check", help="Ask each whether it is well.")] = False,
    file: File = None,
    as_json: JsonFlag = False,
) -> None:
    """The registered experts with their cards.

    Examples:

      agentmtl experts list

      agentmtl experts list --json
    """
    from agentmtl.experts.registry import Registry

    entries = Registry(file).entries()
    states = {}
    if check:
        from agentmtl.integrations.experts import health

        states = {name: health(entry) for name, entry in entries.items()}
    if as_json:
        told = [{"name": name, **entry.to_json()} for name, entry in entries.items()]
        for one in told if check else []:
            one["health"] = states[one["name"]]
        emit({"schema": SCHEMA_VERSION, "experts": told})
        return
    for name, entry in entries.items():
        say(f"{name}  {dim(' '.join(filter(None, (entry.kind, entry.model, entry.target, entry.url))))}")
        say(f"  {entry.card}")
        if cost := _cost(entry):
            say(f"  {dim(cost)}")
        if check:
            say(f"  {states[name]}")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Its name: the route of its answers.")],
    kind: Annotated[str, typer.Option("--kind", help="embedded, chat, adapter, tool or runnable.")],
    card: Annotated[str, typer.Option("--card", help="In a sentence, what it is good at.")],
    model: Annotated[
        str, typer.Option("--model", help="PROVIDER:MODEL, the adapter's id, or reader or voter:TASK.")
    ] = "",
    target: Annotated[
        str, typer.Option("--target", help="Of a tool or Runnable, imported and run.", metavar="MODULE:NAME")
    ] = "",
    task: Annotated[str, typer.Option("--task", help="A task card, for its prompt.")] = "",
    url: Annotated[str, typer.Option("--url", help="Address of the vLLM server.")] = "",
    base: Annotated[str, typer.Option("--base", help="The adapter's model, for `plan`.")] = "",
    path: Annotated[str, typer.Option("--path", help="The adapter's, for `plan`; a voter's bank.")] = "",
    example: Annotated[
        list[str] | None, typer.Option("--example", help="A question for it; repeat for more.")
    ] = None,
    usd: Annotated[
        str, typer.Option("--usd", help="Dollars a million tokens of prompt and output.", metavar="P,O")
    ] = "0,0",
    parameters: Annotated[float, typer.Option("--parameters", help="Active ones, for FLOPs.")] = 0.0,
    usd_a_call: Annotated[float, typer.Option("--usd-a-call", help="On top of its tokens.", min=0)] = 0.0,
    seconds: Annotated[float, typer.Option("--seconds", help="Expected of a call.", min=0)] = 0.0,
    confidence: Annotated[
        float,
        typer.Option("--confidence", help="Of a tool or Runnable: the share that is right.", min=0, max=1),
    ] = 0.5,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Of an answer.", min=1)] = 256,
    file: File = None,
) -> None:
    """Register an expert.

    Examples:

      agentmtl experts add tickets --kind adapter --model tickets --card "Support tickets." --file my.toml

      agentmtl experts add big --kind chat --model openai:MODEL --card "Anything." --usd 2.5,10 --file my.toml

      agentmtl experts add weather --kind tool --target shop.tools:weather --card "Weather." --file my.toml
    """
    from agentmtl.errors import UsageError
    from agentmtl.experts.registry import ExpertEntry, Registry

    try:
        prompt, output = (float(part) for part in usd.split(","))
    except ValueError:
        raise UsageError(f"{usd!r} is no pair of prices.", "Write for example --usd 2.5,10") from None
    data = {
        "kind": kind, "card": card, "model": model, "url": url, "base": base, "path": path,
        "examples": list(example or ()), "max_tokens": max_tokens,
        "target": target, "task": task, "usd_a_call": usd_a_call, "seconds_a_call": seconds,
        "confidence": confidence,
        "price": {"prompt": prompt, "output": output, "parameters": parameters},
    }  # fmt: skip
    registry = Registry(file)
    registry.add(ExpertEntry.from_json(name, data))
    say(f"Registered {name} in {registry.path}.")


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Its name.")],
    file: File = None,
) -> None:
    """Take an expert out of the registry; its model stays where it is.

    Examples:

      agentmtl experts remove tickets --file my.toml

      agentmtl experts remove big --file my.toml
    """
    from agentmtl.experts.registry import Registry

    registry = Registry(file)
    registry.remove(name)
    say(f"Removed {name} from {registry.path}.")


@app.command("plan")
def plan_servers(file: File = None, as_json: JsonFlag = False) -> None:
    """The exact vLLM command that serves the registered adapters, a line a server, and the memory it takes.

    Examples:

      agentmtl experts plan

      agentmtl experts plan --json
    """
    from agentmtl.experts.registry import Registry
    from agentmtl.experts.serving import plan

    plans = plan(Registry(file).entries())
    if as_json:
        told = [
            {"base": p.base, "url": p.url, "adapters": list(p.adapters), "max_lora_rank": p.max_rank,
             "max_loras": p.max_loras, "base_bytes": p.base_bytes, "bytes": p.bytes,
             "slot_bytes": p.slot_bytes, "command": list(p.command)}
            for p in plans
        ]  # fmt: skip
        emit({"schema": SCHEMA_VERSION, "servers": told})
        return
    for one in plans:
        say(dim(f"# {one.max_loras} at once, of rank up to {one.max_rank}"))
        say(
            dim(
                f"# memory: base {_size(one.base_bytes)}, adapters {_size(one.bytes)} in slots of "
                f"{_size(one.slot_bytes)}; the cache takes what --gpu-memory-utilization leaves"
            )
        )
        say(shlex.join(one.command))
    if not plans:
        say("No adapter is registered.")


def _size(count: int | None) -> str:
    return "not on this machine" if count is None else f"{count / 1e6:,.1f} MB"


def _cost(entry: ExpertEntry) -> str:
    """What a call is expected to cost; "" where nothing is known."""
    usd = entry.expected_usd()
    parts = [f"{usd:.3g} usd a call" if usd else ""]
    parts.append(f"{entry.seconds_a_call:g} s a call" if entry.seconds_a_call else "")
    return ", ".join(filter(None, parts))
