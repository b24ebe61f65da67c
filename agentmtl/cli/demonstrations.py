"""agentmtl demos, and the predictions of agentmtl run: labelled examples, and what they say of inputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from agentmtl.cli.output import (
    BackendFlag,
    IndexFlag,
    JsonFlag,
    bold,
    dim,
    emit,
    index_folder,
    say,
    settings_from,
    tell,
    watching,
)
from agentmtl.errors import StorageError, UsageError
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.experts.bank import LearnedBank
    from agentmtl.experts.demonstrations import Vote, Voter, VoterSettings
    from agentmtl.retrieval.demonstrations import Selection
    from agentmtl.retrieval.index import Index
    from agentmtl.tasks import Task

BANKS = ("task", "prior", "all")
AT_ONCE = 64  # inputs encoded together
READ_AT_ONCE = 4  # of which a language model reads each many times
FAILED = 1

TaskFlag = Annotated[str, typer.Option("--task", "-t", help="A task of the index, or a task card's path.")]
Count = Annotated[int, typer.Option("-k", help="How many demonstrations.", min=1, max=1000)]
ChannelFlag = Annotated[str, typer.Option("--channel", help="fused, dense, lexical or identifiers.")]
Diversity = Annotated[
    float, typer.Option("--diversity", help="0: the best; towards 1: unlike each other.", min=0, max=1)
]
Balance = Annotated[bool, typer.Option("--balance", help="Take the outputs in turn.")]
Bank = Annotated[str, typer.Option("--bank", help="task, prior (all tasks, this one preferred) or all.")]
TaskBank = Annotated[
    str,
    typer.Option(
        "--bank",
        help="task, prior (all tasks, this one preferred), all; for few examples: shipped, or a folder.",
    ),
]


def demos(
    text: Annotated[str, typer.Argument(help="The input.")],
    task: TaskFlag,
    index: IndexFlag = None,
    k: Count = 8,
    channel: ChannelFlag = "fused",
    diversity: Diversity = 0.0,
    balance: Balance = False,
    bank: Bank = "task",
    backend: BackendFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """The labelled examples nearest to an input, best first.

    Examples:

      agentmtl demos "When was the telephone invented?" --task trec --index indexes/tasks

      agentmtl demos "cheap flights to Boston" --task intents --index indexes/tasks -k 4 --balance --json
    """
    from agentmtl.retrieval.demonstrations import select
    from agentmtl.retrieval.index import Index

    settings = settings_from(backend=backend)
    opened = Index.open(index_folder(index), backend=settings.backend)
    card = _task(opened, task)
    found = select(opened.retriever, text, card.name, _selection(k, channel, diversity, balance, bank))
    hits = found.hits[::-1]  # for reading: best first
    if as_json:
        emit(
            {"schema": SCHEMA_VERSION, "query": text, "task": card.name, "hits": [h.to_json() for h in hits]}
        )
        return
    for rank, hit in enumerate(hits, 1):
        say(f"{rank:>2}. {bold(str(hit.unit.metadata.get('output')))}  {dim(f'{hit.score:.3f}')}")
        say(f"    {' '.join(hit.text.split())}")
    if not hits:
        tell("No demonstrations.")


@dataclass(frozen=True, slots=True)
class Predicting:
    """The options of predictions as given. `nearest` None: what is unusual for the task. `llm`: a language
    model that reads, by name."""

    k: int = 8
    channel: str = "fused"
    diversity: float = 0.0
    balance: bool = False
    bank: str = "task"
    threshold: float = 0.0
    nearest: float | None = None
    llm: str | None = None


def predict_lines(opened: Index, task: str, out: Path | None, given: Predicting, quiet: bool) -> None:
    """Predict for every line of stdin from labelled examples; see `agentmtl run`."""
    from agentmtl.experts.demonstrations import VoterSettings, usual_nearest

    card = _task(opened, task)
    learned = _learned(given.bank)
    bank = "task" if learned else given.bank
    chosen = _selection(given.k, given.channel, given.diversity, given.balance, bank)
    nearest = usual_nearest(opened.retriever, card.name) if given.nearest is None else given.nearest
    settings = VoterSettings(chosen, threshold=given.threshold, nearest=nearest)
    voter = _voter(opened, card, settings, learned, given.llm)
    made_by = repr((card, settings, *([repr(learned.card)] if learned else []), *filter(None, [given.llm])))
    with appending(out) as stream, watching("predicting", quiet) as watch:
        done, failures = _resumed(sys.stdin.buffer, out, made_by)
        watch(done)
        lines = (raw for raw in sys.stdin.buffer if raw.strip())
        while batch := list(islice(lines, READ_AT_ONCE if given.llm else AT_ONCE)):
            for record in _predicted(voter, batch, made_by):
                failures += "error" in record
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            stream.flush()
            watch(len(batch))
    if failures:
        tell(f"{failures} lines could not be read; their outputs say why.")
        raise typer.Exit(FAILED)


def _learned(bank: str) -> LearnedBank | None:
    """The bank in a folder; None for a word that says which examples of the index vote."""
    if bank in BANKS:
        return None
    from agentmtl.experts.bank import open_bank

    return open_bank(bank)


def _voter(
    index: Index, card: Task, settings: VoterSettings, learned: LearnedBank | None, llm: str | None
) -> Voter:
    """A language model's where one is named, the bank's for a task with few examples, else the demonstration
    voter."""
    from agentmtl.experts.bank import FewVoter, has_few
    from agentmtl.experts.demonstrations import DemonstrationVoter

    if llm is not None:
        from agentmtl.experts.conditioned import ConditionedReader
        from agentmtl.integrations.models import open_scorer

        return ConditionedReader(index.retriever, card, open_scorer(llm), learned, settings)
    if learned is not None and has_few(index.retriever, card.name):
        return FewVoter(index.retriever, card, learned, settings)
    return DemonstrationVoter(index.retriever, card, settings)


def _task(index: Index, name: str) -> Task:
    """The card that is meant: the index's own of that name, or a file."""
    from agentmtl.tasks import load_task

    if name in index.tasks:
        return index.tasks[name]
    if Path(name).is_file():
        return load_task(Path(name))
    known = ", ".join(sorted(index.tasks)) or "none"
    raise UsageError(
        f"The index has no task {name!r} (it has {known}).",
        "Add it: agentmtl index add --task CARD --demos FILE --index DIR",
    )


