"""What the tuner itself costs a trial, with a pipeline that costs nothing, ÷ Optuna's TPE; and a lookup.

    python benchmarks/compute_overhead.py [--trials 60] [--rounds 5] [--json]

Every side proposes, is told and recommends at the end, on the same made-up scores. TPE is Optuna's own study
with its default sampler: nothing of ours around it. Ours writes its journal to disk, as `agentmtl tune` does.
`landscape` searches 144 whole configurations of three stages on 60 questions (the shape of the embedded
pipeline); `racing` three stages of four models with 1 to 64 votes on 30 questions. A trial of racing is one
more sample of a stage and model; a trial of the others is a configuration on some questions.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from timing import SEED, Row, Spread, parser, pin_threads, ratio, report, take_turns

from agentmtl.compute.environment import Bench, Run, Samples
from agentmtl.compute.frontier import Frontier
from agentmtl.compute.journal import Journal
from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.search.base import Setup, run_search
from agentmtl.compute.search.methods import make_searcher
from agentmtl.compute.space import Choice, Space
from agentmtl.compute.tuning import frontier_of
from agentmtl.schema import Stage

GRID = (1, 2, 4, 8, 16, 32, 64)
LOOKUPS = 20_000


@dataclass
class Free:
    """Answers and scores that were drawn beforehand; nothing runs."""

    space: Space
    questions: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(SEED)
        models, most = max(len(s.models) for s in self.space.stages), max(GRID)
        shape = len(self.space.stages), models, self.questions, most
        right = rng.random(shape) < 0.3 + 0.12 * np.arange(models)[:, None, None]
        self.answers = np.where(right, 0, rng.integers(1, 9, shape)).tolist()
        self.scores = (rng.random((128, self.questions)) < np.linspace(0.3, 0.6, 128)[:, None]).tolist()

    def sample(self, stage: int, model: int, question: int, first: int, last: int) -> Samples:
        answers = self.answers[stage][model][question][first:last]
        return Samples(tuple(answers), (0.0,) * len(answers))

    def run(self, choice: Choice, question: int) -> Run:
        return Run(float(self.scores[sum(choice)][question]), 0.0)


def whole() -> Free:
    stages = (
        Stage("search", ("a", "b", "c", "d"), (3, 12, 24)),
        Stage("rerank", ("r",), (0, 10, 20)),
        Stage("read", ("r",), (1, 2, 4, 8)),
    )
    return Free(_space(stages, "end"), 60)


def votes() -> Free:
    stages = tuple(Stage(name, ("a", "b", "c", "d"), GRID) for name in ("one", "two", "three"))
    return Free(_space(stages, "product"), 30)


def _space(stages: tuple[Stage, ...], combine: str) -> Space:
    costs = tuple(
        np.array([[(m + 1.0) * (n + 1) for n in s.samples] for m, _ in enumerate(s.models)]) for s in stages
    )
    return Space(Pipeline("free", stages, "calls", combine), costs)  # type: ignore[arg-type]


def ours(
    method: str, free: Free, trials: int, folder: Path, seeds: itertools.count[int]
) -> Callable[[], None]:
    budget = 0.6 * float(sum(cost.max() for cost in free.space.costs))

    def run() -> None:
        seed = next(seeds)
        journal = Journal(folder / f"{method}-{seed}.jsonl")
        searcher = make_searcher(method, Setup(free.space, free.questions, (budget,), seed))
        done = run_search(searcher, Bench(free, 1e12, journal), most=trials)
        searcher.recommend(budget)
        journal.close()
        assert done == trials, done

    return run


def tpe(free: Free, trials: int, seeds: itertools.count[int]) -> Callable[[], None]:
    """Optuna by itself, each trial told a score that is looked up."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def run() -> None:
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=next(seeds))
        )
        for _ in range(trials):
            trial = study.ask()
            choice = []
            for stage in free.space.stages:
                model = trial.suggest_categorical(f"{stage.name}.model", list(stage.models))
                place = trial.suggest_int(f"{stage.name}.samples", 0, len(stage.samples) - 1)
                choice.append(stage.models.index(model) * len(stage.samples) + place)
            study.tell(trial, free.run(tuple(choice), 0).score)

    return run


def lookups(frontier: Frontier) -> Callable[[], None]:
    costs = np.linspace(frontier.points[0].cost, frontier.points[-1].cost, LOOKUPS).tolist()

    def run() -> None:
        for cost in costs:
            frontier.resolve(cost)

    return run


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--trials", type=int, default=60)
    arguments = made.parse_args()
    pin_threads(arguments.threads)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for method, free in (("landscape", whole()), ("racing", votes())):
            seeds = itertools.count()
            searcher = make_searcher(method, Setup(free.space, free.questions, (40.0,), 0))
            run_search(searcher, Bench(free, 1e12), most=40)
            sides = {
                "ours": ours(method, free, arguments.trials, Path(name), seeds),
                "tpe": tpe(free, arguments.trials, seeds),
                "lookup": lookups(frontier_of(searcher, free.space, 40.0)),
            }
            taken = take_turns(sides, arguments.rounds, arguments.clock)
            each = [seconds / arguments.trials for seconds in taken["ours"]]
            rows.append(Row(f"{method} ÷ TPE, a trial", ratio(taken, "ours", "tpe"), at_most=1.0))
            rows.append(Row(f"{method}, a trial", Spread.of([1e3 * one for one in each]), "ms"))
            looked = [s / LOOKUPS / one for s, one in zip(taken["lookup"], each, strict=True)]
            rows.append(Row(f"frontier.resolve ÷ a trial of {method}", Spread.of(looked), at_most=0.01))
    report("compute overhead", rows, arguments)


if __name__ == "__main__":
    main()
