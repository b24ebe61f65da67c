"""What an allocation says of the evidence is what the agent does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmtl import Agent, Index
from agentmtl.agent.looking import check_models, looking, reading
from agentmtl.compute.difficulty import ByDifficulty, Difficulty
from agentmtl.errors import UsageError
from agentmtl.experts.reader import ReaderExpert
from agentmtl.retrieval.hops.evidence import SEARCHES
from agentmtl.retrieval.hops.search import HopSettings, search_hops
from agentmtl.retrieval.rerank import load_reranker
from agentmtl.sample import corpus_path
from agentmtl.schema import Allocation, Share
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.heads import shipped_head

ASKED = "Where was the clockmaker who built the H4 marine timekeeper born?"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder: Path = tmp_path_factory.mktemp("looking")
    return Index.build(folder / "ix", [str(corpus_path())], encoder="hashing")[0]


def passages(index: Index, **shares: Share) -> list[str]:
    agent = Agent(index, expert="reader", allocation=Allocation(shares), threshold=0.0, log=False)
    (step,) = (s for s in agent.ask(ASKED).trace if s["step"] == "retrieve")
    return list(step["passages"])


def test_as_many_passages_are_given_as_the_allocation_says(index: Index) -> None:
    full = passages(index)
    assert len(full) == 8
    for number in (1, 3):
        assert passages(index, read=Share(samples=number)) == full[:number]


def test_the_reranker_reads_the_first_passages_again(index: Index) -> None:
    retriever, reranker = index.retriever, load_reranker()
    hits = search_hops(retriever, ASKED, k=20, settings=SEARCHES["two-hop"]).hits
    wanted = reranker.rerank(ASKED, hits, depth=20).ids[:8]
    assert passages(index, rerank=Share("reranker", 20)) == wanted
    assert passages(index, rerank=Share("reranker", 0)) == passages(index)


def test_the_search_is_that_of_the_allocation(index: Index) -> None:
    plain = passages(index, search=Share("plain", 3))
    assert plain != passages(index, search=Share("two-hop", 12))
    settings = looking(HopSettings(), Allocation({"search": Share("three-hop", 24)}), "auto").search
    assert (settings.hops, settings.width) == (3, 24)


def test_the_judge_reads_the_chains_of_the_search_that_is_named(index: Index) -> None:
    """Whatever `hops` says: the allocation's search replaces it."""
    head, reader = shipped_head("hops"), shipped_head("reader")
    assert head is not None and reader is not None
    for hops, name, read in ((1, "three-hop", True), (2, "one-hop", False)):
        allocation = Allocation({"search": Share(name, 12)})
        agent = Agent(index, hops=hops, allocation=allocation, expert=str(reader), judge=str(head))
        assert (agent.stages().looking.search.judge is not None) == read


def test_a_reader_reads_as_many_as_it_is_given() -> None:
    head = shipped_head("reader")
    assert head is not None
    expert = ReaderExpert(open_head(head))
    limited = reading(expert, Allocation({"read": Share("reader", 8)}))
    assert isinstance(limited, ReaderExpert) and limited.passages == 8 and expert.passages == 6
    assert reading(expert, Allocation()) is expert


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"solve": Share("small")}, "the stage 'solve', which an agent does not have"),
        ({"search": Share("four-hop")}, "no 'four-hop' to give the stage 'search'"),
        ({"read": Share("somebody")}, "no 'somebody' to give the stage 'read'"),
    ],
)
def test_what_an_agent_cannot_obey_is_refused(shares: dict[str, Share], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_models(Allocation(shares), ["reader"])


@pytest.mark.parametrize("stage", ["search", "read", "rerank"])
def test_numbers_that_cannot_be_are_refused(stage: str) -> None:
    with pytest.raises(UsageError, match=f"'{stage}' cannot be given -1"):
        looking(HopSettings(), Allocation({stage: Share(samples=-1)}), "auto")


def test_each_question_gets_the_allocation_of_its_level(index: Index) -> None:
    """Levels by the first number of the question's vector; the trace says which, and a graph is given it."""
    shares = {"few": 1, "many": 3}
    allocations = tuple(Allocation({"read": Share(samples=number)}) for number in shares.values())
    first = np.eye(index.settings.encoder.dimension)[0]
    middle = float(index.retriever.encode_queries([ASKED])[0][0])
    for above, level in ((True, 0), (False, 1)):
        cut = middle + (1e-3 if above else -1e-3)
        leveled = ByDifficulty(
            Difficulty(first, 0.0, (cut,)), allocations, 0.0, 0.0, index.settings.encoder.weights
        )
        agent = Agent(index, expert="reader", allocation=leveled, threshold=0.0)
        trace = agent.ask(f" {ASKED} ").trace
        (step,) = (s for s in trace if s["step"] == "retrieve")
        (plan,) = (s for s in trace if s["step"] == "plan")
        assert len(step["passages"]) == (1, 3)[level] and plan["level"] == level
        assert agent.stages(question=ASKED).looking.passages == (1, 3)[level]


def test_levels_of_another_encoder_are_refused(index: Index) -> None:
    other = ByDifficulty(Difficulty(np.ones(3), 0.0, ()), (Allocation(),), 0.0, 0.0, "another")
    with pytest.raises(UsageError, match="another encoder"):
        Agent(index, allocation=other)
