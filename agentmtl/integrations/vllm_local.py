"""`LocalVLLM`: a LangChain chat model over vLLM's engine in this process, for batch work without a server.

    model = LocalVLLM(model="models/tiny", adapters={"tickets": "adapters/tickets"}, temperature=0)
    model.batch(["Name a river.", "Name a town."])         # one run of the engine
    model.generate([[HumanMessage("Name a river.")]], n=8, logprobs=True)
    model.invoke("Who owns ticket 12?", model="tickets", structured_outputs={"choice": ["Mira", "Jonas"]})
    model.score("Oslo lies in", [" Norway", " Peru"])      # log-probabilities

It takes the options of `ChatVLLM` and answers in the same form. Requests that come together, from threads or
from tasks of an event loop, are run together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, ConfigDict, Field

from agentmtl.errors import UsageError
from agentmtl.experts.calling import refuse_where_forbidden
from agentmtl.experts.scoring import Pair, Score, TokenScores, score_of, texts_to_score
from agentmtl.integrations.chat_vllm import check_options, known_options, sum_of_usages
from agentmtl.integrations.structured import Method, Schema, constrained
from agentmtl.integrations.vllm_engine import Engine, Job
from agentmtl.integrations.vllm_replies import result_of

AT_ONCE = 256  # requests of a batch that may wait at the same time


class LocalVLLM(BaseChatModel):
    """See the top of this module. Safe to use from several threads; opened at first use.

    `adapters`: folders of LoRA adapters by name, which a call chooses with `model="NAME"`. `extra`: other
    fields of vLLM's SamplingParams; `engine`: options of `vllm.LLM` (max_model_len, gpu_memory_utilization,
    enforce_eager, logits_processors …).
    """

    model_config = ConfigDict(populate_by_name=True)

    constrains: ClassVar[bool] = True  # it takes `structured_outputs`

    model_name: str = Field(alias="model")
    adapters: dict[str, str] = Field(default_factory=dict)
    n: int = Field(default=1, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    logprobs: bool = False
    extra: dict[str, Any] = Field(default_factory=dict)
    engine: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "vllm-local"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "temperature": self.temperature}

    @cached_property
    def running(self) -> Engine:
        """The engine."""
        return Engine(self.model_name, self.adapters, self.engine)

    @property
    def context_window(self) -> int:
        """Tokens of a prompt and its output together."""
        return self.running.window

    def count_prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Tokens of a prompt in the model's chat template. Raises ModelError."""
        return self.running.count(_openai(messages))

    def close(self) -> None:
        """Give back the engine's memory; the next call opens it again."""
        self.running.close()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        job, name = self._job(messages, stop, kwargs)
        self.running.submit([job])
        self.running.run()
        return result_of(reply_of(job.result.result(), name))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if not self.running.is_open:
            await asyncio.to_thread(self.running.opened)
        job, name = self._job(messages, stop, kwargs)
        self.running.submit([job])
        await asyncio.to_thread(self.running.run)
        return result_of(reply_of(await asyncio.wrap_future(job.result), name))

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """All inputs in one run of the engine, where no `max_concurrency` says otherwise."""
        given = config if isinstance(config, list) else [config or {}] * len(inputs)
        wide: list[RunnableConfig] = [{"max_concurrency": AT_ONCE, **one} for one in given]
        return super().batch(inputs, wide, return_exceptions=return_exceptions, **kwargs)

    def score(self, prompt: str, continuations: Sequence[str]) -> list[Score]:
        """Log-probabilities of continuations of a prompt (`agentmtl.experts.scoring.Scorer`)."""
        return self.score_pairs([(prompt, continuation) for continuation in continuations])

    def score_pairs(self, pairs: Sequence[Pair], adapter: str = "") -> list[Score]:
        """The same for (prompt, continuation) pairs, in one run; by an adapter where one is named."""
        refuse_where_forbidden(self.model_name)
        from vllm import SamplingParams

        texts = texts_to_score(pairs)
        params = [SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0) for _ in texts]
        jobs = [Job(p, text=text, adapter=adapter) for p, text in zip(params, texts, strict=True)]
        step = 1 if self.running.one_at_a_time else len(jobs)
        for start in range(0, len(jobs), max(1, step)):
            self.running.submit(jobs[start : start + step])
            self.running.run()
        read = {job.text: token_scores_of(job.result.result()) for job in jobs}
        return [score_of(read[prompt], read[prompt + continuation]) for prompt, continuation in pairs]

    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """The model with an output that is constrained to a schema, parsed and checked against it.

        "json_schema" (default) or "json_mode": in process no tool calls are parsed.
        """
        if method == "function_calling":
            raise UsageError("In process no tool calls are parsed.", "Leave method out.")
        return constrained(self, schema, method, include_raw)

    def _job(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
    ) -> tuple[Job, str]:
        """The request, and the name of the model that answers it."""
        check_options(options)
        given: dict[str, Any] = {
            "n": self.n, "temperature": self.temperature, "top_p": self.top_p,
            "max_tokens": self.max_tokens, "seed": self.seed, "stop": stop or self.stop,
            "logprobs": self.logprobs, **self.extra, **known_options(options),
        }  # fmt: skip
        name = str(given.pop("model", None) or self.model_name)
        template = given.pop("chat_template_kwargs", None) or {}
        params = sampling_params(given, self.running.defaults)
        adapter = "" if name == self.model_name else name
        return Job(params, _openai(messages), adapter=adapter, template=template), name

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        return sum_of_usages(llm_outputs)


