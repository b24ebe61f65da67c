"""What a generation is made of, and how CURRENT names it.

    CURRENT                     one line: format, generation, SHA-256 of the manifest
    manifest-00000007.json      settings, segments (by the SHA-256 of their segment.json), tombstone files
    segments/<name>/segment.json    every file of the segment with size and SHA-256, and counts

So one hash, in CURRENT, covers every byte that is served. Files are canonical JSON (sorted keys), which
makes any flipped byte visible.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentmtl.errors import IndexDamagedError, IndexFormatError, IndexMissingError, UsageError
from agentmtl.index.files import TEMPORARY_SUFFIX, FileEntry
from agentmtl.ingest import Chunking
from agentmtl.schema import LEVELS, Level
from agentmtl.trunk.encoder import EncoderIdentity

FORMAT = 1
CURRENT_NAME = "CURRENT"
SEGMENTS_NAME = "segments"
SEGMENT_MANIFEST = "segment.json"
MANIFEST_PATTERN = re.compile(r"manifest-(\d{8})\.json")
TOMBSTONE_PATTERN = re.compile(r"tombstones-(\d{8})\.json")
SEGMENT_PATTERN = re.compile(r"\d{6,}-[0-9a-f]{8}")
_CURRENT_FORMAT = re.compile(rb"agentmtl-index (\d{1,4}) ")
_CURRENT_PATTERN = re.compile(rb"agentmtl-index (\d{1,4}) (\d{1,8}) ([0-9a-f]{64})\n")

DEFAULT_LEVELS: tuple[Level, ...] = ("document", "passage", "sentence", "entity")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What may not change while an index lives; `rebuild` makes an index with others.

    Raises UsageError for levels that do not go together: entities are found through passages.

    `factory` is "Flat" or a FAISS factory string used for levels with enough units in a segment.
    `k1`, `b`: BM25. `title_prefix`: passages are encoded and matched with their title in front.
    """

    encoder: EncoderIdentity
    chunking: Chunking = field(default_factory=Chunking)
    levels: tuple[Level, ...] = DEFAULT_LEVELS
    factory: str = "Flat"
    title_prefix: bool = True
    k1: float = 1.2
    b: float = 0.75
    tokenizer: str = "words-1"

    def __post_init__(self) -> None:
        unknown = set(self.levels) - set(LEVELS)
        if unknown or not self.levels or len(set(self.levels)) < len(self.levels):
            raise UsageError(
                f"The levels {', '.join(self.levels) or '(none)'} cannot be indexed.",
                f"Name some of {', '.join(LEVELS)}, each once.",
            )
        if "entity" in self.levels and "passage" not in self.levels:
            raise UsageError("Entities are found through passages.", "Index the level passage too.")

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {
            **plain,
            "encoder": self.encoder.to_json(),
            "chunking": self.chunking.to_json(),
            "levels": list(self.levels),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> IndexSettings:
        return cls(
            **{
                **data,
                "encoder": EncoderIdentity.from_json(data["encoder"]),
                "chunking": Chunking.from_json(data["chunking"]),
                "levels": tuple(data["levels"]),
            }
        )

    @property
    def stored_levels(self) -> tuple[Level, ...]:
        """The levels, and that of demonstrations, which any index may hold."""
        return self.levels if "demonstration" in self.levels else (*self.levels, "demonstration")

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes what a segment holds (not with the encoder's name)."""
        data = self.to_json()
        data["encoder"]["name"] = ""
        return hashlib.sha256(canonical_json(data)).hexdigest()


@dataclass(frozen=True, slots=True)
class LevelCounts:
    """Units of one level in a segment, and their words (for BM25's mean length)."""

    units: int
    words: int


@dataclass(frozen=True, slots=True)
class SegmentManifest:
    """`base` is the SHA-256 of the manifest the segment was written on top of ("" for none)."""

    name: str
    base: str
    fingerprint: str
    documents: int
    levels: Mapping[Level, LevelCounts]
    files: Mapping[str, FileEntry]

    def to_bytes(self) -> bytes:
        data = {
            "format": FORMAT,
            "name": self.name,
            "base": self.base,
            "fingerprint": self.fingerprint,
            "documents": self.documents,
            "levels": {level: asdict(counts) for level, counts in self.levels.items()},
            "files": {name: entry.to_json() for name, entry in self.files.items()},
        }
        return canonical_json(data)

    @classmethod
    def from_bytes(cls, raw: bytes) -> SegmentManifest:
        data = json.loads(raw)
        check_format(data["format"])
        return cls(
            name=data["name"],
            base=data["base"],
            fingerprint=data["fingerprint"],
            documents=data["documents"],
            levels={level: LevelCounts(**counts) for level, counts in data["levels"].items()},
            files={name: FileEntry(**entry) for name, entry in data["files"].items()},
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A generation. `segments` maps names to the SHA-256 of their segment.json, in order of age."""

    generation: int
    settings: IndexSettings
    segments: Mapping[str, FileEntry]
    tombstones: Mapping[str, FileEntry]
    live: Mapping[Level, int]
    code_version: str
    created: str  # ISO 8601, UTC, of this generation
    streams: Mapping[str, Mapping[str, FileEntry]] = field(default_factory=dict)  # token streams' files
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # task cards, by name
    fitted: Mapping[str, Any] = field(default_factory=dict)  # see `agentmtl.retrieval.fitted`

    def to_bytes(self) -> bytes:
        data: dict[str, Any] = {
            "format": FORMAT,
            "generation": self.generation,
            "settings": self.settings.to_json(),
            "segments": [{"name": name, **entry.to_json()} for name, entry in self.segments.items()],
            "tombstones": {name: entry.to_json() for name, entry in self.tombstones.items()},
            "live": dict(self.live),
            "code_version": self.code_version,
            "created": self.created,
        }
        if self.streams:  # what an index does not have leaves its manifest as it always was
            data["streams"] = {
                stream: {name: entry.to_json() for name, entry in files.items()}
                for stream, files in self.streams.items()
            }
        if self.tasks:
            data["tasks"] = {name: dict(card) for name, card in self.tasks.items()}
        if self.fitted:
            data["fitted"] = dict(self.fitted)
        return canonical_json(data)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Manifest:
        data = json.loads(raw)
        check_format(data["format"])
        return cls(
            generation=data["generation"],
            settings=IndexSettings.from_json(data["settings"]),
            segments={s["name"]: FileEntry(s["size"], s["sha256"]) for s in data["segments"]},
            tombstones={name: FileEntry(**entry) for name, entry in data["tombstones"].items()},
            live=data["live"],
            code_version=data["code_version"],
            created=data["created"],
            streams={
                stream: {name: FileEntry(**entry) for name, entry in files.items()}
                for stream, files in data.get("streams", {}).items()
            },
            tasks=data.get("tasks", {}),
            fitted=data.get("fitted", {}),
        )

    @property
    def name(self) -> str:
        return manifest_name(self.generation)


def manifest_name(generation: int) -> str:
    return f"manifest-{generation:08d}.json"


def canonical_json(data: Any) -> bytes:
    """One spelling for one value: sorted keys, no white space, one newline at the end."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def check_format(version: int) -> None:
    """Raise IndexFormatError for a format that this version does not read."""
    if version == FORMAT:
        return
    if version > FORMAT:
        raise IndexFormatError(
            f"The index has format {version}; this agentmtl reads up to {FORMAT}.",
            "Upgrade agentmtl: pip install --upgrade agentmtl",
        )
    raise IndexFormatError(
        f"The index has format {version}, older than this agentmtl reads ({FORMAT}).",
        "Build it again from its files: agentmtl index build PATH… --out DIR",
    )


def current_line(generation: int, manifest: bytes) -> bytes:
    """The content of CURRENT for a manifest with these bytes."""
    return b"agentmtl-index %d %d %s\n" % (
        FORMAT,
        generation,
        hashlib.sha256(manifest).hexdigest().encode(),
    )


def read_current(folder: Path) -> tuple[Manifest, str]:
    """The published manifest of `folder` and its SHA-256 (hex).

    Raises IndexMissingError where nothing was ever published, IndexDamagedError where CURRENT or the
    manifest was altered, IndexFormatError for another version's format.
    """
    try:
        line = (folder / CURRENT_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _without_current(folder) from error
    except OSError as error:
        raise IndexDamagedError.of_file(CURRENT_NAME, f"cannot be read ({error.strerror})") from error
    if stated := _CURRENT_FORMAT.match(line):
        check_format(int(stated[1]))
    match = _CURRENT_PATTERN.fullmatch(line)
    if match is None:
        raise IndexDamagedError.of_file(CURRENT_NAME, "not a line this version writes")
    generation, sha256 = int(match[2]), match[3].decode()
    name = manifest_name(generation)
    try:
        raw = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise IndexDamagedError.of_file(name, "missing") from error
    except OSError as error:
        raise IndexDamagedError.of_file(name, f"cannot be read ({error.strerror})") from error
    if hashlib.sha256(raw).hexdigest() != sha256 or line != current_line(generation, raw):
        raise IndexDamagedError.of_file(name, "does not match the hash in CURRENT")
    return Manifest.from_bytes(raw), sha256


def _without_current(folder: Path) -> IndexMissingError | IndexDamagedError:
    """A first build that was interrupted left the CURRENT it was about to publish; else it was lost."""
    staged = (folder / (CURRENT_NAME + TEMPORARY_SUFFIX)).exists()
    if not staged and any(MANIFEST_PATTERN.fullmatch(p.name) for p in folder.glob("manifest-*")):
        return IndexDamagedError.of_file(CURRENT_NAME, "missing")
    if (folder / SEGMENTS_NAME).is_dir():
        return IndexMissingError(
            f"{folder} holds an unfinished build.", "Run the same index build again: it resumes."
        )
    return IndexMissingError(
        f"There is no index in {folder}.", f"Make one: agentmtl index build PATH… --out {folder}"
    )
