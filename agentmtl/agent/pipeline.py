"""The agent's stages as data, for whoever shares compute out among them."""

from __future__ import annotations

from agentmtl.retrieval.hops.evidence import EVIDENCE
from agentmtl.schema import Stage

# What an Allocation may give to: those of the evidence, those that can use a model, and those that can use
# more of it.
PIPELINE = (
    *EVIDENCE,
    Stage("rewrite"),
    Stage("hop", samples=(0, 1, 2, 3)),
    Stage("sample", samples=(1, 3, 5, 8, 16, 32, 64)),
    Stage("aggregate", samples=(1, 2, 3, 4)),
    Stage("judge"),
)
