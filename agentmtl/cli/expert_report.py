"""agentmtl experts report: how queries are shared out among the experts, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmtl.cli.output import JsonFlag, emit, say

if TYPE_CHECKING:
    from agentmtl.evaluate.jsonl import Record
    from agentmtl.routing.report import Routed


def report(
    rows: Annotated[
        Path | None,
        typer.Option("--rows", help="Lines of query, expert, task, score, cost …; by default the log."),
    ] = None,
    count: Annotated[
        int, typer.Option("-n", "--count", help="Questions of the log, the newest.", min=1)
    ] = 10_000,
    file: Annotated[
        Path | None, typer.Option("--file", help="The registry; by default experts.toml here, or the user's.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Shares, dead experts, experts of one task, starved tasks, calibration and switches.

    A row is {"expert", "query", "task" or "cluster", "score", "cost", "confidence", "conversation"}; only the
    expert must be there. Scores are not in the log: what needs them is told for rows alone.

    Examples:

      agentmtl experts report

      agentmtl experts report -n 500 --json
    """
    from agentmtl.experts.registry import Registry
    from agentmtl.routing.report import diagnose

    routed = _of_log(count) if rows is None else _of_file(rows)
    found = diagnose(routed, tuple(Registry(file).entries()))
    if as_json:
        emit(found.to_json())
    elif not routed:
        say("Nothing was routed yet.")
    else:
        say(found.to_text())


def _of_log(count: int) -> list[Routed]:
    """The log's answers, oldest first; those that nobody took are left out."""
    from agentmtl.agent.journal import Journal

    found = [_of_answer(entry.answer) for entry in reversed(Journal().newest(count))]
    return [routed for routed in found if routed.expert]


def _of_answer(answer: dict[str, Any]) -> Routed:
    """By the route step of its trace, where it has one; else by who answered."""
    from agentmtl.routing.report import Routed

    step: dict[str, Any] = next((one for one in answer.get("trace", ()) if one.get("step") == "route"), {})
    return Routed(
        str(step.get("expert") or answer["route"]),
        str(answer["question"]),
        str(step.get("task") or ""),
        cost=answer.get("usage", {}).get("money"),
        confidence=step.get("confidence"),
        conversation=str(step.get("conversation") or ""),
    )


def _of_file(path: Path) -> list[Routed]:
    from agentmtl.evaluate.jsonl import read_records
    from agentmtl.routing.report import Routed

    return [
        Routed(
            record.text("expert"),
            record.text("query", ""),
            record.text("task", "") or record.text("cluster", ""),
            _share(record, "score"),
            _number(record, "cost"),
            _share(record, "confidence"),
            record.text("conversation", ""),
        )
        for record in read_records(path)
    ]


def _number(record: Record, name: str) -> float | None:
    return None if record.fields.get(name) is None else record.number(name)


def _share(record: Record, name: str) -> float | None:
    value = _number(record, name)
    if value is not None and not 0.0 <= value <= 1.0:
        raise record.error(f"has a {name} outside 0 to 1")
    return value
