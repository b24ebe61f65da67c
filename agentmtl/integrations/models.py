"""Chat models by name.

vllm:MODEL                          a model or an adapter on the server at VLLM_BASE_URL
vllm:MODEL@http://127.0.0.1:8000    … at this address
vllm-local:DIR                      a model of this machine, in this process: for batch work
openai:gpt-…, anthropic:claude-…    whatever LangChain's `init_chat_model` opens; its package must be there
fake:TEXT                           says TEXT, to try things out

As judges of text (`open_scorer`) those of vLLM, and

causal:DIR                          a Hugging Face causal model of this machine, in this process
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agentmtl.errors import ModelError, UsageError

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import BaseChatModel

    from agentmtl.experts.scoring import Scorer

_HINT = "Write for example --llm vllm:MODEL@http://127.0.0.1:8000 or --llm openai:MODEL"


def open_chat_model(spec: str) -> BaseChatModel:
    """See the top of this module. Raises UsageError for a name that says no provider, ModelError where the
    provider's package or key is not there."""
    provider, _, name = spec.partition(":")
    if not name:
        raise UsageError(f"{spec!r} names no provider and model.", _HINT)
    if provider == "fake":
        from agentmtl.experts.fake import FakeChatModel

        return FakeChatModel(replies=[name])
    if provider == "vllm":
        return _vllm(name)
    if provider == "vllm-local":
        from agentmtl.integrations.vllm_local import LocalVLLM

        return LocalVLLM(model=name, logprobs=True)
    from langchain.chat_models import init_chat_model

    try:
        model: BaseChatModel = init_chat_model(spec)
    except Exception as error:
        raise ModelError(f"The model {spec} cannot be opened: {type(error).__name__}.", _HINT) from error
    return model


def _vllm(name: str) -> BaseChatModel:
    from agentmtl.integrations.chat_vllm import ChatVLLM

    model, _, address = name.partition("@")
    if not address:
        return ChatVLLM(model=model, logprobs=True)
    url = address.rstrip("/")
    return ChatVLLM(model=model, base_url=url if url.endswith("/v1") else f"{url}/v1", logprobs=True)


def open_scorer(spec: str) -> Scorer:
    """A language model that gives probabilities. Raises UsageError for a name of none, or where calls of
    models are forbidden, ModelError where it cannot be opened."""
    from agentmtl.experts.calling import refuse_where_forbidden
    from agentmtl.experts.scoring import Scorer

    provider, _, name = spec.partition(":")
    if provider == "causal" and name:
        from agentmtl.integrations.causal import CausalScorer

        return CausalScorer(Path(name))
    if provider in ("vllm", "vllm-local"):
        refuse_where_forbidden(provider)
        found: object = open_chat_model(spec)
        if isinstance(found, Scorer):
            return found
    raise UsageError(
        f"A model of {provider!r} gives no probabilities of texts.",
        "Name causal:FOLDER, vllm:MODEL@URL or vllm-local:FOLDER.",
    )
