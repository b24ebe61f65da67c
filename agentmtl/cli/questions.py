"""Every question of a file, asked of one agent: several at a time, each answer on disk once it is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentmtl.cli.answering import Answering, agent_of
from agentmtl.cli.demonstrations import FAILED, appending
from agentmtl.cli.output import plural, tell, watching
from agentmtl.errors import BudgetExceededError, ModelError, UsageError

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.retrieval.index import Index
    from agentmtl.schema import Answer
    from agentmtl.settings import Settings

IN_A_ROW = 16  # failures of the model after which the rest is not tried
_HINT = "Run the same command again: it goes on with what is missing."


@dataclass(frozen=True, slots=True)
class Question:
    """A line of the file."""

    id: str
    text: str


def answer_file(
    index: Index,
    settings: Settings,
    given: Answering,
    questions: Path,
    out: Path | None,
    where: str | None,
    concurrency: int,
    quiet: bool,
) -> None:
    """See `agentmtl run`. Raises UsageError for a bad line before anything is asked, ModelError where the
    model fails question after question."""
    asked = read_questions(questions)
    made_by = _digest(settings, given, where)
    done = read_done(out, asked, made_by)
    agent = agent_of(index, settings, given)
    missing = [question for question in asked if question.id not in done]
    failures = list[Question]()
    with appending(out) as stream, watching("asking", quiet) as watch:
        watch(len(done))

        def write(question: Question, answer: Answer) -> None:
            record = {"id": question.id, **answer.to_json(), "run": made_by}
            stream.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
            stream.flush()
            watch(1)

        def failed(question: Question, error: Exception) -> None:
            failures.append(question)
            tell(f"{question.id}: {error}")

        asyncio.run(ask_all(agent, missing, where, concurrency, write, failed))
    if failures:
        tell(f"{plural(len(failures), 'question')} of {len(asked):,} failed. {_HINT}")
        raise typer.Exit(FAILED)


async def ask_all(
    agent: Agent,
    questions: Sequence[Question],
    where: str | None,
    concurrency: int,
    write: Callable[[Question, Answer], None],
    failed: Callable[[Question, Exception], None],
) -> None:
    """Ask `concurrency` questions at a time. Answers go to `write` as they come; questions whose model or
    budget fails go to `failed`.

    Raises ModelError after `IN_A_ROW` failures of the model without an answer between, and whatever else an
    agent raises; what is under way is then cancelled.
    """
    waiting, in_a_row = iter(questions), 0

    async def work() -> None:
        nonlocal in_a_row
        for question in waiting:  # one iterator for all workers
            try:
                answer = await agent.aask(question.text, where=where)
            except BudgetExceededError as error:
                failed(question, error)
            except ModelError as error:
                failed(question, error)
                in_a_row += 1
                if in_a_row >= IN_A_ROW:
                    stopped = f"The model failed {in_a_row} times in a row: the rest was not asked."
                    raise ModelError(stopped, _HINT) from error
            else:
                in_a_row = 0
                write(question, answer)

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(questions)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def read_questions(path: Path) -> list[Question]:
    """The lines of a file. Raises UsageError for one that is no question, or whose id came before."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Give a JSON Lines file.") from error
    found: dict[str, Question] = {}
    for number, record in _records(path, lines):
        id_, text = record.get("id"), record.get("question")
        if not isinstance(id_, str | int) or not isinstance(text, str) or not text.strip():
            raise UsageError(f'{path}, line {number}, is no {{"id": …, "question": "…"}}.', "Mend the line.")
        if str(id_) in found:
            raise UsageError(f"{path}, line {number}: the id {id_!r} came before.", "Give each its own.")
        found[str(id_)] = Question(str(id_), text)
    return list(found.values())


def read_done(out: Path | None, questions: Sequence[Question], made_by: str) -> set[str]:
    """The ids that have an answer in `out`; a last line that a kill cut off does not count.

    Raises UsageError where an answer is of another question, or was made with other options.
    """
    if out is None or not out.is_file():
        return set()
    asked = {question.id: question.text.strip() for question in questions}
    whole = out.read_text("utf-8", "replace").split("\n")[:-1]
    done = set()
    for number, record in _records(out, whole):
        id_ = str(record.get("id"))
        if record.get("run") != made_by or asked.get(id_) != record.get("question"):
            raise UsageError(
                f"{out}, line {number}, answers another question, or was made with other options.",
                "Give the same questions and options again, or another --out.",
            )
        done.add(id_)
    return done


def _records(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line that is not empty. Raises UsageError for one that holds none."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}, is no JSON: {error}.", "Mend the line.") from error
        if not isinstance(record, dict):
            raise UsageError(f"{path}, line {number}, is no JSON object.", "Mend the line.")
        yield number, record


def _digest(settings: Settings, given: Answering, where: str | None) -> str:
    """Changes with the options that make an answer; not with the address of a server."""
    named = replace(given, llm=given.llm.partition("@")[0] if given.llm else None)
    made_by = (named, where, settings.hops, settings.threshold)
    return sha256(repr(made_by).encode("utf-8", "replace")).hexdigest()[:16]
