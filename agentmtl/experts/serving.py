"""How to serve the registered adapters with vLLM: the exact command, and the memory that it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from agentmtl.errors import UsageError
from agentmtl.experts.registry import ExpertEntry

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM accepts as --max-lora-rank


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """How to serve the adapters of one base model: `command` is the exact command, as arguments.

    Memory, in bytes, None where files are not on this machine: `base_bytes` of the model's weights, `bytes`
    of the adapters' files, `slot_bytes` of the slots that the server sets aside for adapters, each as large
    as the largest would be at the highest rank (a server may round up further).
    """

    base: str
    url: str
    adapters: tuple[str, ...]
    max_rank: int
    max_loras: int
    base_bytes: int | None
    bytes: int | None
    slot_bytes: int | None
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
    known = [size for size in sizes if size is not None]
    every = len(known) == len(sizes)
    largest = max((ceil(s * rank / r) for s, r in zip(known, ranks, strict=False)), default=0)
    return ServerPlan(
        base, url, tuple(entry.name for entry in adapters), rank, len(adapters), _weights(Path(base)),
        sum(known) if every else None, largest * len(adapters) if every else None, command,
    )  # fmt: skip


def _weights(folder: Path) -> int | None:
    """Bytes of a model's weights, where it is a folder that has them."""
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    return sum(file.stat().st_size for file in files) if files else None


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
