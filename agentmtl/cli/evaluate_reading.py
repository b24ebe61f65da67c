"""agentmtl eval reading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import Data, Limit, Seed, command_line, show
from agentmtl.cli.output import BackendFlag, JsonFlag, QuietFlag, settings_from, watching
from agentmtl.errors import UsageError


def reading(
    data: Data,
    head: Annotated[
        list[Path] | None,
        typer.Option("--head", help="A reader's head; repeat to compare. The shipped one without it."),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    split: Annotated[str, typer.Option("--split", help="test or train.")] = "test",
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """The reader over given contexts: answers, unanswerable questions, calibration.

    Examples:

      agentmtl eval reading --data ../shared/data/reading/squad

      agentmtl eval reading --data ../shared/data/reading/squad --limit 200 --json
    """
    from agentmtl.evaluate.reading import evaluate_reading
    from agentmtl.experts.default import open_head
    from agentmtl.trunk.heads import shipped_head

    shipped = shipped_head("reader")
    folders = head or ([shipped] if shipped else [])
    if not folders:
        raise UsageError("No reader is installed.", "Give --head DIR, or train one: agentmtl train reader")
    used = settings_from(backend=backend).backend
    networks = {folder.name: open_head(folder, used) for folder in folders}
    with watching("reading", quiet or as_json) as watch:
        report = evaluate_reading(
            data,
            networks,
            split=split,
            limit=limit,
            seed=seed,
            commands=(command_line(),),
            progress=watch,
        )
    show(report, as_json)
