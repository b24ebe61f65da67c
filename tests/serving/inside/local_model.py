"""Runs where vLLM is: LocalVLLM over the tiny model and an adapter. Prints what the test looks at."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from agentmtl.errors import AgentmtlError
from agentmtl.experts.scoring import Scorer
from agentmtl.integrations.vllm_local import LocalVLLM

ASKED = "Who built the lighthouse of Tarn?"
PROMPT, SAID = "The lighthouse of Tarn was built by", [" Mira Holm.", " Jonas Berg."]


class Ticket(BaseModel):
    """A support ticket."""

    status: Literal["open", "waiting", "closed"]
    urgent: bool


def main(folder: str, adapter: str) -> None:
    model = LocalVLLM(
        model=folder, adapters={"tickets": adapter}, temperature=0, max_tokens=12, logprobs=True,
        engine={"max_model_len": 1024, "structured_outputs_config": {
            "backend": "xgrammar", "disable_any_whitespace": True}},
    )  # fmt: skip
    told: dict[str, Any] = {"scorer": isinstance(model, Scorer)}
    told["window"] = model.context_window
    told["counted"] = model.count_prompt_tokens([HumanMessage(ASKED)])
    told["greedy"] = shown(model.invoke(ASKED))
    told["adapter"] = shown(model.invoke(ASKED, model="tickets"))
    told["runs"], told["batch"] = batched(model)
    told["async"] = asyncio.run(at_once(model))
    sampled = model.generate([[HumanMessage(ASKED)]], n=5, temperature=1.0, seed=7)
    told["sampled"] = [sample.text for sample in sampled.generations[0]]
    told["usage"] = sampled.llm_output["token_usage"]  # type: ignore[index]
    told["choice"] = [
        model.invoke(ASKED, structured_outputs={"choice": ["yes", "no"]}, model=name).text
        for name in (folder, "tickets")
    ]
    ticket: Any = model.with_structured_output(Ticket).invoke(ASKED, max_tokens=64)
    told["ticket"] = ticket.model_dump()
    told["errors"] = refusals(model)
    told["mixed"] = mixed(model)
    told["scores"] = [[score.logprob, score.tokens] for score in model.score(PROMPT, SAID)]
    told["adapter_scores"] = [s.logprob for s in model.score_pairs([(PROMPT, SAID[0])], adapter="tickets")]
    told["nearly"] = model.score_pairs([(f"Question {n}?", " Yes.") for n in range(9)])[3].tokens
    model.close()
    told["closed"] = not model.running.is_open
    print(json.dumps(told))


def shown(message: Any) -> dict[str, Any]:
    logprobs = [token["logprob"] for token in message.response_metadata["logprobs"]["content"]]
    return {"text": message.text, "usage": message.usage_metadata, "logprobs": logprobs}


def batched(model: LocalVLLM) -> tuple[list[int], int]:
    """How many requests each run of the engine had while a batch was answered, and the answers."""
    sizes: list[int] = []
    outputs = model.running._outputs

    def counting(jobs: Any) -> Any:
        sizes.append(len(jobs))
        return outputs(jobs)

    model.running._outputs = counting  # type: ignore[method-assign]
    answers = model.batch([f"Question {n}?" for n in range(60)])
    model.running._outputs = outputs  # type: ignore[method-assign]
    return sizes, len(answers)


async def at_once(model: LocalVLLM) -> int:
    return len(await asyncio.gather(*(model.ainvoke(f"Question {n}?") for n in range(40))))


def refusals(model: LocalVLLM) -> list[str]:
    """What is said of requests that cannot be."""
    found = []
    for options in (
        {"model": "nobody"}, {"no_such_option": 1}, {"guided_choice": ["a"]}, {"temperature": -3.0},
        {"structured_outputs": {"choice": []}},
    ):  # fmt: skip
        try:
            model.invoke(ASKED, **options)  # type: ignore[arg-type]
        except AgentmtlError as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def mixed(model: LocalVLLM) -> list[str]:
    """A prompt that does not fit among some that do."""
    found = model.batch(["a", "word " * 3000, "b"], return_exceptions=True)
    return [type(one).__name__ for one in found]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
