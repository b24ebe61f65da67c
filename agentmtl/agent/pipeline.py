"""The agent's stages as data, for whoever shares compute out among them."""

from __future__ import annotations

from agentmtl.retrieval.hops.evidence import SEARCHES
from agentmtl.schema import Stage

SETTING = "setting"  # the number is one of the stage, which runs once

# What an Allocation may give to: how the evidence is looked for (the beam's width), how many passages are
# reranked, how many the expert is given; the stages that can use a model, and those that can use more of it.
EVIDENCE = (
    Stage("search", tuple(SEARCHES), (3, 12, 24), SETTING),
    Stage("rerank", ("reranker",), (0, 10, 20), SETTING),
    Stage("read", ("reader",), (1, 2, 4, 8), SETTING),
)
PIPELINE = (
    *EVIDENCE,
    Stage("rewrite"),
    Stage("hop", samples=(0, 1, 2, 3)),
    Stage("sample", samples=(1, 3, 5, 8, 16, 32, 64)),
    Stage("aggregate", samples=(1, 2, 3, 4)),
    Stage("judge"),
)
