"""The transformer in torch: bf16 or fp32, pooling and normalising in fp32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.trunk.encoder import Vectors
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.tokens import Batch

if TYPE_CHECKING:
    import torch

_BUDGET = 4096


class TorchNetwork:
    """Runs batches one after the other; torch itself spreads each over the cores."""

    workers = 1
    budget = _BUDGET
    multiple = 1

    def __init__(self, files: ModelFiles, bf16: bool) -> None:
        self.module = pooled_module(files, bf16)

    def run(self, batches: Iterable[Batch], out: Vectors) -> None:
        """Writes the pooled vectors of each batch to `out[batch.rows]`."""
        import torch

        with torch.inference_mode():
            for batch in batches:
                vectors = self.module(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
                out[batch.rows] = np.asarray(vectors.numpy(), dtype=np.float32)


def pooled_module(files: ModelFiles, bf16: bool) -> torch.nn.Module:
    """A module (ids, mask) → pooled vectors in fp32. Raises EncoderError where the files do not load."""
    import torch

    transformer = load_transformer(files, torch.bfloat16 if bf16 else torch.float32)
    first_token = files.identity.pooling == "cls"
    normalised = files.identity.normalised

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            hidden = hidden.float()
            if first_token:
                pooled = hidden[:, 0]
            else:
                weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, dim=1) if normalised else pooled

    return Pooled().eval()


def load_transformer(files: ModelFiles, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """The bare transformer; `attention`: "sdpa", the fastest forward pass, or "eager", which trains faster on
    CPUs. Raises EncoderError where the files do not load."""
    try:
        from transformers import AutoModel

        with quiet_transformers():
            return AutoModel.from_pretrained(
                str(files.folder),
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                attn_implementation=attention,
            )
    except ImportError as error:
        raise EncoderError(f"transformers cannot be imported: {error}.", "pip install agentmtl") from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise EncoderError(
            f"The model {files.folder} cannot be loaded: {error}.", "Install the model again."
        ) from error


def first_layers(transformer: Any, layers: int) -> Any:
    """The transformer with its first `layers` layers (0: all). Raises EncoderError where it has fewer."""
    stack = getattr(getattr(transformer, "encoder", None), "layer", None)
    if not layers:
        return transformer
    if stack is None or layers > len(stack):
        raise EncoderError(f"The trunk has no {layers} layers to read.", "Give --layers 0 for all of them.")
    transformer.encoder.layer = stack[:layers]
    transformer.config.num_hidden_layers = layers
    return transformer


def only_first_token(transformer: Any) -> Any:
    """The transformer with only the first token out of its last layer, (n, 1, d), which is what it was.

    That layer then costs a sixth: keys and values of all tokens, the rest for one. One of another family than
    BERT is left as it is.
    """
    import torch

    stack = getattr(getattr(transformer, "encoder", None), "layer", None)
    last: Any = stack[-1] if stack is not None else None
    if not all(hasattr(last, part) for part in ("attention", "intermediate", "output")):
        return transformer

    def forward(hidden: torch.Tensor, mask: torch.Tensor | None = None, *_: Any, **__: Any) -> torch.Tensor:
        attention = last.attention.self
        first, shape = hidden[:, :1], (hidden.shape[0], -1, attention.num_attention_heads)
        query, key, value = (
            layer(x).view(*shape, attention.attention_head_size).transpose(1, 2)
            for layer, x in ((attention.query, first), (attention.key, hidden), (attention.value, hidden))
        )
        mask = None if mask is None else mask[:, :, :1]
        context = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        context = context.transpose(1, 2).reshape(hidden.shape[0], 1, -1)
        attended = last.attention.output(context, first)
        found: torch.Tensor = last.output(last.intermediate(attended), attended)
        return found

    last.forward = forward  # not another module, so that its layers keep their names
    return transformer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no advice from transformers inside; the settings found are put back."""
    from transformers.utils import logging as untyped

    messages: Any = untyped
    bar, verbosity = messages.is_progress_bar_enabled(), messages.get_verbosity()
    messages.disable_progress_bar()
    messages.set_verbosity_error()
    try:
        yield
    finally:
        messages.set_verbosity(verbosity)
        if bar:
            messages.enable_progress_bar()
