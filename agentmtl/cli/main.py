"""The program: its commands, and what becomes of an error."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from agentmtl.cli import (
    ask,
    config,
    demo,
    demonstrations,
    doctor,
    evaluation,
    expert_report,
    experts,
    index,
    log,
    prompts,
    route,
    search,
    train,
    tune,
)
from agentmtl.cli import run as run_command
from agentmtl.cli.output import emit, tell
from agentmtl.errors import AgentmtlError
from agentmtl.schema import SCHEMA_VERSION

_HELP = """Answers questions over your own documents, with citations that exist.

Get started:

  agentmtl demo
  agentmtl index build ./docs --out indexes/docs
  agentmtl ask "Who wrote the first program?" --index indexes/docs
"""

app = typer.Typer(
    name="agentmtl",
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.add_typer(index.app, name="index")
app.command("search")(search.search)
app.command("ask")(ask.ask)
app.command("route")(route.route)
app.command("demos")(demonstrations.demos)
app.command("run")(run_command.run)
experts.app.command("report")(expert_report.report)
app.add_typer(experts.app, name="experts")
app.add_typer(prompts.app, name="prompts")
app.add_typer(log.app, name="log")
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
app.add_typer(evaluation.app, name="eval")
app.add_typer(train.app, name="train")
app.command("tune")(tune.tune)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"agentmtl {version('agentmtl')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More on stderr.")] = False,
) -> None:
    logging.basicConfig(
        stream=sys.stderr, format="%(message)s", level=logging.INFO if verbose else logging.WARNING
    )
    logging.getLogger("agentmtl.trunk.openvino_cache").setLevel(logging.INFO)  # takes seconds: say what for


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code. `arguments` are those after the program's name."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        code = app(arguments, prog_name="agentmtl", standalone_mode=False)
        sys.stdout.flush()
    except AgentmtlError as error:
        return _report(as_json, error.code, error.message, error.hint, error.exit_code)
    except TyperException as error:
        return _usage(as_json, arguments, error)
    except (typer.Abort, KeyboardInterrupt):
        return _report(as_json, "interrupted", "Interrupted.", "Run the same command again: it resumes.", 130)
    except BrokenPipeError:  # the reader of our output has gone (| head): not a failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if code == 130:
        return _report(as_json, "interrupted", "Interrupted.", "Run the same command again: it resumes.", 130)
    return code if isinstance(code, int) else 0


def _usage(as_json: bool, arguments: list[str], error: TyperException) -> int:
    message = error.format_message()
    if not message:  # no arguments: the help was shown
        return error.exit_code
    verbs = [a for a in arguments if not a.startswith("-")][:2]
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else " ".join(["agentmtl", *verbs])
    return _report(as_json, "usage", message, f"See: {path} --help", error.exit_code)


def _report(as_json: bool, code: str, message: str, hint: str, exit_code: int) -> int:
    if as_json:
        emit({"schema": SCHEMA_VERSION, "error": {"code": code, "message": message, "hint": hint}})
    tell(f"agentmtl: {message}" + (f"\n  {hint}" if hint else ""))
    return exit_code
