"""agentmtl tune: which model and how many samples each stage of a pipeline deserves under a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmtl.cli.answering import LlmFlag
from agentmtl.cli.evaluation_options import Indexes, Limit, Seed
from agentmtl.cli.output import INDEXES, BackendFlag, JsonFlag, QuietFlag, emit, say, settings_from, tell
from agentmtl.cli.tuned_pipelines import by_difficulty, opened
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.compute.environment import Bench, Environment
    from agentmtl.compute.search.ideas import Chat
    from agentmtl.compute.tuning import Step, Tuned

REPORT = "report"
COMPARED = ("nested", "random", "equal-split", "best-uniform", "evolution", "coordinate", "tpe")
SHARE = 20  # trials at the budget that a search may cost, unless told otherwise


def tune(
    pipeline: Annotated[str, typer.Argument(help="A pipeline's TOML file, embedded, or report.")],
    budget: Annotated[
        list[float] | None,
        typer.Option("--budget", "-b", help="A query, in the pipeline's unit; repeat for more."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A set with answers, to run on.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", metavar="PATH", help="A folder of recorded traces, or a recording's file."),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="Default: what suits the pipeline.")] = "",
    compare: Annotated[bool, typer.Option("--compare", help="Run other methods at the same cost.")] = False,
    search_budget: Annotated[
        float | None, typer.Option("--search-budget", help="What the search may cost, in the same unit.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Report, journal.")] = Path("tuned"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be searched.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the journal in --out.")] = False,
    average: Annotated[
        float | None,
        typer.Option("--average", help="On average a query, by guessed difficulty; --budget caps each."),
    ] = None,
    levels: Annotated[int, typer.Option("--levels", help="Of difficulty, with --average.", min=2)] = 3,
    llm: LlmFlag = None,
    workers: Annotated[int, typer.Option("--workers", help="Questions run side by side.", min=1)] = 1,
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Find what each stage of a pipeline deserves under a budget, with the whole cost/quality frontier.

    Examples:

      agentmtl tune pipeline.toml --replay traces --budget 40000 --out tuned --quiet

      agentmtl tune report --out tuned
    """
    from agentmtl.compute.report import read_figures, summary, write_report

    if pipeline == REPORT:
        figures = read_figures(out)
        emit(figures) if as_json else say("\n".join(summary(figures)))
        return
    if not budget:
        raise UsageError("For which budget?", "Give at least one: --budget.")
    settings = settings_from(backend=backend)
    environment = opened(pipeline, data, replay, indexes, limit, seed, settings)
    budget += [] if average is None else [average]
    for one in budget:
        environment.space.check_budget(one)
    cost = search_budget or SHARE * max(budget) * environment.questions
    if dry_run:
        _planned(environment, budget, cost, as_json)
        return
    chat = _chat(llm) if llm else None
    found = []
    asked = environment, budget, cost, seed, chat, out, resume, workers
    for name in [method, *(COMPARED if compare else ())]:
        done = _searched(name, *asked, quiet or as_json)
        found += [done] if done is not None else []
    if average is None:
        write_report(out, found)
    else:
        write_report(out, found, by_difficulty(environment, found[0], average, levels, settings), average)
    figures = read_figures(out)
    if as_json:
        emit({**figures, "schema": SCHEMA_VERSION, "out": str(out)})
        return
    say("\n".join(summary(figures)))
    say(f"{out / 'report.md'}, {out / 'allocation.toml'}")


def _planned(environment: Environment, budgets: list[float], cost: float, as_json: bool) -> None:
    from agentmtl.compute.search.methods import default_method

    space = environment.space
    told: dict[str, Any] = {
        "schema": SCHEMA_VERSION, "pipeline": space.pipeline.name, "unit": space.pipeline.unit,
        "stages": [s.name for s in space.stages], "configurations": space.pipeline.size,
        "questions": environment.questions, "cheapest": space.cheapest, "budgets": budgets,
        "search budget": cost, "method": default_method(space.pipeline),
    }  # fmt: skip
    if as_json:
        emit(told)
        return
    for key, value in list(told.items())[1:]:
        say(f"{key:<16}{', '.join(map(str, value)) if isinstance(value, list) else value}")


def _searched(
    method: str,
    environment: Environment,
    budgets: list[float],
    cost: float,
    seed: int,
    chat: Chat | None,
    out: Path,
    resume: bool,
    workers: int,
    quiet: bool,
) -> Tuned | None:
    """One method. A compared one that does not suit the pipeline is told of and left out."""
    from agentmtl.compute.journal import Journal
    from agentmtl.compute.search.language import remembered
    from agentmtl.compute.search.methods import default_method
    from agentmtl.compute.tuning import tune as search

    name = method or default_method(environment.space.pipeline)
    header = {
        "pipeline": environment.space.pipeline.digest, "method": name, "seed": seed, "budgets": budgets,
        "search budget": cost, "questions": environment.questions,
    }  # fmt: skip
    journal = Journal(out / f"journal-{name}.jsonl", header, resume)
    said = remembered(chat, journal) if chat else None
    try:
        with _watching(name, cost, environment.space.pipeline.unit, quiet) as told, _side(workers) as beside:
            return search(
                environment, budgets, cost, name, seed=seed, chat=said, journal=journal, workers=beside,
                told=told,
            )  # fmt: skip
    except UsageError as error:
        if method in COMPARED:
            tell(f"{method} is left out: {error.message}")
            return None
        raise
    finally:
        journal.close()


def _side(workers: int) -> AbstractContextManager[Executor | None]:
    """Threads for questions side by side; none for one at a time."""
    return ThreadPoolExecutor(workers) if workers > 1 else nullcontext()


@contextmanager
def _watching(name: str, cost: float, unit: str, quiet: bool) -> Iterator[Callable[[Step, Bench], None]]:
    """A progress bar on stderr, for people only: what is spent, what is left, the best so far."""
    import sys

    if quiet or not sys.stderr.isatty():
        yield lambda step, bench: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=cost, note="")

        def told(step: Step, bench: Bench) -> None:
            note = f"best {step.quality:.3f}, spent {step.spent:.3g}, left {bench.left:.3g} {unit}"
            bar.update(task, completed=step.spent, note=note)

        yield told


def _chat(name: str) -> Chat:
    """A chat model by its name, as the search asks it."""
    from langchain_core.messages import HumanMessage, SystemMessage

    from agentmtl.compute.search.ideas import Reply
    from agentmtl.experts.calling import Caller
    from agentmtl.integrations.models import open_chat_model
    from agentmtl.spending import Ledger

    caller = Caller(open_chat_model(name), name.partition("@")[0], max_tokens=2000)

    def say_to(system: str, user: str) -> Reply:
        with Ledger().active() as ledger:
            found = caller.call([SystemMessage(system), HumanMessage(user)], "tune")
        return Reply(found[0].text if found else "", ledger.spent)

    return say_to
