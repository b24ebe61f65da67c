"""agentmtl index …: make an index, change it, look after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentmtl.cli import index_state
from agentmtl.cli.demonstration_files import (
    DemoFiles,
    ExamplesBy,
    TaskCards,
    TaskPairs,
    add_pairs,
    task_pairs,
)
from agentmtl.cli.index_state import Folder, fitted_hash, folder_size, open_index, show_info
from agentmtl.cli.output import (
    BackendFlag,
    EncoderFlag,
    JsonFlag,
    QuietFlag,
    SegmenterFlag,
    Watch,
    emit,
    plural,
    say,
    segmenter_name,
    settings_from,
    tell,
    watching,
)
from agentmtl.errors import UsageError
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.index.build import BuildReport
    from agentmtl.retrieval.index import Index

app = typer.Typer(
    no_args_is_help=True, help="Make an index, change it, look after it.", rich_markup_mode=None
)

SomePaths = Annotated[
    list[str] | None, typer.Argument(help="Files, folders or globs.", metavar="[PATH…]", show_default=False)
]
Paths = Annotated[list[str], typer.Argument(help="Files, folders or globs.", metavar="PATH…")]
Where = Annotated[str | None, typer.Option("--index", "-i", help="Folder of the index.", metavar="DIR")]

SHOWN_SKIPS = 10  # skipped files listed for people; --json has them all


@app.command("build")
def build(
    paths: SomePaths = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index.")],
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    factory: Annotated[
        str | None, typer.Option(help="FAISS factory string: Flat, HNSW32, IVF256,Flat.")
    ] = None,
    passage_words: Annotated[int | None, typer.Option(help="Words of a passage, at most.")] = None,
    overlap_sentences: Annotated[
        int | None, typer.Option(help="Sentences neighbouring passages share.")
    ] = None,
    levels: Annotated[
        str, typer.Option(help="Comma-separated: document, passage, sentence, entity.")
    ] = "document,passage,sentence,entity",
    chunker: Annotated[
        str, typer.Option(help="sentences (windows of whole sentences) or topics (cut where it changes).")
    ] = "sentences",
    segmenter: SegmenterFlag = None,
    streams: Annotated[
        str, typer.Option(help="Tokenisers of the n-gram identifiers: default, none, or folders.")
    ] = "default",
    task: TaskCards = None,
    demos: DemoFiles = None,
    examples_by: ExamplesBy = "auto",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Build an index of files (.txt .md .html .pdf .docx .csv .json .jsonl), of labelled examples, or both.

    Building again into the same folder reads only what changed and drops what has vanished. A build that
    was interrupted resumes.

    Examples:

      agentmtl index build ./docs --out indexes/docs

      agentmtl index build corpus.jsonl --out indexes/corpus --levels passage,sentence --json

      agentmtl index build --task trec.json --demos train.jsonl --out indexes/tasks
    """
    from agentmtl.retrieval.example_encoder import check_reader
    from agentmtl.retrieval.index import Index
    from agentmtl.trunk import load_encoder

    settings = settings_from(
        encoder=encoder,
        backend=backend,
        factory=factory,
        passage_words=passage_words,
        overlap_sentences=overlap_sentences,
    )
    pairs = task_pairs(task, demos, bool(paths), examples_by)
    if examples_by != "auto":
        check_reader(examples_by, load_encoder(settings.encoder, backend=settings.backend).identity)
    with watching("building", quiet or as_json) as watch:
        index, report = Index.build(
            out,
            _expect(paths or [], watch),
            encoder=settings.encoder,
            backend=settings.backend,
            factory=settings.factory,
            levels=_levels(levels),
            passage_words=settings.passage_words,
            overlap_sentences=settings.overlap_sentences,
            chunker=chunker,
            segmenter=segmenter_name(segmenter),
            streams=[] if streams == "none" else streams.split(","),
            progress=watch,
            on_document=lambda d: watch.read(len(d.text)),
        )
        add_pairs(index, pairs, report, watch, examples_by)
    _report(index, report, as_json, bool(pairs))


