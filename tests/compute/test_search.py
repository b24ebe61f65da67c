"""Every searcher on a small recording: within the budget, deterministic, resumable after a kill."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentmtl.compute.environment import Bench, Draw, Proposal, Result, Samples, quality_of
from agentmtl.compute.journal import Journal
from agentmtl.compute.knapsack import solve
from agentmtl.compute.replay import Replay
from agentmtl.compute.search.base import Recommendation, Searcher, Setup, run_search
from agentmtl.compute.search.belief import StageBelief
from agentmtl.compute.search.ideas import TIMES, Chat, Reply, WithIdeas, proposed
from agentmtl.compute.search.language import first_trials, remembered, scripted
from agentmtl.compute.search.methods import LANGUAGE, METHODS, make_searcher
from agentmtl.compute.search.racing import RacingSearch
from agentmtl.compute.search.simple import equal_split
from agentmtl.compute.space import Space
from agentmtl.compute.votes import Tally
from agentmtl.errors import UsageError
from agentmtl.schema import Usage

from .worlds import recorded

WORLD = recorded()
SPACE = WORLD.space()
BUDGET = 2.5e12
LIMIT = 1.2e14
INSTALLED = [
    pytest.param(m, marks=pytest.mark.slow) if m == "gp" else m
    for m in METHODS
    if m not in ("tpe", "gp", "landscape") or m != "landscape" and importlib.util.find_spec("optuna")
]


def searcher(method: str, journal: Journal | None = None, seed: int = 0) -> Searcher:
    chat = scripted(SPACE, BUDGET, seed) if method in LANGUAGE else None
    if chat is not None and journal is not None:
        chat = remembered(chat, journal)
    return make_searcher(method, Setup(SPACE, WORLD.questions, (BUDGET,), seed), chat)


def searched(method: str, journal: Journal | None = None, seed: int = 0) -> tuple[Recommendation, Bench]:
    bench = Bench(Replay(WORLD, seed), LIMIT, Journal() if journal is None else journal)
    made = searcher(method, journal, seed)
    run_search(made, bench, most=60)
    return made.recommend(BUDGET), bench


@pytest.mark.parametrize("method", INSTALLED)
def test_recommends_what_the_budget_allows_and_spends_what_it_may(method: str) -> None:
    found, bench = searched(method)
    assert SPACE.cost(found.choice) <= BUDGET and bench.spent <= LIMIT
    assert found.low <= found.quality <= found.high and found.choice in found.tied
    assert searched(method)[0] == found


class Killed(Exception):
    pass


class Dying(Journal):
    """Ends the process, so to speak, in the middle of the row of that number."""

    after = 0

    def add(self, key: str, value: object) -> None:
        if len(self) >= self.after:
            assert self._file is not None
            self._file.write(b'{"key": "cut')
            self._file.flush()
            raise Killed
        super().add(key, value)


@pytest.mark.parametrize("method", ["racing", "nested", "random", "evolution", "coordinate", "agent-tts"])
@pytest.mark.parametrize("after", [0, 1, 30, 60])
def test_a_killed_search_resumes_to_the_same_end_and_pays_nothing_twice(
    method: str, after: int, tmp_path: Path
) -> None:
    whole, bench = searched(method, Journal())
    dying = Dying(tmp_path / "journal.jsonl")
    dying.after = after
    with pytest.raises(Killed):
        searched(method, dying)
    dying.close()
    journal = Journal(tmp_path / "journal.jsonl")
    paid = sum(sum(row["costs"]) for key in list(journal._rows) if "costs" in (row := journal.get(key)))
    again, resumed = searched(method, journal)
    assert again == whole and resumed.spent == bench.spent
    assert resumed.paid == pytest.approx(bench.paid - paid)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == len(journal) + 1


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, {"seed": 1}).close()
    with pytest.raises(UsageError, match="another search"):
        Journal(path, {"seed": 2})
    with pytest.raises(UsageError, match="--resume"):
        Journal(path, {"seed": 1}, resume=False)


def test_racing_comes_near_the_optimum() -> None:
    truth = WORLD.truth()
    solved = solve(SPACE.costs, truth)
    shares = []
    for seed in range(10):
        found, _ = searched("racing", seed=seed)
        shares.append(quality_of(SPACE, found.choice, truth) / solved.values[solved.at(BUDGET)])
    assert np.mean(shares) > 0.95


def test_one_racing_search_gives_the_whole_frontier() -> None:
    made = RacingSearch(Setup(SPACE, WORLD.questions, (1e12, BUDGET), 0))
    run_search(made, Bench(Replay(WORLD, 0), LIMIT))
    solved = made.solutions()
    assert (np.diff(solved.costs) > 0).all() and (np.diff(solved.values) > 0).all()
    assert made.recommend(1e12).quality <= made.recommend(BUDGET).quality


def test_a_belief_is_exact_where_all_is_known_and_wide_where_little_is() -> None:
    belief = StageBelief((1, 4), (4, 4), 2)
    belief.add(0, [[0] * 200, [1] * 150 + [0] * 50])
    belief.add(1, [[0], [1]])
    belief.fit()
    assert belief.mean[0] == pytest.approx([0.625, (1 + _right_of_four()) / 2], abs=0.02)
    assert (belief.deviation[0] < 0.03).all() and (belief.deviation[1] > 0.1).all()
    assert belief.learned(0, 1) > belief.learned(0, 10)


def _right_of_four() -> float:
    """A vote of four where one answer in four is right: 4 or 3 right, or half of 2."""
    p = 0.25
    return p**4 + 4 * p**3 * (1 - p) + 0.5 * 6 * p**2 * (1 - p) ** 2


def test_a_choice_that_is_as_good_and_cheaper_is_recommended() -> None:
    """Both models of stage two are always right: the small one is enough."""
    made = RacingSearch(Setup(SPACE, WORLD.questions, (BUDGET,), 0))
    for stage, belief in enumerate(made.beliefs):
        for model in range(2):
            right = [[0] * 300 for _ in range(WORLD.questions)]
            made.tell(Result(Draw(stage, model, 300), 0.0, tuple(Samples(tuple(r), ()) for r in right)))
        belief.fit()
    found = made.recommend(BUDGET)
    assert found.choice == (0, 0) and len(found.tied) > 1
    assert SPACE.cost(found.choice) == min(SPACE.cost(c) for c in found.tied)


def test_equal_split_and_first_trials_stay_within_the_budget() -> None:
    for budget in (SPACE.cheapest, 1e12, BUDGET, 1e14):
        assert SPACE.cost(equal_split(SPACE, budget)) <= budget
        assert all(SPACE.cost(c) <= budget for c in first_trials(SPACE, budget))


def test_replies_of_a_model_are_checked() -> None:
    good = '{"first": {"model": "large", "samples": 5}, "second": {"model": "small", "samples": 1}}'
    bad = ['{"first": {"model": "huge", "samples": 1}}', '"x"', "3", good.replace("5", '"many"')]
    said = f"Here: [{', '.join([good, *bad])}] as asked."
    assert proposed(said, SPACE) == [(4 + 2, 0)]
    assert proposed("nothing", SPACE) == proposed("[{]", SPACE) == []


def test_a_language_search_needs_a_model_and_names_are_checked() -> None:
    with pytest.raises(UsageError, match="--llm"):
        searcher_without = Setup(SPACE, 12, (BUDGET,))
        make_searcher("agent-tts", searcher_without)
    with pytest.raises(UsageError, match="no method"):
        make_searcher("magic", Setup(SPACE, 12, (BUDGET,)))
    with pytest.raises(UsageError, match="cheapest"):
        Setup(SPACE, 12, (1.0,))


def test_a_proposal_that_is_too_dear_is_not_measured() -> None:
    class Greedy:
        def ask(self, left: float) -> Proposal:
            return Draw(0, 1, 8)

        def tell(self, result: Result) -> None:
            raise AssertionError

        def recommend(self, budget: float) -> Recommendation:
            raise AssertionError

    bench = Bench(Replay(WORLD, 0), 1e12)
    run_search(Greedy(), bench)
    assert bench.spent == 0


def test_tallies_sort_what_is_wrong() -> None:
    assert Tally.of([2, 1, 1, 0, -1]) == Tally(1, (2, 1), 1)


def test_a_space_of_whole_pipelines_is_not_for_racing() -> None:
    whole = Space(replace(SPACE.pipeline, combine="end"), SPACE.costs)
    with pytest.raises(UsageError, match="landscape"):
        RacingSearch(Setup(whole, 12, (BUDGET,)))


# --- a model's ideas ----------------------------------------------------------------------------------------


def with_ideas(chat: Chat, journal: Journal | None = None) -> tuple[WithIdeas, Bench]:
    bench = Bench(Replay(WORLD, 0), LIMIT, Journal() if journal is None else journal)
    made = make_searcher("racing", Setup(SPACE, WORLD.questions, (BUDGET,), 0), chat)
    assert isinstance(made, WithIdeas)
    return made, bench


def test_a_model_is_one_source_among_others(tmp_path: Path) -> None:
    """What it names is drawn once more; what it costs is told; a search that is resumed asks it nothing."""
    asked: list[str] = []

    def chat(system: str, user: str) -> Reply:
        asked.append(user)
        return Reply(scripted(SPACE, BUDGET)(system, user).text, Usage(1, 300, 40))

    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    made, bench = with_ideas(remembered(chat, journal), journal)
    run_search(made, bench, most=60)
    journal.close()
    assert made.usage == Usage(len(asked), 300 * len(asked), 40 * len(asked)) and 0 < len(asked) <= TIMES
    assert "JSON list" in asked[0] and '"score"' in asked[0]
    first, times = made.recommend(BUDGET), len(asked)
    kept = Journal(path)
    again, replayed = with_ideas(remembered(chat, kept), kept)
    run_search(again, replayed, most=60)
    assert again.recommend(BUDGET) == first and len(asked) == times and replayed.paid == 0
    assert again.usage == made.usage


@pytest.mark.parametrize("said", ["", "[{]", '[{"first": {"model": "huge", "samples": 1}}]'])
def test_a_model_that_says_nothing_usable_changes_nothing(said: str) -> None:
    made, bench = with_ideas(lambda system, user: Reply(said))
    run_search(made, bench, most=60)
    assert made.recommend(BUDGET) == searched("racing")[0]


def test_what_a_model_costs_is_within_the_limit_of_the_search() -> None:
    space = Space(replace(SPACE.pipeline, unit="tokens"), SPACE.costs)
    bench = Bench(Replay(replace(WORLD, pipeline=space.pipeline), 0), 1000.0)
    bench.charge(Usage(1, 300, 40))
    bench.charge(Usage(2, 600, 80))
    assert bench.spent == bench.proposing == 680 and bench.left == 320
