"""The engine in process: it answers as a server does, and many at once in one run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agentmtl import Index
from agentmtl.integrations.chat_vllm import ChatVLLM

from .server import ADAPTERS, MODEL, ROOT, environment

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def inside(vllm: Path, *arguments: str, **more: str) -> str:
    """What a program says that is run where vLLM is. Nothing but its answer may be on stdout."""
    done = subprocess.run(
        [str(vllm), *arguments], cwd=ROOT, env=environment(**more), capture_output=True, text=True,
        timeout=540, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def told(vllm: Path) -> dict[str, Any]:
    script = str(ROOT / "tests" / "serving" / "inside" / "local_model.py")
    found: dict[str, Any] = json.loads(inside(vllm, script, str(MODEL), str(ADAPTERS / "tickets")))
    return found


def test_it_answers_as_the_server_does(told: dict[str, Any], chat: ChatVLLM) -> None:
    asked = "Who built the lighthouse of Tarn?"
    for name, mine in (("tiny", told["greedy"]), ("tickets", told["adapter"])):
        theirs = chat.invoke(asked, model=name, max_tokens=12, logprobs=True)
        assert mine["text"] == theirs.text
        usage: Any = theirs.usage_metadata
        assert mine["usage"]["input_tokens"] == usage["input_tokens"] == told["counted"]
        assert mine["usage"]["output_tokens"] == usage["output_tokens"] == len(mine["logprobs"])
        expected = [token["logprob"] for token in theirs.response_metadata["logprobs"]["content"]]
        assert mine["logprobs"] == pytest.approx(expected, abs=0.1)
    assert told["window"] == chat.context_window


def test_many_are_answered_in_few_runs_of_the_engine(told: dict[str, Any]) -> None:
    assert told["batch"] == sum(told["runs"]) == 60 and len(told["runs"]) <= 4
    assert told["async"] == 40


def test_samples_constraints_and_schemas(told: dict[str, Any]) -> None:
    assert len(told["sampled"]) == 5 and len(set(told["sampled"])) > 1
    assert told["usage"]["prompt_tokens"] == told["counted"] and told["usage"]["completion_tokens"] >= 5
    assert set(told["choice"]) <= {"yes", "no"} and set(told["ticket"]) == {"status", "urgent"}


def test_what_cannot_be_is_refused_alone(told: dict[str, Any]) -> None:
    reasons = ["no adapter 'nobody'", "no_such_option", "guided_choice", "temperature", "empty list"]
    for error, says in zip(told["errors"], reasons, strict=True):
        assert says in error and error.startswith(("UsageError: ", "ModelError: ")), error
    assert told["mixed"] == ["AIMessage", "ModelError", "AIMessage"]


def test_scores_are_those_of_the_server(told: dict[str, Any], spare_chat: ChatVLLM) -> None:
    prompt, said = "The lighthouse of Tarn was built by", [" Mira Holm.", " Jonas Berg."]
    theirs = spare_chat.score(prompt, said)
    assert told["scorer"] and [tokens for _, tokens in told["scores"]] == [one.tokens for one in theirs]
    assert [logprob for logprob, _ in told["scores"]] == pytest.approx([s.logprob for s in theirs], abs=0.2)
    assert told["adapter_scores"][0] != pytest.approx(told["scores"][0][0], abs=1e-3)
    assert told["nearly"] >= 1 and told["closed"]


def test_a_file_of_questions_is_answered_in_process(vllm: Path, notes: Index, tmp_path: Path) -> None:
    lines = [json.dumps({"id": n, "question": f"Who built the lighthouse number {n}?"}) for n in range(12)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    said = inside(
        vllm, "-m", "agentmtl", "run", str(tmp_path / "q.jsonl"), "--index", str(notes.folder), "--llm",
        f"vllm-local:{MODEL}", "--concurrency", "12", "--max-tokens", "8", "--hops", "1", "--no-log",
    )  # fmt: skip
    answers = [json.loads(line) for line in said.splitlines()]
    assert {answer["id"] for answer in answers} == {str(n) for n in range(12)}
    assert all(answer["usage"]["calls"] >= 1 for answer in answers)
