"""Training with the trunk frozen: only the layer over its token means learns, and each text is read once.

What a head can learn so is less than with adapters, and costs minutes instead of hours on two cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentmtl.learn.distil import as_the_trunk
from agentmtl.trunk.headed import VECTOR
from agentmtl.trunk.heads import Head
from agentmtl.trunk.means import TokenMeans

if TYPE_CHECKING:
    import torch


def means_module(means: TokenMeans, width: int, head: Head | None = None) -> Any:
    """A module (n, width) → {"vector": (n, width)} over token means, by which `agentmtl.learn.encoder` reads
    texts. It begins as the trunk, or as a head without adapters."""
    import torch

    class Means(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.means = means
            self.first_only = False
            self.outputs = torch.nn.ModuleDict({VECTOR: torch.nn.Linear(width, width)})

        def forward(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
            return {name: output(rows) for name, output in self.outputs.items()}

    module: Any = as_the_trunk(Means())
    if head is not None:
        with torch.no_grad():
            for part, values in zip(("weight", "bias"), head.outputs[VECTOR], strict=True):
                getattr(module.outputs[VECTOR], part).copy_(torch.from_numpy(values))
    return module
