"""`Index`: the public face of the store and the retriever.

index = Index.create("indexes/mine")
index.add([Document("a", "Ada Lovelace wrote the first program.")])
for hit in index.retrieve("Who wrote the first program?", k=3): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from numpy.typing import ArrayLike

from agentmtl.errors import EncoderMismatchError, UsageError
from agentmtl.index.batch import Progress
from agentmtl.index.build import BuildReport, add_documents, add_paths, rebuild
from agentmtl.index.identifiers.tokenizer import load_tokenizer
from agentmtl.index.manifest import DEFAULT_LEVELS, IndexSettings
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.store import Store
from agentmtl.index.verify import VerifyReport, verify
from agentmtl.ingest import Chunking, Limits
from agentmtl.retrieval.example_encoder import By, settle, settle_again
from agentmtl.retrieval.fitted import fitted_values
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.hops import HopResult, HopSettings, search_hops
from agentmtl.retrieval.hops.beam import Judge
from agentmtl.retrieval.lazy_encoder import LazyEncoder
from agentmtl.retrieval.naming import keys_of, refuse_other_settings
from agentmtl.retrieval.retriever import Channel, Retriever, task_filter
from agentmtl.schema import Demonstration, Document, Level
from agentmtl.tasks import Task
from agentmtl.trunk import describe_mismatch, load_encoder
from agentmtl.trunk.encoder import Encoder, Vectors

DEFAULT_STREAMS = ("default",)  # tokenisers whose identifiers a new index has
EncoderSpec = Any  # a name, a path, an Encoder or a LangChain Embeddings


def _silent(units: int) -> None:
    """Progress that nobody watches."""


class Index:
    """An index in a folder, pinned to the generation it was opened at until `refresh` or a change of its own.

    Reading is safe from any number of threads and processes; one process writes at a time. The encoder is
    loaded at first need: searching by vector or by words alone never loads it.
    """

    def __init__(self, store: Store, snapshot: Snapshot, encoder: EncoderSpec, backend: str) -> None:
        self._store = store
        self._spec = encoder
        self._backend = backend
        self._encoder: Encoder | None = None
        self._lock = Lock()
        self._lazy = LazyEncoder(lambda: self.settings.encoder, lambda: self.encoder)
        self._retriever = Retriever(snapshot, self._lazy)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        encoder: EncoderSpec = "default",
        backend: str = "auto",
        levels: Sequence[Level] = DEFAULT_LEVELS,
        chunking: Chunking | None = None,
        factory: str = "Flat",
        streams: Sequence[object] = DEFAULT_STREAMS,
    ) -> Index:
        """A new, empty index. `streams`: the tokenisers of its identifiers (see `load_tokenizer`).

        Raises UsageError where one is already, EncoderError, StorageError.
        """
        loaded = load_encoder(encoder, backend=backend)
        settings = IndexSettings(
            encoder=loaded.identity, chunking=chunking or Chunking(), levels=tuple(levels), factory=factory
        )
        store = Store(Path(folder))
        tokenizers = [load_tokenizer(spec) for spec in streams]
        index = cls(store, store.create(settings, tokenizers, fitted_values()), loaded, backend)
        index._encoder = loaded
        return index

    @classmethod
    def open(cls, folder: str | Path, *, encoder: EncoderSpec | None = None, backend: str = "auto") -> Index:
        """Open an index for reading and writing.

        `encoder` None takes the one the manifest names. Raises IndexMissingError, IndexDamagedError,
        IndexFormatError; EncoderMismatchError when an encoder is given that makes other vectors.
        """
        store = Store(Path(folder))
        snapshot = store.open()
        index = cls(store, snapshot, encoder or snapshot.settings.encoder.name, backend)
        if encoder is not None:
            _ = index.encoder
        return index

    @classmethod
    def build(
        cls,
        folder: str | Path,
        paths: Sequence[str | Path],
        *,
        encoder: EncoderSpec = "default",
        backend: str = "auto",
        levels: Sequence[Level] = DEFAULT_LEVELS,
        factory: str = "Flat",
        passage_words: int = Chunking().max_words,
        overlap_sentences: int = Chunking().overlap_sentences,
        chunker: str = "sentences",
        segmenter: str = "",
        streams: Sequence[object] = DEFAULT_STREAMS,
        limits: Limits | None = None,
        progress: Progress = _silent,
        on_document: Callable[[Document], None] = lambda document: None,
    ) -> tuple[Index, BuildReport]:
        """Make the index of exactly these files, or bring it up to date with them.

        Nothing is visible before all is there; an interrupted build resumes. Raises IngestError when there
        is nothing to index, UsageError when an index made with other settings is there, IndexLockedError,
        EncoderMismatchError, EncoderError, StorageError.
        """
        loaded = load_encoder(encoder, backend=backend)
        settings = IndexSettings(
            encoder=loaded.identity,
            chunking=Chunking(passage_words, overlap_sentences, chunker, segmenter=segmenter),
            levels=tuple(levels), factory=factory,
        )  # fmt: skip
        store = Store(Path(folder))
        refuse_other_settings(store, settings)
        tokenizers = [load_tokenizer(spec) for spec in streams]
        kept = None if store.open_or_none() else fitted_values()
        with store.write(settings, loaded, fitted=kept, progress=progress) as transaction:
            for tokenizer in tokenizers:
                transaction.add_stream(tokenizer)
            report = BuildReport()
            if paths:
                report = add_paths(
                    transaction, paths, prune=True, limits=limits or Limits(), on_document=on_document
                )
        index = cls(store, store.open(), loaded, backend)
        index._encoder = loaded
        return index, report

    # --- reading ------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self._store.folder

    @property
    def snapshot(self) -> Snapshot:
        """The generation this object reads."""
        return self._retriever.snapshot

    @property
    def settings(self) -> IndexSettings:
        return self.snapshot.settings

    @property
    def encoder(self) -> Encoder:
        """The index's encoder, loaded now. Raises EncoderMismatchError, EncoderError."""
        with self._lock:
            if self._encoder is None:
                loaded = load_encoder(self._spec, backend=self._backend)
                wanted = self.settings.encoder
                if not loaded.identity.same_vectors(wanted):
                    raise EncoderMismatchError(
                        describe_mismatch(wanted, loaded.identity),
                        f"Use --encoder {wanted.name}, or re-encode the index: "
                        f"agentmtl index rebuild {self.folder} --encoder {loaded.identity.name}",
                    )
                self._encoder = loaded
            return self._encoder

    def __len__(self) -> int:
        """Live passages."""
        return self.snapshot.count("passage")

    def retrieve(
        self,
        query: str | ArrayLike,
        task: str | None = None,
        level: Level = "passage",
        k: int = 10,
        where: str | None = None,
        channel: Channel = "fused",
        hops: int = 1,
        vector: Vectors | None = None,
    ) -> Hits:
        """The k best units of `level` for a text or a vector (d,); see `Retriever.retrieve`.

        `task` keeps to units whose metadata `task` has that name; `where` is a filter expression
        (`agentmtl.index.filters`). A vector is searched by the dense channel alone. With `hops` 2 to 4,
        passages for a question that needs several of them: `agentmtl.retrieval.hops`. `vector` (d,): the
        text's own.
        """
        where = task_filter(where, task)
        if hops > 1:
            if level != "passage" or not isinstance(query, str):
                raise UsageError("Several hops find passages for a question.", "Leave hops or level out.")
            settings = HopSettings(hops=hops)
            return search_hops(self.retriever, query, k=k, where=where, settings=settings, vector=vector).hits
        if task and level == "demonstration" and isinstance(query, str) and channel != "lexical":
            vector = self.retriever.encode_inputs([query], task)[0] if vector is None else vector
        return self._retriever.retrieve(query, level=level, k=k, where=where, channel=channel, vector=vector)

    async def aretrieve(
        self,
        query: str | ArrayLike,
        task: str | None = None,
        level: Level = "passage",
        k: int = 10,
        where: str | None = None,
        channel: Channel = "fused",
        hops: int = 1,
        vector: Vectors | None = None,
    ) -> Hits:
        """`retrieve` in a worker thread: the event loop stays free."""
        return await asyncio.to_thread(self.retrieve, query, task, level, k, where, channel, hops, vector)

    def search_hops(
        self,
        question: str,
        *,
        hops: int = 2,
        k: int = 10,
        where: str | None = None,
        judge: Judge | None = None,
    ) -> HopResult:
        """Passages over several hops, with a trace. `judge`: `agentmtl.retrieval.hops.judge.load_judge`."""
        settings = HopSettings(hops=hops, judge=judge)
        return search_hops(self.retriever, question, k=k, where=where, settings=settings)

    @property
    def retriever(self) -> Retriever:
        """The retriever over this object's generation."""
        return self._retriever

    def refresh(self) -> bool:
        """Move to the newest published generation; True when there was a newer one."""
        newest = self._store.open(known=self.snapshot)
        if newest.sha256 == self.snapshot.sha256:
            return False
        self._retriever = Retriever(newest, self._lazy)
        return True

    # --- writing ------------------------------------------------------------------------------------

    def add(self, documents: Iterable[Document], *, progress: Progress = _silent) -> BuildReport:
        """Add documents; one with a known key is replaced if its content differs, else left alone.

        All are published together. Raises IndexLockedError, StorageError; then nothing has changed.
        """
        with self._store.write(self.settings, self.encoder, progress=progress) as transaction:
            report = add_documents(transaction, documents)
        self.refresh()
        return report

    def add_demonstrations(
        self,
        task: Task,
        demonstrations: Iterable[Demonstration],
        *,
        by: By = "auto",
        progress: Progress = _silent,
    ) -> BuildReport:
        """Add labelled examples of a task, and keep its card; known examples cost nothing.

        `by`: what encodes those of a new task ("auto": the better, `agentmtl.retrieval.example_encoder`).
        They are found by `retrieve(…, task=task.name, level="demonstration")`. Raises what `add` raises;
        UsageError for a head that is not there, or where others of the task are encoded otherwise.
        """
        with self._store.write(self.settings, self.encoder, progress=progress) as transaction:
            card, examples = settle(task, demonstrations, self.encoder, transaction.cards, by)
            transaction.put_task(task.name, card)
            report = add_documents(transaction, (d.to_document() for d in examples))
        self.refresh()
        return report

    @property
    def tasks(self) -> dict[str, Task]:
        """The cards of the tasks that the index has demonstrations of, by name."""
        return {name: Task.from_json(card) for name, card in self.snapshot.manifest.tasks.items()}

    def update(self, documents: Iterable[Document], *, progress: Progress = _silent) -> BuildReport:
        """Replace documents that are there. Raises UsageError, changing nothing, for a key that is not."""
        with self._store.write(self.settings, self.encoder, progress=progress) as transaction:
            report = add_documents(transaction, documents, only_known=True)
        self.refresh()
        return report

    def add_paths(
        self,
        paths: Sequence[str | Path],
        *,
        prune: bool = False,
        only_known: bool = False,
        limits: Limits | None = None,
        progress: Progress = _silent,
        on_document: Callable[[Document], None] = lambda document: None,
    ) -> BuildReport:
        """Read files and folders into the index.

        `prune` drops what came from files or records that have vanished; `only_known` leaves out documents
        that the index does not have yet. Raises IngestError when there is nothing to read.
        """
        with self._store.write(self.settings, self.encoder, progress=progress) as transaction:
            report = add_paths(
                transaction,
                paths,
                prune=prune,
                only_known=only_known,
                limits=limits or Limits(),
                on_document=on_document,
            )
        self.refresh()
        return report

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents by source id, key or document unit id; how many went.

        The text stays in the files until `compact`. Raises UsageError, changing nothing, for an id that
        names no document.
        """
        with self._store.write() as transaction:
            snapshot = self._store.open(known=self.snapshot)
            keys = [key for id_ in ids for key in keys_of(snapshot, id_)]
            for key in dict.fromkeys(keys):
                transaction.delete(key)
        self.refresh()
        return len(set(keys))

    def add_stream(self, tokenizer: object = "default") -> str:
        """Add the token stream of a tokeniser (see `load_tokenizer`) and give its identity.

        What has it already is left alone. Raises EncoderError, IndexLockedError, StorageError.
        """
        loaded = load_tokenizer(tokenizer)
        with self._store.write() as transaction:
            transaction.add_stream(loaded)
        self.refresh()
        return loaded.identity

    def refit(self, fitted: Mapping[str, Any] | None = None) -> None:
        """Keep other fitted values (`agentmtl.retrieval.fitted`); None: those of this version.

        Raises IndexLockedError, StorageError.
        """
        with self._store.write(fitted=fitted_values() if fitted is None else fitted):
            pass
        self.refresh()

    def compact(self, *, progress: Progress = _silent) -> None:
        """Rewrite the segments without deleted units, which erases their text from the folder."""
        with self._store.write(merge_all=True, progress=progress):
            pass
        self.refresh()

    def rebuild(
        self,
        *,
        encoder: EncoderSpec | None = None,
        factory: str | None = None,
        backend: str | None = None,
        by: By | None = None,
        progress: Progress = _silent,
    ) -> BuildReport:
        """Encode everything anew from the stored text; no source file is needed.

        What is not given stays as it is. `by`: what encodes labelled examples; None: as was chosen, or else
        the better again. Until all is done the old generation serves. Raises EncoderError, IndexLockedError,
        StorageError, UsageError (FAISS does not know the factory).
        """
        loaded = load_encoder(encoder, backend=backend or self._backend) if encoder else self.encoder
        settings = replace(self.settings, encoder=loaded.identity, factory=factory or self.settings.factory)
        report = rebuild(self._store, settings, loaded, progress, partial(settle_again, by=by))
        self._encoder = loaded
        self.refresh()
        return report

    def verify(self) -> VerifyReport:
        """Hash every byte of the folder; see `agentmtl.index.verify`."""
        return verify(self.folder)

    async def aadd(self, documents: Iterable[Document]) -> BuildReport:
        """`add` in a worker thread."""
        return await asyncio.to_thread(self.add, documents)

    async def adelete(self, ids: Iterable[str]) -> int:
        """`delete` in a worker thread."""
        return await asyncio.to_thread(self.delete, ids)
