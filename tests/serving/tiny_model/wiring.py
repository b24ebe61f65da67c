"""How the network starts: able to copy.

A head that looks at the token before, and heads of the next layer that look for what came after the same
token earlier, together continue a text that repeats itself (induction heads: Elhage et al. 2021 and Olsson et
al. 2022, transformer-circuits.pub). Left to itself a small network finds them after some million tokens; here
they are written into its first two layers, and training goes on from there. All later heads begin by
repeating a little of what they attend to, wherever that is.
"""

from __future__ import annotations

from math import sqrt

import torch
from transformers import LlamaForCausalLM

_EMBEDDING = 0.08  # standard deviation
_QUIET = 0.25  # of what all other parts add at first
_SHARP = 60.0  # how sure the first layer's head is of the token before
_FAST = 5  # its frequencies of rotary position: the highest, which tell neighbours apart
_MATCH = 1.7  # how sure the second layer's heads are of a token that is the same
_COPIES = 0.05  # what a head of a later layer repeats of what it attends to
_WRITES = 0.1  # what both add to the stream, in units of its normalised size


@torch.no_grad()
def wire(model: LlamaForCausalLM) -> None:
    """Changes the weights of the first two layers of a new model with `attention_bias`."""
    model.model.embed_tokens.weight.normal_(0, _EMBEDDING)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(_QUIET)
        layer.mlp.down_proj.weight.mul_(_QUIET)
    size = int(model.config.head_dim)
    heads, hidden = model.config.num_attention_heads, model.config.hidden_size
    parts = torch.linalg.qr(torch.randn(hidden, hidden))[0].T.reshape(heads, size, hidden)
    _look_back(model.model.layers[0].self_attn, parts, size)
    _look_for_same(model.model.layers[1].self_attn, parts, size)
    for layer in model.model.layers[2:]:
        for head, part in enumerate(parts):
            rows = slice(head * size, (head + 1) * size)
            layer.self_attn.v_proj.weight[rows] = part
            layer.self_attn.o_proj.weight[:, rows] = _COPIES * part.T


def _look_back(attention: torch.nn.Module, parts: torch.Tensor, size: int) -> None:
    """The first head attends to the token before, by biases that rotary position turns into a peak there, and
    writes the first part of that token into the last part of the stream."""
    rates = 10000.0 ** (-torch.arange(_FAST) * 2.0 / size)
    half = size // 2
    attention.q_proj.weight[:size] *= 0.1
    attention.k_proj.weight[:size] *= 0.1
    attention.k_proj.bias[:_FAST] = sqrt(_SHARP)
    attention.q_proj.bias[:_FAST] = sqrt(_SHARP) * torch.cos(rates)
    attention.q_proj.bias[half : half + _FAST] = -sqrt(_SHARP) * torch.sin(rates)
    attention.v_proj.weight[:size] = parts[0]
    attention.o_proj.weight[:, :size] = _WRITES * parts[-1].T


def _look_for_same(attention: torch.nn.Module, parts: torch.Tensor, size: int) -> None:
    """All heads attend to where the token before is this one, and each copies its part of what stands there.
    Only low frequencies compare: they hardly turn within a prompt."""
    quarter, half = size // 4, size // 2
    slow = [*range(quarter, half), *range(half + quarter, size)]
    for head, part in enumerate(parts):
        rows = slice(head * size, (head + 1) * size)
        for projection, compared in ((attention.q_proj, parts[0]), (attention.k_proj, parts[-1])):
            wired = torch.zeros_like(part)
            wired[slow] = _MATCH * compared[:half]
            projection.weight[rows] = wired
        attention.v_proj.weight[rows] = part
        attention.o_proj.weight[:, rows] = _WRITES * part.T