def sampling_params(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """vLLM's SamplingParams of a request in the form of the server's. Raises UsageError for what vLLM does
    not know."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    fields = dict(given)
    wanted, top = fields.pop("logprobs", None), fields.pop("top_logprobs", None)
    if wanted or top:
        fields["logprobs"] = int(top or 0)
    constraint = fields.pop("structured_outputs", None) or _constraint(fields.pop("response_format", None))
    fields["extra_args"] = fields.pop("vllm_xargs", fields.pop("extra_args", None))
    kept = {name: value for name, value in fields.items() if value is not None}
    try:
        if constraint:
            kept["structured_outputs"] = StructuredOutputsParams(**constraint)
        return SamplingParams(**{"max_tokens": None, **defaults, **kept})
    except TypeError as error:
        raise UsageError(f"vLLM knows no such option: {error}.", "Leave it out.") from error
    except Exception as error:  # vLLM has an error of its own, which moved between versions
        raise UsageError(f"vLLM refuses an option: {error}.", "Change it.") from error


def _constraint(response_format: Mapping[str, Any] | None) -> dict[str, Any]:
    if response_format is None or response_format.get("type") == "text":
        return {}
    if response_format.get("type") == "json_object":
        return {"json_object": True}
    return {"json": response_format["json_schema"]["schema"]}


def _openai(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    found: Any = convert_to_openai_messages(list(messages))
    return list(found)


def reply_of(output: Any, model: str) -> dict[str, Any]:
    """What the engine gave, in the form of a server's reply."""
    choices = [
        {
            "index": sample.index,
            "message": {"role": "assistant", "content": sample.text},
            "finish_reason": sample.finish_reason,
            "logprobs": _logprobs(sample),
        }
        for sample in sorted(output.outputs, key=lambda sample: int(sample.index))
    ]
    prompt, written = len(output.prompt_token_ids), sum(len(s.token_ids) for s in output.outputs)
    return {
        "id": f"local-{output.request_id}", "model": model, "choices": choices,
        "usage": {
            "prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": output.num_cached_tokens or 0},
        },
    }  # fmt: skip


def _logprobs(sample: Any) -> dict[str, Any] | None:
    if sample.logprobs is None:
        return None
    content = []
    for token, entry in zip(sample.token_ids, sample.logprobs, strict=True):
        told = [{"token": one.decoded_token or "", "logprob": one.logprob} for one in entry.values()]
        chosen = entry[token]
        content.append({"token": chosen.decoded_token or "", "logprob": chosen.logprob, "top_logprobs": told})
    return {"content": content}


def token_scores_of(output: Any) -> TokenScores:
    """The prompt of an output as the engine read it."""
    ids = tuple(int(token) for token in output.prompt_token_ids)
    told = output.prompt_logprobs or []
    values = (float(e[t].logprob) if e else None for t, e in zip(ids, told, strict=True))
    return TokenScores(ids, tuple(values))
