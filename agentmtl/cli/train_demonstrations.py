"""agentmtl train demonstrations: which labelled examples help with which inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import command_line
from agentmtl.cli.output import EncoderFlag, JsonFlag, QuietFlag, emit, say, settings_from, watching_steps
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

KERNEL = "kernel"


def demonstrations(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data", metavar="DIR", help="A task (card.json, train.jsonl) or a folder of tasks; repeat."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the run and its head are kept.")
    ],
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="TASK", help="A task not to learn from; repeat."),
    ] = None,
    scorer: Annotated[
        str,
        typer.Option(
            help="What ranks candidates: kernel, or a language model, causal:FOLDER or vllm:MODEL@URL."
        ),
    ] = KERNEL,
    rounds: Annotated[int, typer.Option(min=1, help="Of mining, scoring and training.")] = 3,
    queries: Annotated[int, typer.Option(min=8, help="Of each task, mined a round.")] = 240,
    epochs: Annotated[int, typer.Option(min=1, help="Of a round.")] = 1,
    limit: Annotated[int, typer.Option(min=0, help="Examples of each task; 0 for all.")] = 3_000,
    instruct: Annotated[
        bool, typer.Option("--instruct/--no-instruct", help="Read texts under their task's instruction.")
    ] = True,
    afresh: Annotated[bool, typer.Option("--afresh", help="Begin every round at the trunk.")] = False,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 32,
    rate: Annotated[float, typer.Option(help="The highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    encoder: EncoderFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the retriever of labelled examples, on any number of tasks together.

    An index uses it that is built with --encoder default+OUT. A run that was stopped goes on when the same
    command is given again.

    Examples:

      agentmtl train demonstrations --data ../shared/data/demonstrations --out heads/demonstrations

      agentmtl train demonstrations --data tasks/mine --rounds 1 --queries 100 --out heads/mine --json
    """
    from agentmtl.integrations.models import open_scorer
    from agentmtl.learn.demonstrations_recipe import DemonstrationsRecipe, train_demonstrations
    from agentmtl.trunk.loading import model_files

    files = model_files(settings_from(encoder=encoder).encoder)
    recipe = DemonstrationsRecipe(
        rank=rank, rate=rate, epochs=epochs, seed=seed, limit=limit, rounds=rounds, queries=queries,
        instruct=instruct, afresh=afresh, scorer=scorer,
    )  # fmt: skip
    folders, model = task_folders(data, leave_out or ()), None if scorer == KERNEL else open_scorer(scorer)
    with watching_steps("training", quiet or as_json) as watch:
        head = train_demonstrations(files, folders, out, recipe, model, command_line(), watch)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), "card": head.card.to_json()})
    else:
        say(f"{out}: " + ", ".join(f"{n} {v:.3f}" for n, v in head.card.metrics["dev"].items()) + " on dev")
        say(f"Use it: agentmtl index build --task CARD --demos FILE --encoder default+{out} --out DIR")


def task_folders(data: list[Path], leave_out: list[str] | tuple[str, ...] = ()) -> list[Path]:
    """The tasks that are meant, those of a folder of tasks by name. Raises UsageError where there is none, or
    one that is left out is not there."""
    found: list[Path] = []
    for folder in data:
        mine = (
            [folder]
            if (folder / "card.json").is_file()
            else sorted(p.parent for p in folder.glob("*/card.json"))
        )
        if not mine:
            raise UsageError(f"{folder} holds no task.", "A task is a folder with card.json and train.jsonl.")
        found += mine
    unknown = sorted(set(leave_out) - {folder.name for folder in found})
    if unknown:
        raise UsageError(f"There is no task {', '.join(unknown)} to leave out.", "Name folders of --data.")
    return [folder for folder in found if folder.name not in leave_out]
