"""agentmtl config …: the settings in force and where each came from."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmtl.cli.output import JsonFlag, emit, say
from agentmtl.schema import SCHEMA_VERSION
from agentmtl.settings import PROJECT_FILE, cache_folder, config_folder, data_folder, load_settings

app = typer.Typer(no_args_is_help=True, help="The settings in force.", rich_markup_mode=None)


@app.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value came from.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Every setting: flag > environment > project file > user file > default.

    Examples:

      agentmtl config show --origin

      AGENTMTL_K=5 agentmtl config show --json
    """
    _, origins = load_settings()
    folders = {"user file": config_folder() / "config.toml", "cache": cache_folder(), "data": data_folder()}
    if as_json:
        values = {key: {"value": o.value, "origin": o.source} for key, o in origins.items()}
        emit({"schema": SCHEMA_VERSION, "settings": values, "folders": folders})
        return
    for key, o in origins.items():
        say(f"{key} = {o.value!r}" + (f"    # {o.source}" if origin else ""))
    if origin:
        say(f"# project file: {PROJECT_FILE}")
        for name, path in folders.items():
            say(f"# {name}: {path}")


@app.command("init")
def init(as_json: JsonFlag = False) -> None:
    """Write agentmtl.toml with every setting at its default, commented out. Never overwrites.

    Examples:

      agentmtl config init

      agentmtl config init --json
    """
    from dataclasses import fields
    from pathlib import Path

    from agentmtl.errors import UsageError
    from agentmtl.settings import Settings

    path = Path(PROJECT_FILE)
    if path.exists():
        raise UsageError(f"{path} is already here.", "Edit it, or move it away first.")
    lines = [f"# {f.name} = {_toml(f.default)}" for f in fields(Settings)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    if as_json:
        emit({"schema": SCHEMA_VERSION, "file": str(path)})
    else:
        say(f"Wrote {path}: take the # off a line to set it.")


def _toml(value: object) -> str:
    import json

    return json.dumps(value)
