"""agentmtl eval routing: who answers, chosen well or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.evaluation_options import command_line, show
from agentmtl.cli.output import INDEXES, BackendFlag, EncoderFlag, JsonFlag, settings_from
from agentmtl.errors import UsageError


def routing(
    data: Annotated[
        Path, typer.Option("--data", metavar="PATH", help="A file of prompts with scores, or of queries.")
    ],
    cards: Annotated[
        Path | None, typer.Option("--cards", help="Names and descriptions: measure choosing by these alone.")
    ] = None,
    outside: Annotated[
        Path | None, typer.Option("--outside", help="With --cards, queries that no expert serves.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Vectors of the prompts are kept here.")] = INDEXES / "routing",
    seed: Annotated[int, typer.Option(help="Of folds and intervals.")] = 0,
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """How well queries find their expert: by descriptions alone, and by what was fitted, beside baselines.

    Examples:

      agentmtl eval routing --data ../shared/data/routing/routellm-mmlu.jsonl

      agentmtl eval routing --data ../shared/data/routing/metatool.jsonl --cards tools.json --json
    """
    from agentmtl.evaluate.routing import evaluate_prompts
    from agentmtl.evaluate.routing_cards import evaluate_cards, read_labelled
    from agentmtl.routing.fitted import RouterSettings
    from agentmtl.trunk import load_encoder

    settings = settings_from(encoder=encoder, backend=backend)
    loaded = load_encoder(settings.encoder, backend=settings.backend)
    if cards is None:
        if not data.is_file():
            raise UsageError(f"{data} is no file of prompts.", "With a folder of queries give --cards too.")
        report = evaluate_prompts(
            data, loaded, RouterSettings(), cache=cache, seed=seed, commands=(command_line(),)
        )
    else:
        split = data.is_file()
        train, test = (
            read_labelled(data, side) if split else read_labelled(data / f"{side}.jsonl")
            for side in ("train", "test")
        )
        strangers = _texts(outside) if outside else ()
        report = evaluate_cards(
            cards, train, test, loaded, outside=strangers, name=data.stem, seed=seed,
            commands=(command_line(),),
        )  # fmt: skip
    show(report, as_json)


def _texts(path: Path) -> list[str]:
    from agentmtl.evaluate.jsonl import read_records

    return [record.text("input", "") or record.text("text") for record in read_records(path)]