def _selection(k: int, channel: str, diversity: float, balance: bool, bank: str) -> Selection:
    from agentmtl.retrieval.demonstrations import Selection
    from agentmtl.retrieval.retriever import CHANNELS

    if channel not in CHANNELS:
        raise UsageError(f"{channel!r} is not a channel.", f"Choose one of {', '.join(CHANNELS)}.")
    if bank not in BANKS:
        raise UsageError(f"{bank!r} is not a bank.", "Choose task, prior or all.")
    return Selection(k=k, channel=channel, diversity=diversity, balance=balance, bank=bank)  # type: ignore[arg-type]


# --- a run over many inputs -------------------------------------------------------------------------


def _predicted(voter: Voter, batch: Iterable[bytes], made_by: str) -> Iterator[dict[str, Any]]:
    """The output of each input line, in order."""
    read = [(raw, *_parsed(raw)) for raw in batch]
    good = [(record["input"], record.get("choices") or ()) for _, record, error in read if not error]
    votes = iter(_votes(voter, good))
    for raw, record, error in read:
        outcome = None if error else next(votes)
        if isinstance(outcome, UsageError):
            error = str(outcome)
        yield _output_record(raw, record, outcome if not error else None, error, made_by)


def _votes(voter: Voter, good: list[tuple[str, Any]]) -> list[Any]:
    """A vote for each, or the UsageError it gave; one bad record does not spoil its neighbours."""
    try:
        return list(voter.predict([text for text, _ in good], [options for _, options in good]))
    except UsageError:
        if len(good) > 1:
            return [outcome for one in good for outcome in _votes(voter, [one])]
        return [_caught(voter, good[0])]


def _caught(voter: Voter, one: tuple[str, Any]) -> Any:
    try:
        return voter.predict([one[0]], [one[1]])[0]
    except UsageError as error:
        return error


def _parsed(raw: bytes) -> tuple[dict[str, Any], str]:
    """(the record, what is wrong with it)."""
    try:
        record = json.loads(raw.decode("utf-8-sig"))
        json.dumps(record, ensure_ascii=False).encode()  # an escaped half of a surrogate pair is no text
    except ValueError as error:
        return {}, f"no JSON: {error}"
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("input"), str)
        or not record["input"].strip()
    ):
        return {}, 'no {"input": "…"}'
    choices = record.get("choices")
    if choices is not None and not (
        isinstance(choices, list) and choices and all(isinstance(c, str) for c in choices)
    ):
        return record, "choices are not a list of texts"
    return record, ""


def _output_record(
    raw: bytes, record: dict[str, Any], vote: Vote | None, error: str, made_by: str
) -> dict[str, Any]:
    data: dict[str, Any] = {"input": record.get("input", raw.decode("utf-8", "replace").strip())}
    if vote is None:
        data |= {"output": "", "probabilities": {}, "demonstrations": [], "abstained": True, "error": error}
    else:
        data |= {
            "output": vote.output,
            "probabilities": {output: round(p, 6) for output, p in vote.probabilities.items()},
            "demonstrations": [hit.id for hit in vote.demonstrations],
            "abstained": vote.abstained,
        }
    return data | {"sha256": _digest(raw, made_by)}


def _digest(raw: bytes, made_by: str) -> str:
    """Changes with the input line, the card and the options."""
    return sha256(made_by.encode("utf-8", "replace") + b"\n" + raw.strip()).hexdigest()[:16]


@contextmanager
def appending(out: Path | None) -> Iterator[IO[str]]:
    """stdout, or the end of a file whose last line, where a kill cut it off, is taken away."""
    if out is None:
        yield sys.stdout
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _cut_off(out)
        stream = out.open("a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror}.", "Choose another --out.") from error
    with stream:
        yield stream


def _cut_off(out: Path) -> None:
    """Take away what follows the last line feed of a file, if it is there."""
    if out.exists():
        whole = out.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            with out.open("r+b") as broken:
                broken.truncate(end)


def _resumed(inputs: Iterable[bytes], out: Path | None, made_by: str) -> tuple[int, int]:
    """Pass over the inputs that have an output already: (how many, how many of these are errors).

    Raises UsageError where the outputs are of other inputs or options.
    """
    if out is None:
        return 0, 0
    lines = (raw for raw in inputs if raw.strip())
    failures = number = 0
    with out.open("rb") as done:
        for number, line in enumerate(done, 1):
            record, error = _parsed(line)
            raw = next(lines, None)
            if error or raw is None or record.get("sha256") != _digest(raw, made_by):
                raise UsageError(
                    f"{out}, line {number}, is the output of another input, or was made with other options.",
                    "Give the same inputs and options again, or another --out.",
                )
            failures += "error" in record
    return number, failures
