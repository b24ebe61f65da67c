"""Training the base and its adapters on one processor core, in bfloat16 with float32 masters.

Matrices of the layers are trained with Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), the rest
with AdamW. A run writes a checkpoint every so often and can go on from it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, GenerationConfig, LlamaConfig, LlamaForCausalLM

from tests.serving.tiny_model.batches import Batch, Encoder, batch_of, batches, examples, pool, spelled_out
from tests.serving.tiny_model.recipe import (
    ADAPTER,
    ADAPTER_SHARES,
    BASE_SHARES,
    MAKERS,
    RECIPE,
    SHAPE,
    Recipe,
    most_documents,
)
from tests.serving.tiny_model.tokenizer import END, PAD, save_tokenizer, train_tokenizer
from tests.serving.tiny_model.wiring import wire
from tests.serving.tiny_model.world import World

_TELL, _KEEP, _LOOK = 25, 100, 400  # steps between lines, checkpoints, looks at held-out names
_TEXTS = 8000
_FLOAT32 = "causal-float32"
_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def new_tokenizer(seed: int) -> Tokenizer:
    """Trained on rendered prompts of all kinds."""
    world = World(random.Random(seed), held_out=False, strange=0.0)
    made = examples(world, dict.fromkeys(MAKERS, 1.0), 4)
    texts = []
    for _, example in zip(range(_TEXTS), made, strict=False):
        texts.append("\n".join([*(m["content"] for m in example.messages), example.target]))
    return train_tokenizer(texts, SHAPE.vocabulary)


def new_model(tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SHAPE.vocabulary, hidden_size=SHAPE.hidden, intermediate_size=SHAPE.inner,
            num_hidden_layers=SHAPE.layers, num_attention_heads=SHAPE.heads,
            num_key_value_heads=SHAPE.heads, head_dim=SHAPE.hidden // SHAPE.heads,
            max_position_embeddings=SHAPE.longest, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=end, pad_token_id=pad, initializer_range=0.04, attention_bias=True,
        )
    )  # fmt: skip
    wire(model)
    model.set_attn_implementation(_FLOAT32)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    return model.to(torch.bfloat16)


def _attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any,
    scaling: float | None = None, dropout: float = 0.0, **others: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Causal attention in float32, which one core computes faster than bfloat16. Padding is at the end, where
    nothing looks."""
    found = scaled_dot_product_attention(
        query.float(), key.float(), value.float(), is_causal=True, scale=scaling
    )
    return found.transpose(1, 2).to(query.dtype).contiguous(), None


AttentionInterface.register(_FLOAT32, _attention)


class Masters:
    """float32 copies of a model's parameters, which the optimizers move."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._pairs = [(p, torch.nn.Parameter(p.detach().float().clone())) for _, p in named]
        layers = [m for (name, p), (_, m) in zip(named, self._pairs, strict=True) if _is_layer(name, p)]
        chosen = {id(m) for m in layers}
        rest = [m for _, m in self._pairs if id(m) not in chosen]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=recipe.adamw, betas=(0.9, 0.98), weight_decay=0.0)
        ]
        if layers:
            self.optimizers.append(torch.optim.Muon(layers, lr=recipe.muon, weight_decay=0.01))
        self._highest = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]

    def step(self, share: float) -> None:
        """One step with `share` of the highest learning rates."""
        for parameter, master in self._pairs:
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_([m for _, m in self._pairs], 1.0)
        for optimizer, highest in zip(self.optimizers, self._highest, strict=True):
            optimizer.param_groups[0]["lr"] = highest * share
            optimizer.step()
        with torch.no_grad():
            for parameter, master in self._pairs:
                parameter.copy_(master)

    def state(self) -> dict[str, Any]:
        return {
            "masters": [m.data for _, m in self._pairs],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for (parameter, master), kept in zip(self._pairs, state["masters"], strict=True):
                master.copy_(kept)
                parameter.copy_(kept)
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)


def _is_layer(name: str, parameter: torch.nn.Parameter) -> bool:
    return parameter.ndim == 2 and ".layers." in name and "lora" not in name


def loss_of(model: torch.nn.Module, batch: Batch, prompt_loss: float) -> torch.Tensor:
    """The mean over the answers' tokens plus `prompt_loss` times the mean over the prompts'."""
    logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1].float()
    each = cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    answer, prompt = batch.answer[:, 1:].flatten(), batch.prompt[:, 1:].flatten()
    return each[answer].mean() + prompt_loss * each[prompt].mean()


def schedule(step: int, steps: int, warm_up: int, cool_down: float) -> float:
    """The share of the highest learning rate: up, level, down to 0."""
    return min(1.0, (step + 1) / warm_up, max(0.0, steps - step) / (steps * cool_down))


def train_base(work: Path, recipe: Recipe = RECIPE) -> LlamaForCausalLM:
    """Trains, or goes on, in the folder `work`; the model and its tokenizer lie there as files in the end."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer_file, kept = work / "tokenizer-trained.json", work / "checkpoint.pt"
    tokenizer = (
        Tokenizer.from_file(str(tokenizer_file)) if tokenizer_file.exists() else new_tokenizer(recipe.seed)
    )
    tokenizer.save(str(tokenizer_file))
    model = new_model(tokenizer, recipe.seed)
    masters, start = Masters(model, recipe), 0
    if kept.exists():
        state = torch.load(kept)
        masters.load(state["masters"])
        start = state["step"]
    train(model, masters, tokenizer, recipe, start, kept)
    save_base(model, tokenizer, work / "model")
    return model


