"""The fitted values that an index keeps beside its settings: an index answers tomorrow as it does today.

An index is made with the values of this version (fitted on public training data; their cards say which), or
with a user's own, and goes on using them whatever a later version ships, until `Index.refit`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.retrieval.fusion import Fusion
from agentmtl.retrieval.hops.model import HopModel, shipped


def fitted_values(fusion: Fusion | None = None, hops: HopModel | None = None) -> dict[str, Any]:
    """What an index keeps: the fusion's weights and those of the hop search; this version's by default."""
    model = replace(hops or shipped(), folds=())  # the folds only measure
    return {"fusion": (fusion or Fusion()).to_json(), "hops": model.to_json()}


def read_fitted(path: Path) -> dict[str, Any]:
    """Fitted values from a file that `python -m agentmtl.learn.hops` wrote, or one of `fitted_values`.

    Raises UsageError where it holds neither.
    """
    try:
        data: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        if "scorers" in data:
            return fitted_values(hops=HopModel.from_json(data))
        return fitted_values(Fusion(**data["fusion"]), HopModel.from_json(data["hops"]))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(
            f"{path} holds no fitted values: {error}.",
            "Make them: python -m agentmtl.learn.hops --data SET … --out FILE",
        ) from error
