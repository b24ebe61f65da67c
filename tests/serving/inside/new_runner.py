"""Runs where vLLM is: the V2 runner's loader, states and contexts around the identifiers' processor.

Prints what the test compares with the index. Slot 4 asks for keys, slot 2 for nothing, slot 7 for keys while
it checks two drafts, so that it owns three rows. A slot that is taken over by a request that asks for nothing
is free again.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch
import vllm.v1.worker.cpu.shm  # noqa: F401 - vLLM's own stand-ins for what needs a GPU
from transformers import AutoConfig, AutoTokenizer
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.worker.gpu.sample.logits_processor import (
    LogitsContext,
    build_custom_logits_processors,
    build_custom_logits_processors_params_validator,
)
from vllm.v1.worker.gpu.states import RequestState

NAME = "agentmtl.integrations.vllm_identifiers:IdentifierLogitsProcessor"
PROMPT = [5, 6, 7]
TEXT = "The lighthouse of Tarn was built by Mira Holm in 1871."  # of the index
KEYS, PLAIN, DRAFTS = 4, 2, 7  # slots


def main(model: str) -> None:
    config = AutoConfig.from_pretrained(model)
    vocabulary = int(config.vocab_size)
    states = RequestState(16, 64, 256, 2, vocabulary, torch.device("cpu"))
    served = SimpleNamespace(model_config=SimpleNamespace(tokenizer=model, model=model, hf_config=config))
    (processor,) = build_custom_logits_processors(served, states, False, [NAME])
    asking = SamplingParams(extra_args={"identifiers": True, "longest": 6})
    asks = [processor.add_request(slot, p) for slot, p in
            ((KEYS, asking), (PLAIN, SamplingParams()), (DRAFTS, asking))]  # fmt: skip
    processor.apply_staged_writes()

    def apply(committed: dict[int, list[int]], drafts: list[int]) -> torch.Tensor:
        """One step's logits. Rows: PLAIN, KEYS, DRAFTS and one for each draft."""
        for slot in (KEYS, PLAIN, DRAFTS):
            tokens = PROMPT + committed[slot]
            states.prompt_len.np[slot] = len(PROMPT)
            states.all_token_ids.gpu[slot, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
            states.total_len.gpu[slot] = len(tokens)
        slots = [PLAIN, KEYS] + [DRAFTS] * (1 + len(drafts))
        places = [0, 0, *range(1 + len(drafts))]
        inputs = [(PROMPT + committed[slot])[-1] for slot in (PLAIN, KEYS, DRAFTS)] + drafts
        context = LogitsContext(
            expanded_idx_mapping=torch.tensor(slots, dtype=torch.int32),
            idx_mapping=torch.tensor([PLAIN, KEYS, DRAFTS], dtype=torch.int32),
            idx_mapping_np=np.array([PLAIN, KEYS, DRAFTS], np.int32),
            expanded_local_pos=torch.tensor(places, dtype=torch.int32),
            input_ids=torch.tensor(inputs, dtype=torch.int32),
            pos=torch.tensor(
                [len(PROMPT + committed[s]) - 1 + p for s, p in zip(slots, places, strict=True)]
            ),
            seq_lens_upper_bound_np=np.array([64, 64, 64], np.int32),
        )
        return processor.apply(torch.zeros(len(slots), vocabulary), context)

    def kept(row: torch.Tensor) -> list[int]:
        return torch.isfinite(row).nonzero().flatten().tolist()

    words = AutoTokenizer.from_pretrained(model)(TEXT, add_special_tokens=False)["input_ids"]
    key, steps = [], []
    for token in words[:3]:  # a key of the corpus grows
        logits = apply({KEYS: key, PLAIN: [9], DRAFTS: []}, [])
        steps.append((list(key), kept(logits[1])))
        assert token in steps[-1][1]
        key.append(token)
    logits = apply({KEYS: [], PLAIN: [9], DRAFTS: key[:1]}, key[1:3])
    steps += [(key[: 1 + row], kept(logits[2 + row])) for row in range(3)]
    free = len(kept(logits[0]))
    processor.add_request(KEYS, SamplingParams())
    reused = len(kept(apply({KEYS: [], PLAIN: [], DRAFTS: []}, [])[1]))
    print(json.dumps({
        "made": type(processor).__name__, "asks": asks, "steps": steps, "stop": config.eos_token_id,
        "free": free, "reused": reused, "vocabulary": vocabulary, "refused": refusals(),
    }))  # fmt: skip


def refusals() -> list[str]:
    """What the V2 front end says to bad arguments."""
    check = build_custom_logits_processors_params_validator([NAME])
    check(SamplingParams(extra_args={"identifiers": True}))
    check(SamplingParams())
    try:
        check(SamplingParams(extra_args={"identifiers": True, "longest": 0}))
    except VLLMValidationError as error:
        return [str(error)]
    return []


if __name__ == "__main__":
    main(sys.argv[1])