@app.command("add")
def add(
    paths: SomePaths = None,
    index: Where = None,
    task: TaskCards = None,
    demos: DemoFiles = None,
    examples_by: ExamplesBy = "auto",
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop what came from files that have vanished.")
    ] = False,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Add files, labelled examples or both; what is unchanged costs nothing.

    Examples:

      agentmtl index add ./more-docs --index indexes/docs

      agentmtl index add --task trec.json --demos train.jsonl --index indexes/docs --json
    """
    pairs = task_pairs(task, demos, bool(paths), examples_by)
    _change(paths or [], index, backend, quiet, as_json, prune=prune, pairs=pairs, by=examples_by)


@app.command("update")
def update(
    paths: Paths,
    index: Where = None,
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Re-read files whose documents are in the index already; new ones are left out.

    Examples:

      agentmtl index update ./docs/changed.md --index indexes/docs

      agentmtl index update ./docs --index indexes/docs --json
    """
    _change(paths, index, backend, quiet, as_json, only_known=True)


def _change(
    paths: list[str],
    folder: str | None,
    backend: str | None,
    quiet: bool,
    as_json: bool,
    prune: bool = False,
    only_known: bool = False,
    pairs: TaskPairs = (),
    by: ExamplesBy = "auto",
) -> None:
    from agentmtl.index.build import BuildReport
    from agentmtl.retrieval.example_encoder import check_reader

    opened = open_index(folder, backend)
    check_reader(by, opened.settings.encoder)
    with watching("adding", quiet or as_json) as watch:
        report = BuildReport()
        if paths:
            report = opened.add_paths(
                _expect(paths, watch),
                prune=prune,
                only_known=only_known,
                progress=watch,
                on_document=lambda d: watch.read(len(d.text)),
            )
        add_pairs(opened, pairs, report, watch, by)
    _report(opened, report, as_json, bool(pairs))


@app.command("delete")
def delete(
    ids: Annotated[list[str], typer.Argument(help="Source ids, files or document ids.", metavar="ID…")],
    index: Where = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete documents. Their text stays in the files until `agentmtl index compact`.

    Examples:

      agentmtl index delete docs/old.md --index indexes/docs

      agentmtl index delete 2w-00001 2w-00002 --index indexes/corpus --json
    """
    opened = open_index(index)
    count = opened.delete(ids)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "deleted": count, "generation": opened.snapshot.generation})
    else:
        say(f"Deleted {plural(count, 'document')}; generation {opened.snapshot.generation}.")


@app.command("stream")
def stream(
    folder: Folder,
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="default, or a folder with a tokenizer.json.")
    ] = "default",
    as_json: JsonFlag = False,
) -> None:
    """Add the n-gram identifiers of a tokeniser, for search by identifiers or a model's own vocabulary.

    Examples:

      agentmtl index stream indexes/docs

      agentmtl index stream indexes/docs --tokenizer models/reader --json
    """
    opened = open_index(folder)
    identity = opened.add_stream(tokenizer)
    if as_json:
        emit(
            {
                "schema": SCHEMA_VERSION,
                "stream": identity,
                "streams": sorted(opened.snapshot.manifest.streams),
            }
        )
    else:
        say(f"Token stream {identity} is in {opened.folder}.")


@app.command("refit")
def refit(
    folder: Folder,
    values: Annotated[
        Path | None, typer.Option("--values", help="A file of fitted values; this version's without it.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep other fitted values in an index: the weights of the fusion and of the hop search.

    An index goes on using those that it was made with, whatever a later version ships.

    Examples:

      agentmtl index refit indexes/docs

      agentmtl index refit indexes/docs --values weights.json --json
    """
    from agentmtl.retrieval.fitted import read_fitted

    opened = open_index(folder)
    opened.refit(None if values is None else read_fitted(values))
    if as_json:
        emit({"schema": SCHEMA_VERSION, "folder": str(opened.folder), "fitted": fitted_hash(opened)})
    else:
        say(f"{opened.folder} keeps the fitted values {fitted_hash(opened)}.")


@app.command("compact")
def compact(folder: Folder, as_json: JsonFlag = False) -> None:
    """Rewrite an index without its deleted units, which erases their text from the folder.

    Examples:

      agentmtl index compact indexes/docs

      agentmtl index compact indexes/docs --json
    """
    opened = open_index(folder)
    before = folder_size(opened.folder)
    opened.compact()
    after = folder_size(opened.folder)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "bytes_before": before, "bytes_after": after})
    else:
        say(f"Compacted: {before / 1e6:.1f} MB → {after / 1e6:.1f} MB.")


