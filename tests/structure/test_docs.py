"""The commands in docs/ are commands of this version, with options that it takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
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
        if command.invoke_without_command and not [word for word in words if not word.startswith("-")]:
            break
        name, *words = words
        context = type(command).context_class(command, info_name=name, parent=context)
        command = command.commands[name]
    made = command.make_context(str(command.name), list(words), parent=context)
    assert made.params


SAID = {
    "models.md": (
        "Tarn is a town on the river Lune.\nbridge",
        "Tarn is a town on the river Lune. [1]\n[1] tarn: Tarn is a town on the river Lune.",
        "tickets",
        "Mira Holm [1]",
        "Ada Bell [1]\nRain in Tarn.",
        "all passed",
        "John Harrison [1] The H4 timekeeper",
    ),
    "agent.md": (
        "The H4 was built by John Harrison. [1]\nJohn Harrison was born in Foulby. [1]",
        "route\nplan\nretrieve\nsample\npropose\nverify",
        "Mira Holm [1] 2",
    ),
    "serving.md": ("tiny", "True", "models/tiny tickets"),
}


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.S | re.M)


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in SAID for number in range(len(snippets(page)))]
)
def test_the_python_of_a_page_runs(page: str, number: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippets(page)[number]],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(SAID[page][number]), done.stdout
