"""agentmtl train bank and agentmtl eval bank: many tasks' experience for a task with few examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import command_line
from agentmtl.cli.output import (
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    emit,
    say,
    settings_from,
    watching_steps,
)
from agentmtl.cli.train_demonstrations import task_folders
from agentmtl.schema import SCHEMA_VERSION

Tasks = Annotated[
    list[Path],
    typer.Option(
        "--data", metavar="DIR", help="A task (card.json, train.jsonl) or a folder of tasks; repeat."
    ),
]
Examples = Annotated[int, typer.Option(min=32, help="Of a classification task, learned from.")]
Kept = Annotated[int, typer.Option(min=0, help="Examples of a classification task in the bank.")]
Episodes = Annotated[int, typer.Option(min=1, help="Of each task.")]
DrawSeed = Annotated[int, typer.Option("--seed", help="Of everything drawn.")]


def bank(
    data: Tasks,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the bank is kept.")],
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="TASK", help="A task not to learn from; repeat."),
    ] = None,
    examples: Examples = 300,
    kept: Kept = 300,
    episodes: Episodes = 4,
    seed: DrawSeed = 0,
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Learn over many tasks how to read few examples of another: weights, and a bank of examples.

    A task with few examples is answered with it by agentmtl run TASK --bank OUT.

    Examples:

      agentmtl train bank --data ../shared/data/demonstrations --leave-out trec --out heads/bank

      agentmtl train bank --data tasks/mails --data tasks/topics --kept 50 --out heads/mine --json
    """
    from agentmtl.learn.bank_recipe import BankRecipe, train_bank
    from agentmtl.trunk import load_encoder

    folders = task_folders(data, leave_out or ())
    recipe = BankRecipe(examples=examples, kept=kept, episodes=episodes, seed=seed)
    trunk = load_encoder(settings_from(encoder=encoder).encoder)
    with watching_steps("learning", quiet or as_json) as watch:
        learned = train_bank(trunk, folders, out, recipe, command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": dict(learned.card)})
    else:
        say(f"{out}: {len(learned.bank)} examples of {len(folders)} tasks; {learned.card['metrics']}")
        say(f"Use it: agentmtl run TASK --bank {out} --index DIR")


def evaluate(
    data: Tasks,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="Measure this one; repeat. By default five."),
    ] = None,
    shots: Annotated[int, typer.Option(min=2, help="Labelled examples that a task has.")] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of these examples.")] = 10,
    limit: Annotated[int, typer.Option(min=1, help="Test inputs of each task.")] = 400,
    bank_name: Annotated[
        str,
        typer.Option(
            "--bank", metavar="DIR", help="Measure this bank; by default one is learned for each task."
        ),
    ] = "",
    examples: Examples = 300,
    kept: Kept = 300,
    episodes: Episodes = 4,
    seed: DrawSeed = 0,
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Tasks with few examples: the voter alone, the texts of the labels, and a bank of other tasks.

    The bank is learned without the measured task's family; "same family" without the task alone.

    Examples:

      agentmtl eval bank --data ../shared/data/demonstrations --shots 16 --seeds 10

      agentmtl eval bank --data ../shared/data/demonstrations --task trec --bank heads/bank --json
    """
    from agentmtl.experts.bank import open_bank
    from agentmtl.learn.bank_recipe import BankRecipe
    from agentmtl.learn.bank_report import MEASURED, Measuring, evaluate_bank
    from agentmtl.trunk import load_encoder

    settings = settings_from(encoder=encoder, backend=backend)
    trunk = load_encoder(settings.encoder, backend=settings.backend)
    learned = open_bank(bank_name) if bank_name else None
    if learned:
        learned.check_trunk(trunk.identity)
    recipe = BankRecipe(examples=examples, kept=kept, episodes=episodes, seed=seed)
    how = Measuring(shots, seeds, limit, seed)
    with watching_steps("measuring", quiet or as_json) as watch:
        reports = evaluate_bank(
            trunk, task_folders(data), task or MEASURED, how, recipe, (command_line(),), watch, learned
        )
    if as_json:
        emit({"schema": SCHEMA_VERSION, "benchmark": "bank", "tables": [r.to_json() for r in reports]})
        return
    for report in reports:
        say(report.to_text())
        say()