@app.command("rebuild")
def rebuild(
    folder: Folder,
    encoder: EncoderFlag = None,
    backend: BackendFlag = None,
    factory: Annotated[str | None, typer.Option(help="FAISS factory string.")] = None,
    examples_by: Annotated[
        Literal["auto", "head", "trunk"] | None,
        typer.Option(
            "--examples-by", help="What encodes labelled examples; by default as was chosen, or the better."
        ),
    ] = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Encode an index anew from its stored text, with another encoder or factory. Needs no source files.

    Examples:

      agentmtl index rebuild indexes/docs --encoder hashing

      agentmtl index rebuild indexes/docs --encoder default --factory HNSW32
    """
    opened = open_index(folder, backend)
    with watching("encoding", quiet or as_json) as watch:
        name = encoder or opened.settings.encoder.name
        opened.rebuild(encoder=name, factory=factory, by=examples_by, progress=watch)
    show_info(opened, as_json)


def _levels(text: str) -> tuple[Any, ...]:
    from agentmtl.index.manifest import DEFAULT_LEVELS

    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [level for level in chosen if level not in DEFAULT_LEVELS]
    if unknown or "passage" not in chosen:
        problem = f"{unknown[0]!r} is not a level" if unknown else "The passage level is always needed"
        raise UsageError(f"{problem}.", f"Choose from {', '.join(DEFAULT_LEVELS)}.")
    return chosen


def _expect(paths: list[str], watch: Watch) -> list[str]:
    from agentmtl.ingest import Limits, total_bytes

    if paths:  # without any, there are demonstrations alone
        watch.expect(total_bytes(paths, Limits()))
    return paths


def _report(index: Index, report: BuildReport, as_json: bool, examples: bool) -> None:
    """`examples`: some were given."""
    live = dict(index.snapshot.manifest.live)
    if as_json:
        summary = {
            "folder": str(index.folder), "generation": index.snapshot.generation, "units": live,
            "examples": index_state.examples_read(index),
        }  # fmt: skip
        emit({"schema": SCHEMA_VERSION, **summary, "report": report.to_json()})
        return
    for skipped in report.skipped[:SHOWN_SKIPS]:
        what = " ".join(part for part in (skipped.file, skipped.record) if part)
        tell(f"skipped  {what}: {skipped.reason}")
    if len(report.skipped) > SHOWN_SKIPS:
        tell(f"skipped  … and {len(report.skipped) - SHOWN_SKIPS:,} more (--json lists all)")
    counted = [(getattr(report, name), name) for name in ("added", "updated", "unchanged", "deleted")]
    changes = ", ".join(f"{count:,} {name}" for count, name in counted if count) or "nothing new"
    files = plural(report.files + report.unchanged_files, "file")
    say(f"{files}: {changes}; {len(report.skipped):,} skipped.")
    say(f"{index.folder} has " + ", ".join(f"{n:,} {level} units" for level, n in live.items()) + ".")
    for line in index_state.reading(index) if examples else ():
        say(line)
    tasks = sorted(index.snapshot.manifest.tasks)
    asking = f'demos "…" --task {tasks[0]}' if tasks and not live.get("passage") else 'ask "…"'
    say(f"Next: agentmtl {asking} --index {index.folder}")


app.command("verify")(index_state.verify)
app.command("info")(index_state.info)
app.command("list")(index_state.list_)
