"""Prompts are files: Jinja2 templates in `prompts/`, each of which a file of the same name in the user's own
folder replaces.

What was retrieved is put between two lines that hold a nonce, a number that its text cannot know, and is
quoted (`experts.quoting`): every document and example on one line, with citation marks and the tags of chat
templates broken up.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentmtl.errors import UsageError
from agentmtl.experts.quoting import quoted
from agentmtl.schema import Demonstration, Evidence, Hit
from agentmtl.tasks import Task

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

SUFFIX = ".j2"
PASSAGES = 6  # shown to a model, at most
_BUILT_IN = Path(str(files("agentmtl.experts").joinpath("prompts")))


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
            raise UsageError(
                f"There is no folder of prompts {folder}.", "Make it, or leave out the setting `prompts`."
            )
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

    def source(self, name: str) -> str:
        """The template's text. Raises UsageError for a name that no prompt has."""
        known = {one.name: one.path for one in self.list()}
        if name not in known:
            raise UsageError(f"There is no prompt {name!r}.", f"There are {', '.join(known)}.")
        return known[name].read_text("utf-8")

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


def prompts_in(folder: str) -> Prompts:
    """As the setting `prompts` names them: "" for the package's own. Raises UsageError as `Prompts` does."""
    return Prompts(Path(folder).expanduser() if folder else None)


def blocks_of(hits: Sequence[Hit]) -> list[Block]:
    """The hits as numbered blocks, from 1, quoted."""
    return [Block(n, quoted(hit.unit.title), quoted(hit.text)) for n, hit in enumerate(hits, 1)]


def examples_of(hits: Sequence[Hit]) -> list[Demonstration]:
    """The labelled examples of demonstration hits, quoted as documents are: an index may hold anyone's."""
    found = [Demonstration.from_unit(hit.unit) for hit in hits]
    return [
        replace(
            one, input=quoted(one.input), output=quoted(one.output), choices=tuple(map(quoted, one.choices))
        )
        for one in found
    ]


def nonce_for(texts: Sequence[str]) -> str:
    """Sixteen hexadecimal digits that stand in none of the texts."""
    while True:
        nonce = secrets.token_hex(8)
        if not any(nonce in text for text in texts):
            return nonce


def answer_messages(
    prompts: Prompts,
    question: str,
    evidence: Evidence,
    demonstrations: Sequence[Hit] = (),
    *,
    task: Task | None = None,
    passages: int = PASSAGES,
    form: str = "answer-user",
    drafts: Sequence[str] = (),
) -> tuple[BaseMessage, ...]:
    """What a model is sent to answer from the first `passages` of the evidence; by the prompt `form`, which
    may show drafts of an answer, quoted as well."""
    from langchain_core.messages import HumanMessage, SystemMessage

    blocks, shown = blocks_of(evidence.passages[:passages]), examples_of(demonstrations)
    proposed = [quoted(draft) for draft in drafts]
    nonce = nonce_for([question, *proposed, *_texts(blocks, shown)])
    system = prompts.render("answer-system", task=task, nonce=nonce)
    user = prompts.render(
        form, blocks=blocks, question=question, demonstrations=shown, nonce=nonce, drafts=proposed
    )
    return SystemMessage(system), HumanMessage(user)


def fenced(prompts: Prompts, name: str, hits: Sequence[Hit], demonstrations: Sequence[Hit] = ()) -> str:
    """The prompt `name` with the hits as blocks and quoted examples between lines with a nonce."""
    blocks, shown = blocks_of(hits), examples_of(demonstrations)
    return prompts.render(name, blocks=blocks, demonstrations=shown, nonce=nonce_for(_texts(blocks, shown)))


def _texts(blocks: Sequence[Block], shown: Sequence[Demonstration]) -> list[str]:
    texts = [text for block in blocks for text in (block.title, block.text)]
    return texts + [text for one in shown for text in (one.input, one.output)]
