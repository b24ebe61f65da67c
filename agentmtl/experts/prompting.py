"""Prompts are files: Jinja2 templates in `prompts/`, each of which a file of the same name in the user's own
folder replaces.

What was retrieved is put between two lines that hold a nonce, a number that its text cannot know, and is
quoted: every document on one line, with citation marks and the role tags of chat templates broken up.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.schema import Hit

SUFFIX = ".j2"
_BUILT_IN = Path(str(files("agentmtl.experts").joinpath("prompts")))
_TAGS = re.compile(r"<(?=[|/\w])|\[(?=/?[A-Z]{2,}\])", re.A)  # <|im_start|>, </s>, <system>, [INST]
_MARKS = re.compile(r"\[(\s*\d+(?:\s*,\s*\d+)*\s*)\]")


@dataclass(frozen=True, slots=True)
class Block:
    """A document as a prompt shows it."""

    number: int
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A prompt and where it comes from."""

    name: str
    path: Path
    overridden: bool


class Prompts:
    """The templates; those in `folder` come first. Raises UsageError where it is not there."""

    def __init__(self, folder: Path | None = None) -> None:
        from jinja2 import FileSystemLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        if folder is not None and not folder.is_dir():
            raise UsageError(f"There is no folder of prompts {folder}.", "Make it, or leave it out.")
        self._folder = folder
        places = [str(place) for place in (folder, _BUILT_IN) if place is not None]
        self._environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(places), undefined=StrictUndefined, autoescape=False,
            keep_trailing_newline=False,
        )  # fmt: skip

    def list(self) -> list[PromptFile]:
        """Every prompt by name, with the file that is used."""
        found = []
        for built_in in sorted(_BUILT_IN.glob(f"*{SUFFIX}")):
            own = self._folder / built_in.name if self._folder else None
            overridden = own is not None and own.is_file()
            found.append(PromptFile(built_in.stem, own if own and overridden else built_in, overridden))
        return found

    def render(self, name: str, **values: Any) -> str:
        """The prompt with its values. Raises UsageError where the template is broken or lacks a value."""
        from jinja2 import TemplateError

        try:
            return self._environment.get_template(name + SUFFIX).render(**values).strip()
        except TemplateError as error:
            raise UsageError(
                f"The prompt {name} cannot be filled in: {error}.",
                "Mend the template; its values are in docs/models.md.",
            ) from error


def blocks_of(hits: Sequence[Hit]) -> list[Block]:
    """The hits as numbered blocks, from 1, quoted."""
    return [Block(n, quoted(hit.unit.title), quoted(hit.text)) for n, hit in enumerate(hits, 1)]


def quoted(text: str) -> str:
    """Text as data: on one line, "[3]" as "(3)", and no tag that a chat template could take for a role."""
    line = " ".join(text.split())
    return _TAGS.sub(lambda match: match[0] + " ", _MARKS.sub(r"(\1)", line))


def nonce_for(texts: Sequence[str]) -> str:
    """Sixteen hexadecimal digits that stand in none of the texts."""
    while True:
        nonce = secrets.token_hex(8)
        if not any(nonce in text for text in texts):
            return nonce
