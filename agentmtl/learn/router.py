"""The fitted router from rows that were logged or given.

    {"query": "…", "expert": "big", "score": 1.0, "cost": 0.002}      a line for each expert that was asked

`score` is of 0 to 1, 1 a good answer; `cost` in US dollars, and may be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.jsonl import read_records
from agentmtl.routing.fitted import FittedRouter, RouterSettings, Rows
from agentmtl.routing.options import likeness
from agentmtl.trunk.encoder import Encoder

_AT_ONCE = 256
_LEAST = 20  # rows of an expert


def train_router(
    path: Path,
    encoder: Encoder,
    out: Path,
    settings: RouterSettings | None = None,
    command: str = "",
    watch: Callable[[int], None] = lambda queries: None,
) -> FittedRouter:
    """Fit on a file of rows and write the router to `out`.

    Raises IngestError for a bad line, UsageError for an expert with fewer than 20 rows, or only good or bad
    ones.
    """
    rows, costs = read_rows(path, encoder, watch)
    for column, name in enumerate(rows.experts):
        count = int((~np.isnan(rows.scores[:, column])).sum())
        if count < _LEAST:
            raise UsageError(f"There are {count} rows of {name}.", f"Give at least {_LEAST} of each expert.")
    fitted = FittedRouter.fit(rows, settings, encoder)
    fitted.details |= {
        "command": command, "queries": len(rows.texts), "encoder": encoder.identity.space, "costs": costs,
    }  # fmt: skip
    fitted.save(out)
    return fitted


def read_rows(
    path: Path, encoder: Encoder, watch: Callable[[int], None] = lambda queries: None
) -> tuple[Rows, dict[str, float]]:
    """The rows with their queries and the options in them encoded, and the mean cost of each expert.

    Scores of one query and expert that was asked several times are averaged. Raises IngestError for a bad
    line or a score outside 0 to 1.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, list[float]] = {}
    for record in read_records(path):
        score, expert = record.number("score"), record.text("expert")
        if not 0.0 <= score <= 1.0:
            raise record.error("has a score outside 0 to 1")
        scores.setdefault(record.text("query"), {}).setdefault(expert, []).append(score)
        if record.fields.get("cost") is not None:
            costs.setdefault(expert, []).append(record.number("cost"))
    experts = tuple(sorted({expert for mine in scores.values() for expert in mine}))
    if not experts:
        raise UsageError(f"{path} holds no rows.", "Give lines of query, expert and score.")
    texts = tuple(scores)
    table = np.array(
        [[float(np.mean(scores[t][e])) if e in scores[t] else np.nan for e in experts] for t in texts]
    )
    parts, options = [], []
    for at in range(0, len(texts), _AT_ONCE):
        parts.append(encoder.encode(texts[at : at + _AT_ONCE], "query"))
        options.append(likeness(texts[at : at + _AT_ONCE], encoder))
        watch(len(parts[-1]))
    vectors = np.concatenate(parts).astype(np.float64)
    return Rows(vectors, texts, table, experts, np.concatenate(options)), {
        e: float(np.mean(c)) for e, c in sorted(costs.items())
    }
