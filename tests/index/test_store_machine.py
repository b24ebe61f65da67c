"""Whatever was done to an index, it answers like a fresh build of the documents that are left."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentmtl.index import merge, store, transaction
from agentmtl.index.snapshot import Snapshot
from agentmtl.index.store import Store
from agentmtl.index.verify import verify
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Document, Level

from . import toy

KEYS = [f"k{i}" for i in range(9)]
VERSIONS = st.tuples(
    st.lists(st.integers(0, len(toy.SENTENCES) - 1), min_size=1, max_size=6),
    st.integers(0, len(toy.TITLES) - 1),
    st.sampled_from([{}, {"lang": "en"}, {"lang": "de", "year": 1900}, {"lang": "en", "year": 1907}]),
)
KEY = st.sampled_from(KEYS)
CHANGES = st.dictionaries(KEY, VERSIONS, min_size=1, max_size=4)
LEVEL = st.sampled_from(toy.LEVELS)
DEPTH = st.sampled_from([1, 2, 5, 500])


class PowerCutError(Exception):
    """Ends a transaction at a place of the test's choosing."""


def documents_of(changes: dict[str, tuple[list[int], int, dict[str, object]]]) -> list[Document]:
    return [toy.document(key, numbers, title, **meta) for key, (numbers, title, meta) in changes.items()]  # type: ignore[arg-type]


