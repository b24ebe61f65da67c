"""Registered experts brought to life, and whether they are well."""

from __future__ import annotations

from agentmtl.errors import AgentmtlError
from agentmtl.experts.calling import Caller
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.default import embedded_expert
from agentmtl.experts.expert import Expert
from agentmtl.experts.prompting import Prompts
from agentmtl.experts.registry import ExpertEntry
from agentmtl.integrations.models import open_chat_model
from agentmtl.trunk.encoder import EncoderIdentity


def open_expert(
    entry: ExpertEntry, encoder: EncoderIdentity, backend: str = "auto", prompts: Prompts | None = None
) -> Expert:
    """The expert of an entry. `encoder`: that of the index, which decides whether the embedded reader serves.

    Raises what opening its model raises.
    """
    if entry.kind == "embedded":
        return embedded_expert(entry.model or "auto", encoder, backend)
    caller = Caller(
        open_chat_model(model_name(entry)), entry.name, price=entry.price, max_tokens=entry.max_tokens
    )
    return ChatExpert(caller, card=entry.card, prompts=prompts)


def model_name(entry: ExpertEntry) -> str:
    """What `open_chat_model` opens for an entry."""
    if entry.kind == "adapter" or entry.url:
        return f"vllm:{entry.model.removeprefix('vllm:')}" + (f"@{entry.url}" if entry.url else "")
    return entry.model


def health(entry: ExpertEntry) -> str:
    """Whether it is well: "ok", or a sentence about what is wrong. A server is asked for its models."""
    try:
        if entry.kind == "embedded":
            return "ok"
        model = open_chat_model(model_name(entry))
        models = getattr(model, "models", None)
        if models is None:
            return "ok"
        there = models()
    except AgentmtlError as error:
        return str(error)
    name = entry.model.removeprefix("vllm:")
    return "ok" if name in there else f"The server does not know {name}; it has {', '.join(there)}."
