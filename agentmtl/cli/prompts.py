"""agentmtl prompts …: what models are told, and which of it is your own."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmtl.cli.output import JsonFlag, dim, emit, say, settings_from
from agentmtl.schema import SCHEMA_VERSION

app = typer.Typer(help="What models are told.", rich_markup_mode=None)

Folder = Annotated[
    str | None, typer.Option("--folder", help="Prompts of your own; by default the setting `prompts`.")
]


@app.callback(invoke_without_command=True)
def prompts(context: typer.Context, folder: Folder = None, as_json: JsonFlag = False) -> None:
    """Every prompt with the file that is used; one in the folder of the setting `prompts` replaces the
    package's.

    Examples:

      agentmtl prompts

      agentmtl prompts --json
    """
    if context.invoked_subcommand is not None:
        return
    from agentmtl.experts.prompting import prompts_in

    found = prompts_in(settings_from(prompts=folder).prompts).list()
    if as_json:
        told = [{"name": p.name, "file": str(p.path), "overridden": p.overridden} for p in found]
        emit({"schema": SCHEMA_VERSION, "prompts": told})
        return
    for one in found:
        say(f"{one.name}  {dim(str(one.path))}" + ("  your own" if one.overridden else ""))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Its name, as `agentmtl prompts` prints it.")],
    folder: Folder = None,
    as_json: JsonFlag = False,
) -> None:
    """The template of a prompt, to copy into a folder of your own and change.

    Examples:

      agentmtl prompts show answer-system

      agentmtl prompts show answer-user --json
    """
    from agentmtl.experts.prompting import prompts_in

    text = prompts_in(settings_from(prompts=folder).prompts).source(name)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "name": name, "text": text})
    else:
        say(text.rstrip("\n"))