def train(
    model: torch.nn.Module, masters: Masters, tokenizer: Tokenizer, recipe: Recipe, start: int, kept: Path
) -> None:
    encoders = Encoder(tokenizer), Encoder(spelled_out(tokenizer))
    print(f"seed {recipe.seed}, from step {start} of {recipe.steps}", flush=True)
    stream = _stream(encoders, recipe, start)
    began, told = time.monotonic(), 0.0
    for step in range(start, recipe.steps):
        loss = loss_of(model, next(stream), recipe.prompt_loss * (0.3 if step > recipe.steps / 2 else 1))
        loss.backward()
        masters.step(schedule(step, recipe.steps, recipe.warm_up, recipe.cool_down))
        told += loss.item()
        if (step + 1) % _TELL == 0:
            print(f"{step + 1} loss {told / _TELL:.3f} {time.monotonic() - began:.0f} s", flush=True)
            told = 0.0
        if (step + 1) % _KEEP == 0:
            torch.save({"masters": masters.state(), "step": step + 1}, kept.with_suffix(".new"))
            kept.with_suffix(".new").replace(kept)
        if (step + 1) % _LOOK == 0:
            print(look(model, encoders[0], dict.fromkeys(BASE_SHARES, 1.0), 40), flush=True)


def _stream(encoders: tuple[Encoder, Encoder], recipe: Recipe, start: int) -> Iterator[Batch]:
    """Batches from `start` on. A run that goes on sees other examples than one in a single go."""
    world = World(random.Random(recipe.seed * 100_003 + start), held_out=False)
    step = start
    while True:
        most = most_documents(step / recipe.steps)
        found = pool(world, BASE_SHARES, most, encoders, recipe.spelled_out)
        for batch in batches(found, recipe.tokens, encoders[0].pad, world.random):
            yield batch
            step += 1


@torch.no_grad()
def look(model: torch.nn.Module, encoder: Encoder, shares: dict[str, float], each: int, most: int = 4) -> str:
    """The share of right answers for each kind, on names that were held out: right where every token of the
    answer is the likeliest, which is when decoding greedily gives that answer."""
    world = World(random.Random(1), held_out=True)
    found: dict[str, list[bool]] = {}
    for name in shares:
        made = [e for _, e in zip(range(each), examples(world, {name: 1.0}, most), strict=False)]
        batch = batch_of([encoder(replace(example, more=())) for example in made], encoder.pad)
        guesses = model(input_ids=batch.ids, use_cache=False).logits[:, :-1].argmax(-1)
        wrong = (guesses != batch.ids[:, 1:]) & batch.answer[:, 1:]
        for example, bad in zip(made, wrong.any(1).tolist(), strict=True):
            found.setdefault(example.kind, []).append(not bad)
    return "  ".join(f"{kind} {sum(right) / len(right):.2f}" for kind, right in found.items())


def save_base(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, SHAPE.longest)


def train_adapter(base: Path, name: str, out: Path) -> None:
    """Trains the adapter `name` of the saved base and writes it to `out`."""
    from peft import LoraConfig, get_peft_model

    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16, attn_implementation=_FLOAT32)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    torch.manual_seed(ADAPTER.seed)
    lora = LoraConfig(
        r=ADAPTER.rank, lora_alpha=ADAPTER.alpha, target_modules=_PROJECTIONS, task_type="CAUSAL_LM",
        base_model_name_or_path="tiny",
    )  # fmt: skip
    tuned = get_peft_model(model, lora, autocast_adapter_dtype=False)
    masters = Masters(tuned, replace(RECIPE, adamw=ADAPTER.adamw))
    encoders = Encoder(tokenizer), Encoder(spelled_out(tokenizer))
    world = World(random.Random(ADAPTER.seed), held_out=False)
    step, began = 0, time.monotonic()
    while step < ADAPTER.steps:
        found = pool(world, ADAPTER_SHARES[name], 5, encoders, RECIPE.spelled_out)
        for batch in batches(found, ADAPTER.tokens, encoders[0].pad, world.random):
            loss = loss_of(tuned, batch, 0.0)
            loss.backward()
            masters.step(schedule(step, ADAPTER.steps, 20, 0.5))
            step += 1
            if step % _TELL == 0:
                print(f"{name} {step} loss {loss.item():.3f} {time.monotonic() - began:.0f} s", flush=True)
    print(look(tuned, encoders[0], {name: 1.0}, 60), flush=True)
    tuned.save_pretrained(out)
