"""Routers: by description with no data, learned from scores; cost, habit and who is live."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentmtl.errors import UsageError
from agentmtl.routing.description import Described, DescriptionRouter, described
from agentmtl.routing.fitted import FittedRouter, RouterSettings, Rows
from agentmtl.routing.route import Floats, Policy, choose
from agentmtl.trunk import load_encoder

CARDS = {
    "travel": "Questions about flights, hotels and foreign words.",
    "bank": "Questions about accounts, cards and transfers of money.",
    "cook": "Questions about recipes, food and calories.",
}


@pytest.fixture(scope="module")
def router() -> DescriptionRouter:
    return DescriptionRouter(described(CARDS), load_encoder("hashing:256"))


def vector(text: str) -> Floats:
    return np.asarray(load_encoder("hashing:256").encode([text], "query")[0], np.float64)


@pytest.mark.parametrize(
    ("query", "expert"),
    [
        ("flights and hotels", "travel"),
        ("money transfers between accounts", "bank"),
        ("recipes of food", "cook"),
    ],
)
def test_a_card_is_enough_to_be_chosen(router: DescriptionRouter, query: str, expert: str) -> None:
    route = choose(router, vector(query), query)
    assert route.expert == expert and sum(route.scores.values()) == pytest.approx(1.0)
    assert route.to_json()["schema"] == 1 and not route.abstained


def test_examples_help_a_poor_card() -> None:
    vague = [Described("a", "Many things."), Described("b", "Other things.", ("how do I boil an egg",) * 3)]
    found = DescriptionRouter(vague, load_encoder("hashing:256"))
    assert choose(found, vector("how do I boil an egg"), "").expert == "b"
    with pytest.raises(UsageError, match="no expert"):
        DescriptionRouter([], load_encoder("hashing:256"))


class Fixed:
    """Chances that are given."""

    experts = ("cheap", "dear", "other")

    def __init__(self, *chances: float) -> None:
        self._chances = chances

    def probabilities(self, vectors: Floats, texts: object) -> Floats:
        return np.array([self._chances])


def test_cost_habit_health_and_doubt() -> None:
    costs, one = {"cheap": 0.1, "dear": 10.0}, np.ones(2)
    assert choose(Fixed(0.7, 0.9, 0.1), one, "").expert == "dear"
    assert choose(Fixed(0.7, 0.9, 0.1), one, "", Policy(0.05, costs=costs)).expert == "cheap"
    assert choose(Fixed(0.87, 0.9, 0.1), one, "", last="cheap").expert == "cheap"
    assert choose(Fixed(0.70, 0.9, 0.1), one, "", last="cheap").expert == "dear"
    assert choose(Fixed(0.7, 0.9, 0.1), one, "", Policy(live=frozenset({"cheap", "other"}))).expert == "cheap"
    assert choose(Fixed(0.7, 0.9, 0.1), one, "", last="gone").expert == "dear"
    assert choose(Fixed(0.2, 0.3, 0.1), one, "", Policy(threshold=0.5)).abstained
    with pytest.raises(UsageError, match="No expert is well"):
        choose(Fixed(0.7, 0.9, 0.1), one, "", Policy(live=frozenset()))


def rows(count: int = 600, seed: int = 3) -> Rows:
    """The strong expert is good at one half of the space, the weak one at the other; some were never
    asked."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.stack([vectors[:, 0] > 0, vectors[:, 0] < 0.2], axis=1).astype(float)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    return Rows(vectors, tuple("x" * int(n) for n in rng.integers(5, 50, count)), scores, ("strong", "weak"))


def test_it_learns_who_is_good_at_what_and_comes_back_from_disk(tmp_path: Path) -> None:
    fitted = FittedRouter.fit(rows(), RouterSettings(neighbours=20, strength=1.0))
    unseen = rows(200, seed=4)
    chances = fitted.probabilities(unseen.vectors, unseen.texts)
    for column in (0, 1):
        known = ~np.isnan(unseen.scores[:, column])
        said = chances[known, column] > 0.5
        assert np.mean(said == (unseen.scores[known, column] > 0.5)) > 0.9
    fitted.save(tmp_path / "router")
    again = FittedRouter.load(tmp_path / "router", load_encoder("hashing:8"))
    np.testing.assert_allclose(again.probabilities(unseen.vectors, unseen.texts), chances, atol=1e-4)
    assert again.experts == ("strong", "weak")
    assert fitted.novelty(rows().vectors).max() < 1e-9 < fitted.novelty(-unseen.vectors).mean()


def test_what_is_no_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no router"):
        FittedRouter.load(tmp_path, load_encoder("hashing:8"))
    good = rows()
    with pytest.raises(UsageError, match="All rows of strong are good"):
        FittedRouter.fit(Rows(good.vectors, good.texts, np.ones_like(good.scores), good.experts))
