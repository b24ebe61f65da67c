"""The hop search on a small world where every chain is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmtl import Document, Index
from agentmtl.errors import UsageError
from agentmtl.retrieval.hops import HopSettings, search_hops
from agentmtl.retrieval.hops.facets import split
from agentmtl.retrieval.hops.language_model import LanguageModelUpdater, Reply
from agentmtl.retrieval.hops.model import HopModel, shipped
from agentmtl.retrieval.hops.pagerank import page_rank
from agentmtl.retrieval.hops.question import ask
from agentmtl.retrieval.hops.search import graph_of
from agentmtl.retrieval.hops.updaters import Concat, EntityBridge, Parents, Residual
from agentmtl.schema import Usage

WORLD = [
    Document("film", "The Quiet Harbour is a 1954 drama directed by Mira Holm.", "The Quiet Harbour"),
    Document("director", "Mira Holm was born in Sandvik. Her mother was the painter Elsa Holm.", "Mira Holm"),
    Document("mother", "Elsa Holm was a painter of ships and storms.", "Elsa Holm"),
    Document("other", "The Loud Square is a 1960 comedy directed by Jan Berg.", "The Loud Square"),
    Document("berg", "Jan Berg was born in Oslo in 1920.", "Jan Berg"),
    *(
        Document(f"noise{i}", f"Record {i} tells of bread, flour and water in town {i}.", f"Note {i}")
        for i in range(30)
    ),
]
QUESTION = "Who is the mother of the director of The Quiet Harbour?"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index.create(tmp_path_factory.mktemp("world") / "index", encoder="hashing:256")
    index.add(WORLD[:3])
    index.add(WORLD[3:])
    return index


def _sources(index: Index, question: str, settings: HopSettings | None = None, k: int = 4) -> list[str]:
    found = search_hops(index.retriever, question, k=k, settings=settings)
    return [hit.unit.source_id for hit in found.hits]


def test_a_chain_of_names_is_followed_and_explained(world: Index) -> None:
    found = world.search_hops(QUESTION, k=4, hops=3)
    by_source = {hit.unit.source_id: hit for hit in found.hits}
    assert {"film", "director"} <= by_source.keys()
    assert by_source["director"].hop > 1 and "mira holm" in by_source["director"].keys
    assert found.trace[0] == {"step": "route", "route": "bridge", "facets": []}
    step = found.trace[1]
    assert step["hop"] == 2 and step["proposed"]["bridge"] > 0
    assert any(chain["via"] == "mira holm" and chain["from"] for chain in step["found"])
    assert "director" not in _sources(world, QUESTION, HopSettings(hops=1, graph=False), k=1)


def test_scores_descend_and_the_same_question_gives_the_same(world: Index) -> None:
    first, second = (world.search_hops(QUESTION, k=10).hits for _ in range(2))
    assert first.ids == second.ids and list(first.scores) == sorted(first.scores, reverse=True)
    assert world.retrieve(QUESTION, hops=2, k=10).ids == first.ids


def test_a_comparison_covers_each_of_its_names(world: Index) -> None:
    question = "Which film is older, The Quiet Harbour or The Loud Square?"
    route, facets = split(question)
    assert route in ("comparison", "temporal") and [f.name for f in facets] == [
        "The Quiet Harbour",
        "The Loud Square",
    ]
    assert set(_sources(world, question, k=2)) == {"film", "other"}


@pytest.mark.parametrize(
    ("question", "route", "names"),
    [
        ("Are Superheaven and Oceansize of the same genre?", "comparison", ["Superheaven", "Oceansize"]),
        ("Did World War I end before Prohibition or after?", "bridge", []),
        ("Who directed the film that made Ada Byron famous?", "bridge", []),
        ("What do Oslo, Bergen and Sandvik all share?", "set", ["Oslo", "Bergen", "Sandvik"]),
        ("", "bridge", []),
    ],
)
def test_the_router(question: str, route: str, names: list[str]) -> None:
    found, facets = split(question)
    assert found == route and [f.name for f in facets] == names
    assert all(f.name in f.question for f in facets)


def test_filters_and_deletions_hold_at_every_hop(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", encoder="hashing:256")
    index.add(Document(d.source_id, d.text, d.title, {"kept": d.source_id != "director"}) for d in WORLD)
    found = index.retrieve(QUESTION, hops=3, k=20, where="kept == true")
    assert found and "director" not in {h.unit.source_id for h in found}
    assert len(index.retrieve(QUESTION, hops=2, where="kept == 7")) == 0
    index.delete(["director"])
    assert "director" not in {h.unit.source_id for h in index.retrieve(QUESTION, hops=3, k=20)}


def test_an_index_without_names_or_with_nothing_in_it_still_answers(tmp_path: Path) -> None:
    plain = Index.create(tmp_path / "plain", encoder="hashing:64", levels=("passage",), streams=())
    assert len(plain.retrieve("anything", hops=2)) == 0
    plain.add(WORLD[:3])
    assert plain.retrieve(QUESTION, hops=3)
    with pytest.raises(UsageError, match="hops"):
        HopSettings(hops=9)
    with pytest.raises(UsageError):
        plain.retrieve(QUESTION, hops=2, level="sentence")


def test_page_rank_is_the_linear_system(world: Index) -> None:
    graph = graph_of(world.retriever)
    passages = np.arange(graph.passages)
    seed = np.zeros(graph.passages)
    seed[0] = 1.0
    mass = page_rank(graph, passages, seed)
    names = set(graph.mention_names.tolist())
    edges = np.zeros((graph.passages, max(names) + 1))
    for passage in range(graph.passages):
        edges[passage, graph.mention_names[graph.mentions.at(passage)]] = 1
    walk = (edges / np.maximum(edges.sum(1, keepdims=True), 1)) @ (edges / np.maximum(edges.sum(0), 1)).T
    wanted = np.linalg.solve(np.eye(graph.passages) - 0.5 * walk.T, 0.5 * seed)
    assert mass == pytest.approx(wanted, abs=1e-3) and mass.sum() <= 1 + 1e-9
    assert not page_rank(graph, passages, np.zeros(graph.passages)).any()


@pytest.mark.parametrize("updater", [EntityBridge(), Concat(5), Residual(5)])
def test_updaters_propose_scored_steps_that_leave_the_parent(world: Index, updater: Concat) -> None:
    graph = graph_of(world.retriever)
    asked = ask(graph, QUESTION, world.encoder.encode([QUESTION], "query")[0])
    assert asked is not None
    parents = Parents(asked.candidates[:3], np.zeros(3))
    steps = updater.propose(graph, asked, parents)
    assert len(steps) and np.isfinite(steps.features).all()
    assert (steps.children != parents.passages[steps.parents]).all()
    assert np.isfinite(shipped()(updater.kind, steps.features)).all()


def test_a_language_model_stays_within_its_calls_and_tokens(world: Index) -> None:
    prompts: list[str] = []

    def scripted(prompt: str) -> Reply:
        prompts.append(prompt)
        return Reply("Elsa Holm painter of ships", Usage(calls=1, prompt_tokens=100, output_tokens=9))

    def found(calls: int, tokens: int = 0) -> tuple[set[str], Usage]:
        updater = LanguageModelUpdater(scripted, world.retriever.encode_queries, calls=calls, tokens=tokens)
        settings = HopSettings(hops=3, updaters=(updater,), least_gain=0.0)
        result = search_hops(world.retriever, QUESTION, k=3, settings=settings)
        return {h.unit.source_id for h in result.hits}, result.usage

    gold = {"film", "director", "mother"}
    recalls = [len(found(calls)[0] & gold) for calls in (0, 1, 2)]
    assert recalls == sorted(recalls) and len(prompts) == 3  # none, one and two calls
    assert found(1)[1].calls == 1 and found(5)[1].calls <= 2  # two hops after the first
    assert found(5, tokens=1_000)[1] == Usage()  # a call might exceed it: none is made
    every = [prompt.split("marks ")[1].split()[0] for prompt in prompts]
    assert prompts[-1].count(every[-1]) >= 3 and len(set(every)) == len(every)  # no document can know it


def test_time_is_a_limit_and_the_weights_know_their_folds(world: Index) -> None:
    late = search_hops(world.retriever, QUESTION, settings=HopSettings(hops=3, seconds=1e-9))
    assert late.stopped == "time" and len(late.hits)
    model = shipped()
    assert HopModel.from_json(model.to_json()).to_json() == model.to_json()
    assert len(model.folds) == 5 and any(model.without("q").scorers is scorers for scorers in model.folds)
