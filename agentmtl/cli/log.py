"""agentmtl log …: what was asked, retrieved and answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.output import JsonFlag, dim, emit, say
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.agent.journal import Entry, Journal

app = typer.Typer(help="What was asked, retrieved and answered.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def log(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", "--count", help="How many, newest first.", min=1)] = 10,
    last: Annotated[
        bool, typer.Option("--last", help="Everything of the newest, as `log show` prints it.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the newest questions with what was retrieved and answered.

    Examples:

      agentmtl log -n 3

      agentmtl log --last

      agentmtl log --json
    """
    if context.invoked_subcommand is not None:
        return
    from agentmtl.agent.journal import Journal

    journal = Journal()
    entries = journal.newest(1 if last else count)
    if last and entries:
        _show(journal, entries[0], as_json)
        return
    if as_json:
        emit({"schema": SCHEMA_VERSION, "entries": [entry.to_json() for entry in entries]})
        return
    for entry in entries:
        answer = entry.answer
        verdict = "abstained" if answer["abstained"] else answer["answer"]
        say(f"{entry.id}  {entry.time}  {entry.index}")
        say(f"  Q {answer['question']}")
        confidence = f"confidence {answer['confidence']:.2f}"
        say(f"  A {verdict}  {dim(confidence)}")
        for citation in answer["citations"]:
            say(dim(f"    [{citation['marker']}] {citation['source']} {citation['text'][:90]!r}"))
    if not entries:
        say("Nothing was asked yet.")


@app.command("show")
def show(
    entry: Annotated[int, typer.Argument(help="Number of the entry, as `agentmtl log` prints it.")],
    as_json: JsonFlag = False,
) -> None:
    """Everything of one entry: the evidence as it was retrieved, what models were sent and said, the answer.

    Examples:

      agentmtl log show 1

      agentmtl log show 1 --json
    """
    from agentmtl.agent.journal import Journal

    journal = Journal()
    found = journal.get(entry)
    if found is None:
        raise UsageError(f"There is no entry {entry} in the log.", "See them: agentmtl log")
    _show(journal, found, as_json)


def _show(journal: Journal, found: Entry, as_json: bool) -> None:
    """The evidence, what models were sent and said, and the answer."""
    calls = journal.calls(found.id)
    if as_json:
        emit({"schema": SCHEMA_VERSION, **found.to_json(), "calls": calls})
        return
    say(f"{found.id}  {found.time}  {found.index}")
    say(f"Q {found.answer['question']}")
    say(f"A {found.answer['answer'] or '(abstained)'}")
    for hit in found.evidence:
        say(f"  hop {hit['hop']}  {hit['score']:.3f}  {hit['meta']['source']}  {hit['text']!r}")
    for call in calls:
        spent = call["usage"]
        tokens = f"{spent['prompt_tokens']}+{spent['output_tokens']} tokens"
        say(dim(f"--- {call['purpose']}  {call['model']}  {tokens}"))
        for message in call["messages"]:
            say(f"{message['role']}: {message['text']}")
        for output in call["outputs"] or [f"({call['error']})"]:
            say(f"=> {output}")


@app.command("purge")
def purge(
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would go.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase the log: every question, answer and quoted text, from the file's bytes as well; and the steps
    of runs that `ask --run` keeps.

    Examples:

      agentmtl log purge

      agentmtl log purge --yes
    """
    from agentmtl.agent.journal import Journal
    from agentmtl.agent.runs import Runs

    journal = Journal()
    count = journal.count()
    if yes:
        journal.purge()
        Runs().purge()
    if as_json:
        emit({"schema": SCHEMA_VERSION, "entries": count, "purged": yes})
    elif yes:
        say(f"Erased {count:,} {'entry' if count == 1 else 'entries'}.")
    else:
        say(f"{count:,} in the log at {journal.path}. Erase: agentmtl log purge --yes")
