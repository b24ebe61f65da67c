"""The experts a user has: a TOML file, `experts.toml`, of what answers and what it is good at.

    [experts.reader]
    kind = "embedded"                       # embedded | chat | adapter
    card = "Short answers read out of passages."

    [experts.tickets]
    kind = "adapter"                        # a LoRA adapter on a vLLM server, by its model id
    model = "tickets"
    url = "http://127.0.0.1:8000"
    base = "Qwen/Qwen3-4B"
    path = "/models/tickets"
    card = "Answers questions about support tickets."
    price = { prompt = 0.1, output = 0.3, parameters = 4e9 }

Keys of a server are never in it: they come from the environment. A change replaces the file as a whole.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from agentmtl.errors import UsageError
from agentmtl.experts.calling import Price
from agentmtl.settings import config_folder

Kind: TypeAlias = Literal["embedded", "chat", "adapter"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FILE = "experts.toml"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.A)
_HINT = "See agentmtl experts add --help for what an expert has."


@dataclass(frozen=True, slots=True)
class ExpertEntry:
    """A registered expert. `card`: what it is good at, which the router reads; `examples`: questions for it.

    `model`: of an embedded expert its name (reader, sentences, a head's folder), of a chat model
    PROVIDER:MODEL, of an adapter its id on the server at `url`; `base` and `path` are the adapter's model and
    folder, for `plan`.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values, without what is empty and without the name."""
        price = {n: v for n, v in asdict(self.price).items() if v}
        found = {**asdict(self), "examples": list(self.examples), "price": price}
        del found["name"]
        return {name: value for name, value in found.items() if value}

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
        for name in ("model", "url", "base", "path"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{where}: {self.name} has a {name} that is no text.", _HINT)
        if not all(isinstance(example, str) for example in self.examples):
            raise UsageError(f"{where}: {self.name} has examples that are no texts.", _HINT)
        if self.kind != "embedded" and not self.model:
            raise UsageError(f"{where}: {self.name} names no model.", _HINT)
        if not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise UsageError(f"{where}: {self.name} may write no token.", "Give max_tokens of 1 and more.")
        return self


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


# --- serving --------------------------------------------------------------------------------------------

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM accepts as --max-lora-rank


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """How to serve the adapters of one base model: `command` is the exact command, as arguments; `bytes` what
    the adapters' files hold, None where one is not on this machine."""

    base: str
    url: str
    adapters: tuple[str, ...]
    max_rank: int
    bytes: int | None
    command: tuple[str, ...]


def plan(entries: Mapping[str, ExpertEntry]) -> list[ServerPlan]:
    """A server for each base model and address that adapters are registered for.

    The highest rank is that of the adapters, for a higher one costs memory and speed, and all adapters fit at
    once, for swapping them costs more. Raises UsageError for an adapter without base or path, or whose
    adapter_config.json cannot be read.
    """
    groups: dict[tuple[str, str], list[ExpertEntry]] = {}
    for entry in entries.values():
        if entry.kind == "adapter":
            if not entry.base or not entry.path:
                raise UsageError(
                    f"The adapter {entry.name} names no base model or no folder.",
                    "Register it with --base and --path.",
                )
            groups.setdefault((entry.base, entry.url), []).append(entry)
    return [_server(base, url, adapters) for (base, url), adapters in groups.items()]


def _server(base: str, url: str, adapters: list[ExpertEntry]) -> ServerPlan:
    ranks, sizes = zip(*(_adapter(entry) for entry in adapters), strict=True)
    most = max(ranks)
    rank = next((known for known in RANKS if known >= most), most)
    host, port = _address(url)
    command = (
        "vllm", "serve", base, "--host", host, "--port", port, "--enable-lora",
        "--max-loras", str(len(adapters)), "--max-lora-rank", str(rank),
        "--lora-modules", *(f"{entry.model}={entry.path}" for entry in adapters),
    )  # fmt: skip
    known = None if None in sizes else sum(size for size in sizes if size)
    return ServerPlan(base, url, tuple(entry.name for entry in adapters), rank, known, command)


def _adapter(entry: ExpertEntry) -> tuple[int, int | None]:
    """(rank, bytes of the weights)."""
    folder = Path(entry.path)
    try:
        rank = int(json.loads((folder / "adapter_config.json").read_text("utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"The adapter {entry.name} has no adapter_config.json with its rank in {folder}.",
            "Register the folder that peft wrote.",
        ) from error
    weights = folder / "adapter_model.safetensors"
    return rank, weights.stat().st_size if weights.is_file() else None


def _address(url: str) -> tuple[str, str]:
    from urllib.parse import urlsplit

    parts = urlsplit(url or "http://127.0.0.1:8000")
    return parts.hostname or "127.0.0.1", str(parts.port or 8000)
