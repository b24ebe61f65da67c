"""The commands in docs/ are commands of this version, with options that it takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from agentmtl.cli.main import app

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = [
    line
    for page in sorted(DOCS.glob("*.md"))
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("agentmtl ")
]


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    command, context = typer.main.get_command(app), None
    while hasattr(command, "commands"):
        name, *words = words
        context = type(command).context_class(command, info_name=name, parent=context)
        command = command.commands[name]
    made = command.make_context(str(command.name), list(words), parent=context)
    assert made.params
