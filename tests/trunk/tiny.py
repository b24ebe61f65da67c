"""A trunk so small that it can be trained in a test: two layers of 32, with the default model's tokeniser."""

from __future__ import annotations

import shutil
from pathlib import Path

from agentmtl.trunk.heads import Head, HeadCard, save_head
from agentmtl.trunk.loading import packaged_model
from agentmtl.trunk.model_files import ModelFiles, read_model_files


def tiny_trunk(folder: Path, seed: int = 0) -> ModelFiles:
    """Written to `folder`, with weights drawn from the seed."""
    import torch
    from transformers import BertConfig, BertModel

    source = packaged_model()
    assert source is not None
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        vocab_size=30522, max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    return read_model_files(folder, str(folder), folder / "cache")


def random_head(files: ModelFiles, rank: int = 4, seed: int = 1) -> Head:
    """A reader's head drawn from the seed, large enough to matter; it says neither yes nor no."""
    import torch

    from agentmtl.experts.reading import KIND, OUTPUTS
    from agentmtl.trunk.head_module import adapters_of, outputs_of, trainable_module

    module = trainable_module(files, OUTPUTS, rank, 2.0, 0.0, seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name or name.startswith("outputs"):
                parameter.normal_(0, 0.3)
        kind = module.outputs[KIND]  # type: ignore[index]
        kind.bias.copy_(torch.tensor([40.0, 0.0, 0.0]))  # type: ignore[operator, union-attr]
    card = HeadCard(
        task="reader", trunk=files.identity.weights, trunk_name=files.identity.name, rank=rank, scale=2.0,
        max_length=64, outputs=OUTPUTS,
        calibration={"answerable": [0.5, 0.0, 0.0, 0.0], "right": [0.5, 0.1, 0.0, -1.0], "threshold": 0.3},
    )  # fmt: skip
    return Head(card, adapters_of(module), outputs_of(module))


def embedding_head(files: ModelFiles, folder: Path, instruct: bool = True, seed: int = 1) -> Path:
    """A head for demonstrations drawn from the seed, saved to `folder`."""
    import torch

    from agentmtl.trunk.head_module import adapters_of, outputs_of, trainable_module
    from agentmtl.trunk.headed import VECTOR

    outputs = {VECTOR: files.identity.dimension}
    module = trainable_module(files, outputs, 4, 2.0, 0.0, seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name or name.startswith("outputs"):
                parameter.normal_(0, 0.3)
    card = HeadCard(
        task="demonstrations", trunk=files.identity.weights, trunk_name=files.identity.name, rank=4,
        scale=2.0, max_length=64, outputs=outputs, calibration={"instruct": instruct},
    )  # fmt: skip
    save_head(Head(card, adapters_of(module), outputs_of(module)), folder)
    return folder
