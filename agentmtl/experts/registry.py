"""The experts a user has: a TOML file, `experts.toml`, of what answers and what it is good at.

    [experts.reader]
    kind = "embedded"                       # embedded | chat | adapter | tool | runnable
    card = "Short answers read out of passages."

    [experts.intents]
    kind = "embedded"
    model = "voter:intents"                 # votes by the index's labelled examples of that task
    path = "heads/bank"                     # of few examples: a bank that reads them (`train bank`)
    card = "Which intent a request has."

    [experts.tickets]
    kind = "adapter"                        # a LoRA adapter on a vLLM server, by its model id
    model = "tickets"
    url = "http://127.0.0.1:8000"
    base = "Qwen/Qwen3-4B"
    path = "/models/tickets"
    card = "Answers questions about support tickets."
    price = { prompt = 0.1, output = 0.3, parameters = 4e9 }
    seconds_a_call = 0.4                    # expected
    task = "cards/tickets.toml"             # a task card, for its prompt

    [experts.weather]
    kind = "tool"                           # or runnable: an object of LangChain, imported when it is opened
    target = "mycompany.tools:weather"
    card = "The weather of a town."
    usd_a_call = 0.001

A target is Python code that runs: read a registry as you would read a program before you use it. Keys of a
server are never in it: they come from the environment. A change replaces the file as a whole.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from agentmtl.errors import UsageError
from agentmtl.experts.calling import Price
from agentmtl.settings import config_folder

Kind: TypeAlias = Literal["embedded", "chat", "adapter", "tool", "runnable"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FILE = "experts.toml"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.A)
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_TEXTS = ("model", "url", "base", "path", "target", "task")
_HINT = "See agentmtl experts add --help for what an expert has."


@dataclass(frozen=True, slots=True)
class ExpertEntry:
    """A registered expert. `card`: what it is good at, which the router reads; `examples`: questions for it.

    `model`: of an embedded expert its name (reader, sentences, a head's folder, voter:TASK), of a chat
    model PROVIDER:MODEL, of an adapter its id on the server at `url`; `base` and `path` are the adapter's
    model and folder, for `plan`; the `path` of a voter is a bank's, for few examples. `target`: of a tool or
    Runnable, "package.module:name". `task`: the path of a task card. `usd_a_call` comes on top of the tokens'
    price; `seconds_a_call` is what to expect. `confidence`: of a tool's or Runnable's answers, the share that
    is right, as far as is known.
    """

    name: str
    kind: Kind
    card: str
    model: str = ""
    url: str = ""
    base: str = ""
    path: str = ""
    examples: tuple[str, ...] = ()
    price: Price = field(default_factory=Price)
    max_tokens: int = 256
    target: str = ""
    task: str = ""
    usd_a_call: float = 0.0
    seconds_a_call: float = 0.0
    confidence: float = 0.5

    def expected_usd(self, prompt_tokens: int = 1000) -> float:
        """What a call with a prompt of that length costs at most, in US dollars."""
        return self.usd_a_call + self.price.usd(prompt_tokens, self.max_tokens)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the name and what is as it is by default."""
        price = {n: v for n, v in asdict(self.price).items() if v}
        found = {**asdict(self), "examples": list(self.examples), "price": price}
        usual = {f.name: f.default for f in fields(self)} | {"examples": [], "price": {}}
        return {n: v for n, v in found.items() if n != "name" and v != usual[n]}

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any], where: str = FILE) -> ExpertEntry:
        """Raises UsageError for what is no expert, naming the field."""
        kind, card = data.get("kind"), data.get("card")
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of an expert.", "Use letters, digits, dots and dashes.")
        if kind not in KINDS:
            raise UsageError(f"{where}: {name} has the kind {kind!r}.", f"Choose one of {', '.join(KINDS)}.")
        if not isinstance(card, str) or not card.strip():
            raise UsageError(f"{where}: {name} has no card.", "Say in a sentence what it is good at.")
        unknown = sorted(set(data) - set(cls.__dataclass_fields__) - {"name"})
        if unknown:
            raise UsageError(f"{where}: {name} has an unknown field {unknown[0]!r}.", _HINT)
        given: dict[str, Any] = {**data, "examples": tuple(data.get("examples", ()))}
        try:
            entry = cls(name=name, **{**given, "price": Price(**dict(data.get("price", {})))})
        except TypeError as error:
            raise UsageError(f"{where}: {name} has a bad price: {error}.", _HINT) from error
        return entry._checked(where)

    def _checked(self, where: str) -> ExpertEntry:
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{where}: {self.name} has a {name} that is no text.", _HINT)
        if not all(isinstance(example, str) for example in self.examples):
            raise UsageError(f"{where}: {self.name} has examples that are no texts.", _HINT)
        if self.kind in ("chat", "adapter") and not self.model:
            raise UsageError(f"{where}: {self.name} names no model.", _HINT)
        if self.kind in ("tool", "runnable") and not _TARGET.fullmatch(self.target):
            raise UsageError(f"{where}: {self.name} has no target.", 'Write target = "package.module:name"')
        self._check_numbers(where)
        return self

    def _check_numbers(self, where: str) -> None:
        if not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise UsageError(f"{where}: {self.name} may write no token.", "Give max_tokens of 1 and more.")
        for name, most in (("usd_a_call", inf), ("seconds_a_call", inf), ("confidence", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise UsageError(f"{where}: {self.name} has a bad {name}: {value!r}.", _HINT)


READER = ExpertEntry(
    "reader",
    "embedded",
    "Short answers read out of passages: a name, a date, a number, yes or no.",
    "auto",
)


class Registry:
    """The file at `path` (default: experts.toml in the working folder, else in the user's configuration).

    Where there is none, the embedded reader is the only expert.
    """

    def __init__(self, path: Path | None = None) -> None:
        here = Path(FILE)
        self.path = path or (here if here.is_file() else config_folder() / FILE)

    def entries(self) -> dict[str, ExpertEntry]:
        """By name, in the file's order. Raises UsageError for a file that does not parse."""
        if not self.path.exists():
            return {READER.name: READER}
        try:
            data = tomllib.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.path} cannot be read: {error}.", "Mend that line of the file."
            ) from error
        tables = data.get("experts", {})
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            raise UsageError(f"{self.path} has no tables [experts.NAME].", _HINT)
        return {name: ExpertEntry.from_json(name, table, str(self.path)) for name, table in tables.items()}

    def get(self, name: str) -> ExpertEntry:
        """Raises UsageError for a name that is not there."""
        entries = self.entries()
        if name not in entries:
            raise UsageError(
                f"There is no expert {name!r}; there are {', '.join(entries)}.",
                "See them: agentmtl experts list",
            )
        return entries[name]

    def add(self, entry: ExpertEntry) -> None:
        """Raises UsageError where the name is taken."""
        entries = self.entries()
        if entry.name in entries and self.path.exists():
            raise UsageError(
                f"There is an expert {entry.name!r} already.", f"agentmtl experts remove {entry.name}"
            )
        self._write({**entries, entry.name: ExpertEntry.from_json(entry.name, entry.to_json())})

    def remove(self, name: str) -> None:
        """Raises UsageError for a name that is not there."""
        self.get(name)
        self._write({n: entry for n, entry in self.entries().items() if n != name})

    def _write(self, entries: Mapping[str, ExpertEntry]) -> None:
        import tomli_w

        text = tomli_w.dumps({"experts": {name: entry.to_json() for name, entry in entries.items()}})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        fresh.write_text(text, "utf-8")
        fresh.replace(self.path)
