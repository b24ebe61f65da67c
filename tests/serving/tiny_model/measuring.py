"""Exact match of the saved base and adapters on held-out names, decoding greedily."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.serving.tiny_model.answering import Example
from tests.serving.tiny_model.batches import examples
from tests.serving.tiny_model.recipe import BASE_SHARES
from tests.serving.tiny_model.world import World

ADAPTERS = ("tickets", "places")
_TOGETHER = 25  # prompts
_LONGEST = 48  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Row:
    """`exact`: the share of examples answered word for word, mark included; `name`: without the mark."""

    model: str
    kind: str
    examples: int
    exact: float
    name: float


class Served:
    """The saved base, with or without an adapter."""

    def __init__(self, base: Path, adapter: Path | None = None) -> None:
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(base, padding_side="left")
        model = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
        self.model = model.eval()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())

    @torch.no_grad()
    def __call__(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
        """The replies, decoded greedily."""
        told: list[str] = []
        for start in range(0, len(conversations), _TOGETHER):
            prompts = [
                self.tokenizer.apply_chat_template(list(one), add_generation_prompt=True, tokenize=False)
                for one in conversations[start : start + _TOGETHER]
            ]
            sent = self.tokenizer(prompts, padding=True, return_tensors="pt")
            sent.pop("token_type_ids", None)
            ids = self.model.generate(**sent, max_new_tokens=_LONGEST, do_sample=False)
            said = ids[:, sent["input_ids"].shape[1] :]
            told += self.tokenizer.batch_decode(said, skip_special_tokens=True)
        return told


def held_out(kind: str, count: int, most: int, seed: int = 1) -> list[Example]:
    """Examples of names that are never trained on, with up to `most` documents."""
    made = examples(World(random.Random(seed), held_out=True), {kind: 1.0}, most)
    return [example for _, example in zip(range(count), made, strict=False)]


def measure(base: Path, adapters: Path, count: int, most: int) -> list[Row]:
    """The base on all kinds, those of the adapters included; every adapter on its own."""
    rows = _rows("base", Served(base), [*BASE_SHARES, *ADAPTERS], count, most)
    for name in ADAPTERS:
        rows += _rows(name, Served(base, adapters / name), [name], count, most)
    return rows


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = ["| model | examples of | n | exact | without the mark |", "|---|---|---|---|---|"]
    lines += [f"| {r.model} | {r.kind} | {r.examples} | {r.exact:.2f} | {r.name:.2f} |" for r in rows]
    return "\n".join(lines)


def _rows(model: str, served: Served, kinds: Sequence[str], count: int, most: int) -> list[Row]:
    found: dict[str, list[tuple[bool, bool]]] = {}
    for kind in kinds:
        made = held_out(kind, count * (2 if kind == "answer" else 1), most)
        replies = served([example.messages for example in made])
        for example, reply in zip(made, replies, strict=True):
            right = reply == example.target, _bare(reply) == _bare(example.target)
            found.setdefault(example.kind, []).append(right)
    return [
        Row(model, kind, len(rights), _share([a for a, _ in rights]), _share([b for _, b in rights]))
        for kind, rights in found.items()
    ]


def _bare(text: str) -> str:
    return text.split(" [")[0]


def _share(rights: Sequence[bool]) -> float:
    return sum(rights) / len(rights)
