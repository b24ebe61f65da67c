"""Registered experts brought to life, and whether they are well."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentmtl.errors import AgentmtlError, UsageError
from agentmtl.experts.bank import open_bank
from agentmtl.experts.bank_expert import BankExpert
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.default import AUTO, embedded_expert
from agentmtl.experts.expert import Expert
from agentmtl.experts.prompting import Prompts
from agentmtl.experts.registry import ExpertEntry
from agentmtl.experts.voter import VoterExpert
from agentmtl.integrations.models import open_chat_model
from agentmtl.tasks import Task, load_task
from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Vectors

if TYPE_CHECKING:
    from agentmtl.integrations.runnables import Cost

VOTER = "voter:"  # before a task's name, as the model of an embedded expert


def open_expert(
    entry: ExpertEntry,
    encoder: EncoderIdentity,
    backend: str = "auto",
    prompts: Prompts | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Expert:
    """The expert of an entry. `encoder`: that of the index, which decides whether the embedded reader serves
    and compares a voter's options; `tasks`: the index's cards by name (`Index.tasks`).

    Raises UsageError for a target that is not there or is no such object, and what opening its model raises.
    """
    if entry.kind == "embedded":
        return _embedded(entry, encoder, backend, tasks or {})
    task = load_task(Path(entry.task)) if entry.task else None
    if entry.kind == "tool":
        from agentmtl.integrations.tool_expert import ToolExpert

        return ToolExpert(
            load_target(entry),
            name=entry.name,
            card=entry.card,
            cost=_cost(entry),
            confidence=entry.confidence,
        )
    if entry.kind == "runnable":
        from agentmtl.integrations.runnable_expert import RunnableExpert

        return RunnableExpert(
            load_target(entry), name=entry.name, card=entry.card, cost=_cost(entry), prompts=prompts,
            task=task, confidence=entry.confidence,
        )  # fmt: skip
    caller = Caller(
        open_chat_model(model_name(entry)), entry.name, price=entry.price, max_tokens=entry.max_tokens
    )
    return ChatExpert(caller, card=entry.card, prompts=prompts, task=task)


def _embedded(
    entry: ExpertEntry, encoder: EncoderIdentity, backend: str, tasks: Mapping[str, Task]
) -> Expert:
    if not entry.model.startswith(VOTER):
        return embedded_expert(entry.model or AUTO, encoder, backend)

    @cache
    def loaded() -> Encoder:
        from agentmtl.trunk.loading import load_encoder

        return load_encoder(encoder.name, backend=backend)

    def encode(texts: Any) -> Vectors:
        return loaded().encode(texts, "query")

    name = entry.model.removeprefix(VOTER)
    task = load_task(Path(entry.task)) if entry.task else tasks.get(name, Task(name, "classification"))
    if not entry.path:
        return VoterExpert(task, encode=encode, name=entry.name, card=entry.card)
    learned = open_bank(entry.path)
    learned.check_trunk(encoder)
    return BankExpert(task, learned, encode, name=entry.name, card=entry.card)


def _cost(entry: ExpertEntry) -> Cost:
    from agentmtl.integrations.runnables import Cost

    return Cost(entry.price, entry.usd_a_call, entry.max_tokens)


def load_target(entry: ExpertEntry) -> Any:
    """The object that a tool's or Runnable's target names: its module is imported, and so runs.

    Raises UsageError where it cannot be imported, is not there, or is neither.
    """
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

    module, _, attribute = entry.target.partition(":")
    hint = f'Mend target = "{entry.target}" of {entry.name}, or install what it needs.'
    try:
        found: Any = import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except Exception as error:  # whatever a module raises as it is imported
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"The target of {entry.name} cannot be imported: {why}.", hint) from error
    wanted = BaseTool if entry.kind == "tool" else Runnable
    if not isinstance(found, wanted):
        raise UsageError(
            f"The target of {entry.name} is no {wanted.__name__} but a {type(found).__name__}.", hint
        )
    return found


def model_name(entry: ExpertEntry) -> str:
    """What `open_chat_model` opens for an entry."""
    if entry.kind == "adapter" or entry.url:
        return f"vllm:{entry.model.removeprefix('vllm:')}" + (f"@{entry.url}" if entry.url else "")
    return entry.model


def health(entry: ExpertEntry) -> str:
    """Whether it is well: "ok", or a sentence about what is wrong.

    A server is asked for its models, a target is imported, files are looked for; no model is run.
    """
    try:
        if entry.task:
            load_task(Path(entry.task))
        if entry.kind == "embedded":
            return _embedded_health(entry.model)
        if entry.kind in ("tool", "runnable"):
            load_target(entry)
            return "ok"
        model = open_chat_model(model_name(entry))
        models = getattr(model, "models", None)
        there = models() if callable(models) else None
    except AgentmtlError as error:
        return str(error)
    name = entry.model.removeprefix("vllm:")
    if there is None or name in there:
        return "ok"
    return f"The server does not know {name}; it has {', '.join(there)}."


def _embedded_health(model: str) -> str:
    if model in ("", AUTO, "reader", "sentences") or model.startswith(VOTER):
        return "ok"
    there = (Path(model) / "card.json").is_file()
    return "ok" if there else f"There is no head in {model}. Choose auto, reader, sentences or voter:TASK."
