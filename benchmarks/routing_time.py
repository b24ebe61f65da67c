"""How long a decision takes, with the question's encoding: description router and fitted router, warm.

    python benchmarks/routing_time.py [--data DIR] [--queries 200] [--rounds 9] [--clock cpu] [--json]

Ten experts by their cards (clinc-domains.toml) for spoken queries of CLINC's train file; a router fitted on
the train rows of RouteLLM's MMLU answers, for the same queries and for its own, longer prompts. "Given the
vector" leaves the encoding out, as where the search has made it already. A figure is a round's median
decision; the range is that of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from timing import CLOCKS, Row, Spread, parser, pin_threads, report

from agentmtl.evaluate.routing import fit, read_prompts
from agentmtl.evaluate.routing_cards import read_cards, read_labelled
from agentmtl.routing.decider import RouterDecider
from agentmtl.routing.description import DescriptionRouter, described
from agentmtl.routing.fitted import RouterSettings
from agentmtl.routing.route import Floats
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Encoder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "routing"
CARDS = Path(__file__).with_name("clinc-domains.toml")
CACHE = Path("indexes") / "routing"
TARGET = 5.0  # milliseconds, encoding included


def seconds_each(decide: Callable[[int], object], count: int, clock: str) -> list[float]:
    now, taken = CLOCKS[clock], []
    for number in range(count):
        started = now()
        decide(number)
        taken.append(now() - started)
    return taken


def measure(decide: Callable[[int], object], count: int, rounds: int, clock: str) -> Spread:
    """Milliseconds: the rounds' medians, after one round that is not counted."""
    seconds_each(decide, count, clock)
    return Spread.of([1e3 * statistics.median(seconds_each(decide, count, clock)) for _ in range(rounds)])


def rows_of(
    name: str, decider: RouterDecider, encoder: Encoder, texts: Sequence[str], rounds: int, clock: str
) -> list[Row]:
    vectors: list[Floats] = [np.asarray(v, np.float64) for v in encoder.encode(texts, "query")]
    whole = measure(lambda n: decider.decide(texts[n]), len(texts), rounds, clock)
    known = measure(lambda n: decider.decide(texts[n], vector=vectors[n]), len(texts), rounds, clock)
    return [Row(name, whole, "ms", at_most=TARGET), Row(f"{name}, given the vector", known, "ms")]


def main() -> None:
    options = parser(__doc__, rounds=9, threads=2)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--data", type=Path, default=DATA, help="folder of the routing sets")
    options.add_argument("--cache", type=Path, default=CACHE, help="where the vectors of MMLU's prompts are")
    arguments = options.parse_args()
    pin_threads(arguments.threads)
    encoder = load_encoder()
    rng = np.random.default_rng(0)
    spoken = read_labelled(arguments.data / "clinc-domains" / "train.jsonl").texts
    spoken = tuple(spoken[n] for n in rng.choice(len(spoken), arguments.queries, replace=False))
    train = read_prompts(arguments.data / "routellm-mmlu.jsonl", encoder, arguments.cache)["train"]
    long = tuple(train.texts[n] for n in rng.choice(len(train.texts), arguments.queries, replace=False))
    experts = described(read_cards(CARDS))
    cards = RouterDecider(DescriptionRouter(experts, encoder), encoder, experts=experts)
    fitted = RouterDecider(fit(train, RouterSettings(), encoder), encoder)
    turns = (arguments.rounds, arguments.clock)
    rows = [
        *rows_of("10 descriptions, CLINC's queries", cards, encoder, spoken, *turns),
        *rows_of(f"fitted on {len(train.texts):,} rows, CLINC's queries", fitted, encoder, spoken, *turns),
        *rows_of(f"fitted on {len(train.texts):,} rows, MMLU's prompts", fitted, encoder, long, *turns),
    ]
    report("routing_time", rows, arguments)


if __name__ == "__main__":
    main()
