"""Adapters of a real server: by name, and loaded and unloaded while it runs."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage

from agentmtl.errors import ModelError
from agentmtl.experts.registry import ExpertEntry
from agentmtl.integrations.chat_vllm import ChatVLLM
from agentmtl.integrations.experts import health

from .server import ADAPTERS, Server

pytestmark = pytest.mark.server


def test_an_adapter_is_a_model_by_its_name(chat: ChatVLLM) -> None:
    prompt, said = "Ticket 12 is owned by", [" Mira Holm.", " nobody."]
    plain = chat.model_copy(update={"scored_at_once": 1}).score(prompt, said)
    other = chat.model_copy(update={"model_name": "tickets", "scored_at_once": 1}).score(prompt, said)
    assert [one.tokens for one in plain] == [one.tokens for one in other]
    assert [one.logprob for one in plain] != pytest.approx([one.logprob for one in other], abs=1e-3)


def test_an_adapter_is_loaded_asked_and_unloaded_while_the_server_runs(chat: ChatVLLM) -> None:
    folder = str((ADAPTERS / "tickets").resolve())
    chat.load_adapter("again", folder)
    try:
        assert "again" in chat.models()
        same = [chat.invoke("Who owns ticket 12?", model=name).text for name in ("tickets", "again")]
        assert same[0] == same[1]
        assert chat.model_copy(update={"model_name": "again"}).context_window == chat.context_window
        with pytest.raises(ModelError, match="already been loaded"):
            chat.load_adapter("again", folder)
        chat.load_adapter("again", folder, replace=True)
    finally:
        chat.unload_adapter("again")
    assert "again" not in chat.models()
    with pytest.raises(ModelError, match="does not exist"):
        chat.invoke([HumanMessage("Who owns ticket 12?")], model="again")


def test_an_adapter_that_is_not_there_is_refused_and_the_server_goes_on(chat: ChatVLLM) -> None:
    with pytest.raises(ModelError, match="No adapter found") as caught:
        chat.load_adapter("nothing", "/no/such/folder")
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in caught.value.hint
    with pytest.raises(ModelError, match="cannot be found"):
        chat.unload_adapter("nothing")
    assert chat.invoke("Who owns ticket 12?").text is not None


def test_a_registered_adapter_is_asked_for_its_health(server: Server) -> None:
    entry = ExpertEntry("tickets", "adapter", "Support tickets.", model="tickets", url=server.url)
    assert health(entry) == "ok"
    gone = ExpertEntry("gone", "adapter", "Nothing.", model="gone", url=server.url)
    assert health(gone).startswith("The server does not know gone; it has tiny, ")
