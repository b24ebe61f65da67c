"""agentmtl run: many inputs at once, resumable: questions of a file, or inputs of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmtl.cli.answering import (
    AggregatorFlag,
    Answering,
    AnsweringFlag,
    BudgetFlag,
    DemonstrationsFlag,
    MaxTokensFlag,
    RewardFlag,
    RouterFlag,
    SamplesFlag,
    TaskFlag,
    UpdaterFlag,
)
from agentmtl.cli.demonstrations import (
    Balance,
    ChannelFlag,
    Count,
    Diversity,
    Predicting,
    TaskBank,
    predict_lines,
)
from agentmtl.cli.output import BackendFlag, IndexFlag, JudgeFlag, QuietFlag, index_folder, settings_from
from agentmtl.errors import UsageError

QUESTIONS = ".jsonl"  # how the name of a file of questions ends
_OF_QUESTIONS = ("hops", "where", "expert", "judge", "samples", "aggregator", "updater", "max_tokens",
                 "budget", "task", "demonstrations", "reward", "router", "concurrency", "no_log")  # fmt: skip
_OF_TASKS = ("k", "channel", "diversity", "balance", "bank", "nearest")


def run(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="A .jsonl file of questions; or a task of the index or a card's path, with inputs on stdin.",
            metavar="QUESTIONS|TASK",
        ),
    ],
    index: IndexFlag = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here; a run that was broken off goes on there.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", help="Questions asked at the same time.", min=1, max=1024)
    ] = 8,
    hops: Annotated[
        int | None, typer.Option("--hops", help="Retrieval steps, at most.", min=1, max=4)
    ] = None,
    where: Annotated[str | None, typer.Option("--where", "-w", help="Filter over metadata.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Abstain below this confidence or probability.")
    ] = None,
    expert: AnsweringFlag = "auto",
    judge: JudgeFlag = "none",
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            help="Questions: vllm:MODEL@URL or PROVIDER:MODEL; a task: vllm:MODEL@URL or causal:FOLDER.",
            metavar="NAME",
        ),
    ] = None,
    samples: SamplesFlag = 1,
    aggregator: AggregatorFlag = "majority",
    updater: UpdaterFlag = "auto",
    max_tokens: MaxTokensFlag = 256,
    budget: BudgetFlag = None,
    task: TaskFlag = "",
    demonstrations: DemonstrationsFlag = 4,
    reward: RewardFlag = None,
    router: RouterFlag = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Leave the questions out of `agentmtl log`.")
    ] = False,
    k: Count = 8,
    channel: ChannelFlag = "fused",
    diversity: Diversity = 0.0,
    balance: Balance = False,
    bank: TaskBank = "task",
    nearest: Annotated[
        float | None,
        typer.Option(
            "--nearest",
            help="Abstain below this cosine of the nearest example; by default what is unusual for the task.",
            min=-1,
            max=1,
        ),
    ] = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
) -> None:
    """Answer every question of a file, or predict for every input of a task: JSON lines in and out.

    A question is {"id": "…", "question": "…"}. Its answer is written as it comes, so in the order of
    completion, in the form of `agentmtl ask --json` with the id. Questions that fail are named on stderr and
    are not in --out: the same command asks them again, and them alone. The options of `agentmtl ask` apply;
    --budget is that of one question.

    The input of a task is {"input": "…"}, with "choices" for multiple choice; the outputs, from labelled
    examples, come in the same order. A bad line gives a line with "error".
    A task of 100 examples or fewer is better read with --bank shipped, or a folder of `train bank`.
    With --llm causal:FOLDER, or a model of vLLM, a language model reads the input after each of the examples,
    those of the bank with them, and says how likely each label is.

    The exit code is 1 where a question or a line failed. A run goes on with --out only for the same inputs
    and the same options.

    Examples:

      agentmtl run questions.jsonl --index indexes/docs --out answers.jsonl

      agentmtl run questions.jsonl --index indexes/docs --out more.jsonl --hops 1 --concurrency 32

      agentmtl run trec --index indexes/tasks < inputs.jsonl > outputs.jsonl

      agentmtl run trec --index indexes/tasks --out outputs.jsonl --threshold 0.6 < inputs.jsonl

      agentmtl run trec --index indexes/tasks --llm causal:models/mine < inputs.jsonl
    """
    from agentmtl.retrieval.index import Index

    asks = what.endswith(QUESTIONS)
    _refuse(context, _OF_TASKS if asks else _OF_QUESTIONS, asks)
    settings = settings_from(
        hops=hops, threshold=threshold if asks else None, backend=backend, log=False if no_log else None
    )
    opened = Index.open(index_folder(index), backend=settings.backend)
    if asks:
        from agentmtl.cli.questions import answer_file

        given = Answering(
            expert, judge, llm, samples, aggregator, updater, max_tokens, budget, task, demonstrations,
            reward, router,
        )  # fmt: skip
        answer_file(opened, settings, given, Path(what), out, where, concurrency, quiet)
    else:
        least = 0.0 if threshold is None else threshold
        if not 0 <= least <= 1:
            raise UsageError(f"{least:g} is no probability.", "Give --threshold between 0 and 1.")
        options = Predicting(k, channel, diversity, balance, bank, least, nearest, llm)
        predict_lines(opened, what, out, options, quiet)


def _refuse(context: typer.Context, names: tuple[str, ...], asks: bool) -> None:
    """Raises UsageError for an option of the other kind of run, which would be without effect."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "-k" if name == "k" else f"--{name.replace('_', '-')}"
            other = "a task" if asks else f"a file of questions ({QUESTIONS})"
            raise UsageError(f"{option} goes with {other}.", "Leave it out.")
