"""Spans against a scan of all of them; the reader as an expert, over a tiny trunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl.agent.citations import is_exact
from agentmtl.errors import EncoderError, UsageError
from agentmtl.experts.conformance import QUESTION, ExpertConformance
from agentmtl.experts.default import embedded_expert
from agentmtl.experts.expert import Expert
from agentmtl.experts.reader import ReaderExpert, asks_yes_or_no
from agentmtl.experts.reading import A_TOKEN, LONGEST, Calibration, Reading, Span, best_of, spans_of
from agentmtl.retrieval.hops.evidence import gather_passages
from agentmtl.retrieval.index import Index
from agentmtl.schema import Document, Evidence, Hit, Unit
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import save_head
from agentmtl.trunk.pairs import Window
from tests.trunk.tiny import random_head, tiny_trunk


def window(tokens: int, question: int) -> Window:
    """`question` tokens, then the context's, each of three characters, then a separator."""
    places = np.full((tokens, 2), -1)
    inside = np.arange(question, tokens - 1)
    places[inside] = np.stack([(inside - question) * 4, (inside - question) * 4 + 3], axis=1)
    ids = np.arange(tokens)
    return Window(0, ids, (ids >= question).astype(np.int64), places[:, 0], places[:, 1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 2**31))
def test_spans_are_the_best_of_all(context: int, question: int, seed: int) -> None:
    made = window(question + context + 1, question)
    logits = np.random.default_rng(seed).normal(0, 3, (len(made.ids), 2)).astype(np.float32)
    found = spans_of(made, logits)
    every = [
        (float(logits[i, 0] + logits[j, 1]) - A_TOKEN * (j - i), int(made.starts[i]), int(made.ends[j]))
        for i in range(question, question + context)
        for j in range(i, min(i + LONGEST, question + context))
    ]
    every.sort(key=lambda s: -s[0])
    assert [s.score for s in found] == pytest.approx([s for s, _, _ in every[: len(found)]])
    assert (found[0].start, found[0].end) == every[0][1:]
    assert found[0].margin == pytest.approx(every[0][0] - float(logits[0].sum()), abs=1e-4)


def test_windows_of_one_text_compete_and_a_place_counts_once() -> None:
    a, b, c = Span(0, 0, 3, 5.0, 1.0), Span(0, 0, 3, 4.0, 2.0), Span(0, 4, 7, 9.0, 1.5)
    assert best_of([a, b, c]) == [b, c]


def test_a_calibration_is_a_logistic_model() -> None:
    reading = Reading((Span(0, 0, 3, 5.0, 2.0),), (1.0, 0.0, -1.0))
    assert reading.features == (2.0, 0.0, -1.0) and reading.kind == "span"
    model = Calibration((1.0, 0.0, 0.5, -1.5), (0.0, 0.0, 0.0, 0.0))
    assert model.of_answer(reading) == pytest.approx(0.5) and model.of_right(reading) == 0.5


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> HeadNetwork:
    place = tmp_path_factory.mktemp("reader")
    files = tiny_trunk(place / "trunk")
    save_head(random_head(files), place / "head")
    return HeadNetwork(place / "head", files, ("torch-fp32",), place / "cache")


_NETWORKS: list[HeadNetwork] = []


@pytest.fixture(scope="module", autouse=True)
def shared(network: HeadNetwork) -> None:
    _NETWORKS[:] = [network]


class TestReader(ExpertConformance):
    def make(self) -> Expert:
        return ReaderExpert(_NETWORKS[0])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = Index.create(tmp_path_factory.mktemp("i") / "i", encoder="hashing:256")
    made.add(
        [
            Document("h4", "The H4 timekeeper was built by the clockmaker John Harrison in 1759.", "H4"),
            Document("jh", "John Harrison was born in Foulby [7], a village in Yorkshire.", "John Harrison"),
            Document("bread", "Bread is baked from flour and water.", "Bread"),
        ]
    )
    return made


def test_every_citation_is_exact_and_no_title_is_quoted(index: Index, network: HeadNetwork) -> None:
    evidence = gather_passages(index.retriever, "Where was the builder of the H4 born?")
    assert {hit.unit.source_id for hit in evidence.passages} >= {"h4", "jh"}
    found = ReaderExpert(network).propose("Where was the builder of the H4 born?", evidence, n=20)
    assert len(found) > 5 and len({c.text for c in found}) == len(found)
    assert all(0 <= c.confidence <= 1 for c in found)
    for candidate in found:
        assert all(is_exact(index.snapshot, citation) for citation in candidate.citations)
        assert all(c.text in c.sentence for c in candidate.citations)
        assert "[7]" not in candidate.text


def test_a_later_hop_cites_the_name_that_led_there(index: Index, network: HeadNetwork) -> None:
    evidence = gather_passages(index.retriever, "Where was the builder of the H4 born?")
    hops = {hit.unit.source_id: hit.hop for hit in evidence.passages}
    later = [
        candidate.citations
        for candidate in ReaderExpert(network).propose("Where was he born?", evidence, n=40)
        if len(candidate.citations) == 2
    ]
    for first, second in later:
        assert first.source != second.source and hops[second.source] >= hops[first.source]
        assert first.text.lower() in first.quote.lower()


def test_yes_or_no_where_the_question_asks_for_it(index: Index, network: HeadNetwork) -> None:
    assert asks_yes_or_no("Was it built in 1759?") and not asks_yes_or_no("Who built it?")
    assert not asks_yes_or_no("Is it Oslo or Bergen?") and not asks_yes_or_no("")
    evidence = gather_passages(index.retriever, "Was the H4 built by John Harrison?")
    (found,) = ReaderExpert(network).propose("Was the H4 built by John Harrison?", evidence, n=3)
    assert found.text in {"yes [1]", "no [1]"} and 0 <= found.confidence <= 1
    assert all(is_exact(index.snapshot, citation) for citation in found.citations)


def test_passages_compete_and_their_order_breaks_even(network: HeadNetwork) -> None:
    texts = ("It was built in 1759.", "It was built in 1759.")
    hits = tuple(
        Hit(Unit(f"{i:024x}", "passage", t, f"s{i}", end=len(t)), 1.0 - i) for i, t in enumerate(texts)
    )
    (best,) = ReaderExpert(network).propose(QUESTION, Evidence(QUESTION, hits))
    assert best.citations[0].source == "s0"


def test_a_head_without_a_calibration_is_refused(network: HeadNetwork, tmp_path: Path) -> None:
    head = replace(network.head, card=replace(network.head.card, calibration={}))
    save_head(head, tmp_path)
    with pytest.raises(EncoderError, match="calibration"):
        ReaderExpert(HeadNetwork(tmp_path, network._files, ("torch-fp32",), tmp_path))


def test_names_of_embedded_experts(index: Index, tmp_path: Path) -> None:
    identity = index.settings.encoder
    assert embedded_expert("auto", identity).name == "sentences"  # an index made without a model
    assert embedded_expert("sentences", identity).needs == "sentences"
    with pytest.raises(UsageError, match="no expert"):
        embedded_expert(str(tmp_path / "nothing"), identity)
