"""Every metric by its published name; all as fractions of 1."""

from __future__ import annotations

from agentmtl.evaluate.answer_metrics import (
    RiskCoverage,
    aurc,
    auroc,
    contains_answer,
    ece,
    em,
    f1,
    risk_coverage,
)
from agentmtl.evaluate.ranking_metrics import (
    Ranking,
    TiedGroup,
    all_gold_at,
    mrr_at,
    ndcg_at,
    recall_at,
    tied_groups,
)

__all__ = [
    "Ranking",
    "RiskCoverage",
    "TiedGroup",
    "all_gold_at",
    "aurc",
    "auroc",
    "contains_answer",
    "ece",
    "em",
    "f1",
    "mrr_at",
    "ndcg_at",
    "recall_at",
    "risk_coverage",
    "tied_groups",
]
