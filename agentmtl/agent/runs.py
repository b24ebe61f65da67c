"""Runs that survive a kill: every step of an answer is kept in a SQLite file; a run goes on from its last.

    runs = Runs(path)
    state = runs.run(stages, "monday-1", begun("Who …?"), opened)   # again: goes on, or gives the answer

The checkpoints are LangGraph's (`langgraph-checkpoint-sqlite`); the file holds questions, evidence and
answers in plain form, on this machine only, readable by its owner alone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from agentmtl.agent.stages import Stages
from agentmtl.agent.state import State
from agentmtl.errors import StorageError, UsageError
from agentmtl.schema import Usage
from agentmtl.settings import data_folder
from agentmtl.spending import Ledger

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

MAX_ID = 200  # characters
Opened: TypeAlias = Callable[[Usage | None], Ledger]  # what was spent before → the ledger of this run


class Runs:
    """The checkpoints at `path` (default: runs.sqlite in the user's data folder)."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or data_folder() / "runs.sqlite"

    def run(self, stages: Stages, name: str, first: State, opened: Opened) -> State:
        """The state after the last step of run `name`, begun with `first` or gone on with.

        Raises UsageError where the run is of another question, StorageError where the file cannot be used,
        and what the steps raise.
        """
        from agentmtl.agent.graph import compile_graph

        config = _config(name)
        with self._saver() as saver:
            graph = compile_graph(stages, saver)
            known: State = graph.get_state(config).values  # type: ignore[assignment]
            _same_question(name, known, first)
            if known.get("answer") is not None and not graph.get_state(config).next:
                return known
            with opened(known.get("spent")).active():
                return graph.invoke(None if known else first, config, durability="sync")  # type: ignore[return-value]

    async def arun(self, stages: Stages, name: str, first: State, opened: Opened) -> State:
        """`run` without blocking the event loop."""
        from agentmtl.agent.graph import compile_graph

        config = _config(name)
        async with self._asaver() as saver:
            graph = compile_graph(stages, saver)
            held = await graph.aget_state(config)
            known: State = held.values  # type: ignore[assignment]
            _same_question(name, known, first)
            if known.get("answer") is not None and not held.next:
                return known
            with opened(known.get("spent")).active():
                return await graph.ainvoke(None if known else first, config, durability="sync")  # type: ignore[return-value]

    def forget(self, name: str) -> None:
        """Delete the checkpoints of a run."""
        with self._saver() as saver:
            saver.delete_thread(name)

    def purge(self) -> None:
        """Erase every run: rows are overwritten with zeros and the file is shrunk."""
        if not self.path.exists():
            return
        with self._saver() as saver:
            saver.setup()
            saver.conn.execute("PRAGMA secure_delete = ON")
            with saver.conn:
                saver.conn.execute("DELETE FROM checkpoints")
                saver.conn.execute("DELETE FROM writes")
            saver.conn.execute("VACUUM")
            saver.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _saver(self) -> Iterator[SqliteSaver]:
        from langgraph.checkpoint.sqlite import SqliteSaver

        from agentmtl.agent.graph import serializer

        self._make()
        with self._clear():
            db = sqlite3.connect(self.path, check_same_thread=False)
            try:
                yield SqliteSaver(db, serde=serializer())
            finally:
                db.close()

    @asynccontextmanager
    async def _asaver(self) -> AsyncIterator[AsyncSqliteSaver]:
        import aiosqlite
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        from agentmtl.agent.graph import serializer

        self._make()
        with self._clear():
            async with aiosqlite.connect(self.path) as db:
                yield AsyncSqliteSaver(db, serde=serializer())

    def _make(self) -> None:
        """The file, for its owner alone, before SQLite makes it for everybody."""
        with self._clear(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))

    @contextmanager
    def _clear(self, kind: type[Exception] = sqlite3.Error) -> Iterator[None]:
        """Say what is wrong with the file, where `kind` is raised."""
        try:
            yield
        except kind as error:
            raise StorageError(
                f"The runs in {self.path} cannot be used: {error}.", "Leave --run out, or move the file away."
            ) from error


def _config(name: str) -> Any:
    if not name.strip() or len(name) > MAX_ID:
        raise UsageError(f"A run's name has 1 to {MAX_ID} characters.", "Give --run NAME.")
    return {"configurable": {"thread_id": name}, "recursion_limit": 200}


def _same_question(name: str, known: State, first: State) -> None:
    asked = known.get("asked", known.get("question"))
    if known and asked != first["question"]:
        raise UsageError(f"The run {name!r} is of another question: {asked!r}.", "Give another name.")
