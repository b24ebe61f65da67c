"""The stream files of a generation.

    streams/<tokeniser's identity>/tokenizer            its name in a line, then its tokenizer.json: an index
                                                        is searched without the model
    streams/<tokeniser's identity>/<segment>.arrays     a segment's stream, safetensors

They are listed in the manifest with size and hash. A stream belongs to the generation and not to the
segment, so another model's can be added to an index that is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from agentmtl.errors import IndexDamagedError, UsageError
from agentmtl.index.files import FileEntry, hash_file, remove, sync_folder, write_file
from agentmtl.index.identifiers.stream import Stream, build_arrays
from agentmtl.index.identifiers.tokenizer import StreamTokenizer, tokenizer_of
from agentmtl.index.live import DOCUMENTS
from agentmtl.index.postings import read_arrays, write_arrays
from agentmtl.index.segment import Segment
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.trust import Trust

STREAMS_NAME = "streams"
TOKENIZER_NAME = "tokenizer"
_SUFFIX = ".arrays"

StreamFiles = Mapping[str, FileEntry]  # file name in the stream's folder → entry


def write_streams(
    folder: Path,
    known: Mapping[str, StreamFiles],
    new: Iterable[StreamTokenizer],
    segments: Iterable[Segment],
) -> dict[str, dict[str, FileEntry]]:
    """Write what the streams lack for these segments; the files of the generation, by stream.

    `known` are those of the generation before. Raises what the disk refuses, as it is.
    """
    segments = list(segments)
    tokenizers = {t.identity: t for t in new}
    streams: dict[str, dict[str, FileEntry]] = {}
    for name in sorted({*known, *tokenizers}):
        place = folder / STREAMS_NAME / name
        tokenizer = tokenizers.get(name)
        had = known.get(name, {})
        if tokenizer is None:
            missing = [s for s in segments if s.name + _SUFFIX not in had]
            tokenizer = _read_tokenizer(place, had[TOKENIZER_NAME]) if missing else None
        streams[name] = _write_stream(place, had, tokenizer, segments)
    return streams


def _write_stream(
    place: Path, had: StreamFiles, tokenizer: StreamTokenizer | None, segments: Iterable[Segment]
) -> dict[str, FileEntry]:
    files: dict[str, FileEntry] = {}
    if TOKENIZER_NAME in had:
        files[TOKENIZER_NAME] = had[TOKENIZER_NAME]
    elif tokenizer is not None:
        place.mkdir(parents=True, exist_ok=True)
        text = f"{' '.join(tokenizer.name.split())}\n{tokenizer.json}"
        files[TOKENIZER_NAME] = _write(place / TOKENIZER_NAME, text.encode())
    for segment in segments:
        file = segment.name + _SUFFIX
        if file in had:
            files[file] = had[file]
        elif tokenizer is not None:
            remove(place / file)  # of a commit that got no further
            files[file] = write_arrays(place / file, build_arrays(segment, tokenizer))
    if len(files) > len(had) or any(file not in had for file in files):
        sync_folder(place)
        sync_folder(place.parent)
    return files


def _write(path: Path, data: bytes) -> FileEntry:
    remove(path)
    return write_file(path, [data])


def unneeded_streams(folder: Path, streams: Mapping[str, StreamFiles]) -> list[Path]:
    """Files and folders below streams/ that a generation does not name."""
    root = folder / STREAMS_NAME
    if not root.is_dir():
        return []
    found: list[Path] = []
    for place in root.iterdir():
        files = streams.get(place.name)
        found += [place] if files is None else [p for p in place.iterdir() if p.name not in files]
    return found


# --- reading ----------------------------------------------------------------------------------------


def stream_name(snapshot: Snapshot, wanted: str | None = None) -> str:
    """The stream that is meant. Raises UsageError where the index has none, or not that one."""
    streams = snapshot.manifest.streams
    if wanted is None and len(streams) > 1:
        from agentmtl.index.identifiers.tokenizer import load_tokenizer

        wanted = load_tokenizer().identity
        wanted = wanted if wanted in streams else sorted(streams)[0]
    if wanted is None and streams:
        return next(iter(streams))
    if wanted is None or wanted not in streams:
        of, option = ("", "") if wanted is None else (f" of the tokeniser {wanted}", " --tokenizer MODEL")
        raise UsageError(
            f"The index in {snapshot.folder} has no token stream{of}.",
            f"Add one: agentmtl index stream {snapshot.folder}{option}",
        )
    return wanted


def has_stream(snapshot: Snapshot) -> bool:
    """Whether the index can be searched by identifiers."""
    return bool(snapshot.manifest.streams)


def stored_tokenizer(snapshot: Snapshot, name: str) -> StreamTokenizer:
    """The tokeniser of a stream, from the index itself. Raises IndexDamagedError."""
    place = snapshot.folder / STREAMS_NAME / name
    return _read_tokenizer(place, snapshot.manifest.streams[name][TOKENIZER_NAME])


def _read_tokenizer(place: Path, entry: FileEntry) -> StreamTokenizer:
    path = place / TOKENIZER_NAME
    relative = f"{STREAMS_NAME}/{place.name}/{TOKENIZER_NAME}"
    try:
        if hash_file(path) != entry:
            raise IndexDamagedError.of_file(relative, "its bytes do not match their hash")
        name, text = path.read_text("utf-8").split("\n", 1)
    except OSError as error:
        raise IndexDamagedError.of_file(relative, f"cannot be read ({error.strerror})") from error
    return tokenizer_of(text, name)


def open_streams(snapshot: Snapshot, name: str) -> dict[int, Stream]:
    """The stream of every segment, by its number. Raises IndexDamagedError, naming the file."""
    trust = Trust(snapshot.folder)
    files = snapshot.manifest.streams[name]
    found: dict[int, Stream] = {}
    for number, segment in enumerate(snapshot.segments):
        path = snapshot.folder / STREAMS_NAME / name / (segment.name + _SUFFIX)
        trust.check(path, files[segment.name + _SUFFIX])
        dead = snapshot.dead_in(segment).at(DOCUMENTS)
        try:
            found[number] = Stream(read_arrays(path), segment, dead)
        except OSError as error:
            relative = path.relative_to(snapshot.folder).as_posix()
            raise IndexDamagedError.of_file(relative, f"cannot be read ({error.strerror})") from error
    trust.save()
    return found