class StoreMachine(RuleBasedStateMachine):
    """Small sizes make every segment end, merge and tombstone file happen after a few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda descriptor: None)
        self.patch.setattr(transaction, "FLUSH_UNITS", 12)
        self.patch.setattr(transaction, "MAX_SMALL", 3)
        self.patch.setattr(merge, "MERGED_UNITS", 48)
        self.patch.setattr(store, "MAX_TOMBSTONE_FILES", 2)
        self.root = Path(tempfile.mkdtemp(prefix="machine-"))
        self.patch.setenv("AGENTMTL_CACHE_DIR", str(self.root / "cache"))
        self.folder = self.root / "index"
        self.encoder = toy.ToyEncoder()
        self.model: dict[str, Document] = {}
        self.pinned: tuple[Snapshot, dict[str, object]] | None = None

    def teardown(self) -> None:
        self.check_against_a_fresh_build()
        self.patch.undo()
        shutil.rmtree(self.root)

    @initialize(changes=CHANGES)
    def start(self, changes: dict[str, tuple[list[int], int, dict[str, object]]]) -> None:
        toy.build(self.folder, documents_of(changes), self.encoder)
        self.model = {d.key: d for d in documents_of(changes)}

    @property
    def snapshot(self) -> Snapshot:
        return Store(self.folder).open()

    # --- changes

    @rule(changes=CHANGES)
    def add(self, changes: dict[str, tuple[list[int], int, dict[str, object]]]) -> None:
        new = documents_of(changes)
        report = toy.build(self.folder, new, self.encoder)
        same = sum(self.model.get(d.key) == d for d in new)
        known = sum(d.key in self.model for d in new)
        assert (report.unchanged, report.updated, report.added) == (same, known - same, len(new) - known)
        self.model |= {d.key: d for d in new}

    @rule(changes=st.lists(st.tuples(KEY, VERSIONS), min_size=2, max_size=5))
    def put_the_same_key_more_than_once(
        self, changes: list[tuple[str, tuple[list[int], int, dict[str, object]]]]
    ) -> None:
        with Store(self.folder).write(toy.settings(self.encoder), self.encoder) as changing:
            for key, version in changes:
                (new,) = documents_of({key: version})
                changing.put(new)
                self.model[key] = new

    @rule(key=KEY)
    def add_again_what_is_there(self, key: str) -> None:
        before, texts = self.snapshot.sha256, len(self.encoder.texts)
        if key in self.model:
            assert toy.build(self.folder, [self.model[key]], self.encoder).unchanged == 1
            assert (self.snapshot.sha256, len(self.encoder.texts)) == (before, texts)

    @rule(keys=st.sets(KEY, min_size=1, max_size=4))
    def delete(self, keys: set[str]) -> None:
        assert toy.delete(self.folder, sorted(keys)) == len(keys & self.model.keys())
        self.model = {k: d for k, d in self.model.items() if k not in keys}

    @rule(changes=CHANGES, keys=st.sets(KEY, max_size=3), back=VERSIONS)
    def add_and_delete_together(
        self,
        changes: dict[str, tuple[list[int], int, dict[str, object]]],
        keys: set[str],
        back: tuple[list[int], int, dict[str, object]],
    ) -> None:
        with Store(self.folder).write(toy.settings(self.encoder), self.encoder) as changing:
            for new in documents_of(changes):
                changing.put(new)
                self.model[new.key] = new
            for key in sorted(keys):
                assert changing.delete(key) == (self.model.pop(key, None) is not None)
                assert not changing.has(key)
            for new in documents_of(dict.fromkeys(sorted(keys)[:1], back)):
                assert changing.put(new) == "added" and changing.has(new.key)
                self.model[new.key] = new

    @rule()
    def compact(self) -> None:
        toy.compact(self.folder)
        assert not self.snapshot.dead

    @rule(changes=CHANGES, keys=st.sets(KEY, max_size=2), step=st.integers(0, 5))
    def crash(
        self, changes: dict[str, tuple[list[int], int, dict[str, object]]], keys: set[str], step: int
    ) -> None:
        """Finished segments stay behind; nothing of them shows."""
        before = self.snapshot.sha256
        with (
            pytest.raises(PowerCutError),
            Store(self.folder).write(toy.settings(self.encoder), self.encoder) as changing,
        ):
            for key in sorted(keys):
                changing.delete(key)
            for new in documents_of(changes)[:step]:
                changing.put(new)
            if step > 3:
                changing._flush()
            raise PowerCutError
        assert self.snapshot.sha256 == before

    @rule(
        changes=CHANGES,
        place=st.sampled_from(["stage", "publish_staged", "merge_segments", "remove"]),
        merge_all=st.booleans(),
    )
    def crash_while_publishing(
        self, changes: dict[str, tuple[list[int], int, dict[str, object]]], place: str, merge_all: bool
    ) -> None:
        def cut_power(*given: object) -> None:
            raise PowerCutError

        before = self.snapshot.sha256
        with pytest.MonkeyPatch.context() as patch:
            owner = transaction if place == "merge_segments" else store
            patch.setattr(owner, place, cut_power)
            try:
                with Store(self.folder).write(
                    toy.settings(self.encoder), self.encoder, merge_all=merge_all
                ) as changing:
                    for new in documents_of(changes):
                        changing.put(new)
            except PowerCutError:
                pass
        if self.snapshot.sha256 != before:
            self.model |= {d.key: d for d in documents_of(changes)}

    # --- reading

    @rule()
    def pin(self) -> None:
        snapshot = self.snapshot
        self.pinned = (snapshot, toy.content(snapshot))

    @precondition(lambda self: self.pinned is not None)
    @rule()
    def the_pinned_generation_is_what_it_was(self) -> None:
        assert self.pinned is not None
        snapshot, before = self.pinned
        assert toy.content(snapshot) == before

    @rule(level=LEVEL, k=DEPTH, query=st.sampled_from(toy.QUERIES), where=st.booleans())
    def search(self, level: Level, k: int, query: str, where: bool) -> None:
        snapshot = self.snapshot
        retriever = Retriever(snapshot, self.encoder)
        live = [d for d in self.model.values() if not where or d.metadata.get("lang") == "en"]
        units = toy.oracle_units(self.model.values(), snapshot.settings)[level]
        allowed = toy.oracle_units(live, snapshot.settings)[level]
        vector = self.encoder.vector(query)
        condition = 'lang == "en"' if where else None
        dense = retriever.retrieve(vector, level=level, k=k, where=condition)
        toy.assert_ranked(pairs(dense), toy.oracle_dense(allowed, self.encoder, vector), k)
        lexical = retriever.retrieve(query, level=level, k=k, where=condition, channel="lexical")
        bm25 = toy.oracle_bm25(units, query, snapshot.settings.k1, snapshot.settings.b)
        toy.assert_ranked(pairs(lexical), {i: s for i, s in bm25.items() if i in allowed}, k)

    @rule()
    def check_against_a_fresh_build(self) -> None:
        fresh = self.root / "fresh"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transaction, "FLUSH_UNITS", 10_000)
            toy.build(fresh, sorted(self.model.values(), key=lambda d: d.key), self.encoder)
        wanted, found = Store(fresh).open(), self.snapshot
        assert toy.content(found) == toy.content(wanted)
        depths, queries = (1, 4, 1000), toy.QUERIES[:2]
        toy.assert_same_answers(
            toy.answers(found, self.encoder, depths, queries),
            toy.answers(wanted, self.encoder, depths, queries),
        )
        shutil.rmtree(fresh)

    @invariant()
    def counts_agree(self) -> None:
        if self.model or self.folder.exists():
            snapshot = self.snapshot
            units = toy.oracle_units(self.model.values(), snapshot.settings)
            counts = {level: len(units[level]) for level in toy.LEVELS}
            assert {level: snapshot.count(level) for level in toy.LEVELS} == counts
            assert dict(snapshot.manifest.live) == counts
            assert verify(self.folder).damaged == ()


def pairs(hits: object) -> list[tuple[str, float]]:
    return list(zip(hits.ids, map(float, hits.scores), strict=True))  # type: ignore[attr-defined]


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_any_history_answers_like_a_fresh_build() -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=16,
            stateful_step_count=14,
            deadline=None,
            derandomize=True,
            suppress_health_check=CHECKS,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_long_history_answers_like_a_fresh_build() -> None:
    """Random anew at each run; a failure prints the steps, and Hypothesis keeps it in its database."""
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            suppress_health_check=CHECKS,
        ),
    )
