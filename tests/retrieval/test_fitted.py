"""Fitted values live with the index: searches use what it keeps, not what the package ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentmtl import Document, Index
from agentmtl.errors import UsageError
from agentmtl.retrieval.fitted import fitted_values, read_fitted
from agentmtl.retrieval.fusion import Fusion
from agentmtl.retrieval.hops.model import HopModel, shipped
from agentmtl.retrieval.hops.search import model_of
from agentmtl.trunk.hashing import HashingEncoder

WORDS = ("river", "clock", "ship", "stone", "north", "glass")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "i", encoder=HashingEncoder(32))
    made.add(
        [
            Document(f"d{i}", f"The {WORDS[i % 6]} of the {WORDS[i % 5]} and {WORDS[i % 4]} is number {i}.")
            for i in range(12)
        ]
    )
    return made


def test_a_new_index_keeps_the_shipped_values(index: Index) -> None:
    kept = index.snapshot.manifest.fitted
    assert kept == fitted_values() and kept["hops"]["folds"] == []
    again = Index.open(index.folder, encoder=HashingEncoder(32))
    model = model_of(again.retriever)
    for kind, scorer in shipped().scorers.items():
        np.testing.assert_array_equal(model.scorers[kind].weights, scorer.weights)
    assert (model.chain, model.mass, model.facet) == (shipped().chain, shipped().mass, shipped().facet)


def test_other_values_change_the_search_and_survive_changes(index: Index) -> None:
    def scores() -> list[float]:
        return [float(s) for s in index.retrieve("river clock", k=12).scores]

    before = scores()
    index.refit(fitted_values(Fusion(weights={"dense": 0.0}, identifiers={})))
    words_only = scores()
    lexical = index.retrieve("river clock", k=12, channel="lexical")
    assert words_only != before
    assert index.retrieve("river clock", k=len(lexical)).ids[:3] == lexical.ids[:3]
    index.add([Document("new", "A bridge of iron.")])
    index.delete(["new"])
    index.compact()
    index.rebuild()
    assert index.snapshot.manifest.fitted["fusion"]["weights"] == {"dense": 0.0}
    assert scores() == pytest.approx(words_only)
    index.refit()
    assert scores() == pytest.approx(before)


def test_refit_without_a_change_publishes_nothing(index: Index) -> None:
    generation = index.snapshot.generation
    index.refit()
    assert index.snapshot.generation == generation


def test_weights_for_other_features_are_left_aside(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    values = json.loads(json.dumps(fitted_values()))
    values["hops"]["scorers"]["question"]["weights"]["a feature of tomorrow"] = 1.0
    index.refit(values)
    assert HopModel.of(index.snapshot) is shipped()
    assert "refit" in caplog.text


def test_values_come_from_a_file(tmp_path: Path) -> None:
    model = replace(shipped(), chain=9.0)
    (tmp_path / "hops.json").write_text(json.dumps(model.to_json()))
    (tmp_path / "all.json").write_text(json.dumps(fitted_values(Fusion(depth=50), model)))
    assert read_fitted(tmp_path / "hops.json") == fitted_values(hops=model)
    assert read_fitted(tmp_path / "all.json")["fusion"]["depth"] == 50
    for bad in ("[]", "{", '{"hops": 3}', '{"fusion": {"wrong": 1}}'):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(UsageError, match="no fitted values"):
            read_fitted(tmp_path / "bad.json")
