"""agentmtl train reward: what best-of-n chooses by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentmtl.cli.answering import LlmFlag
from agentmtl.cli.evaluation_options import Indexes, Limit, Seed, command_line
from agentmtl.cli.output import (
    INDEXES,
    BackendFlag,
    ExpertFlag,
    JsonFlag,
    QuietFlag,
    emit,
    say,
    settings_from,
    watching,
)
from agentmtl.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.learn.reward import AgentOf
    from agentmtl.retrieval.index import Index


def reward(
    data: Annotated[
        list[Path], typer.Option("--data", metavar="DIR", help="A reading or multi-hop set; repeat for more.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the reward is written.")],
    llm: LlmFlag = None,
    expert: ExpertFlag = "auto",
    folds: Annotated[
        Path | None,
        typer.Option("--folds", help="Folder of readers fold-0, fold-1 …, for what they have not seen."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Of each question.", min=2)] = 20,
    split: Annotated[str, typer.Option("--split", help="Of a reading set: test or train.")] = "train",
    limit: Limit = None,
    seed: Seed = 0,
    indexes: Indexes = INDEXES / "eval",
    backend: BackendFlag = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit what best-of-n chooses by, from an expert's answers to questions whose answers are known.

    Examples:

      agentmtl train reward --data ../shared/data/multihop/hotpotqa --folds heads/reader --out reward.json

      agentmtl train reward --data sets/mine --llm vllm:MODEL --samples 16 --out reward.json --json
    """
    from agentmtl.learn.reward import draw, train_reward

    used = settings_from(backend=backend).backend
    with watching("asking", quiet or as_json) as watch:
        drawn = draw(
            data, _agents(llm, expert, folds, used), samples, limit=limit, seed=seed, split=split,
            index_root=indexes, backend=used, asked=watch,
        )  # fmt: skip
    told = train_reward(drawn, out, command_line(), seed)
    if as_json:
        emit({"schema": SCHEMA_VERSION, "out": str(out), **told})
        return
    counts = next(iter(told["f1"].values()))
    say(f"{'F1 of the chosen answer':<24}" + "".join(f"{n:>8}" for n in counts))
    for name, by in told["f1"].items():
        say(f"{name:<24}" + "".join(f"{value:>8.3f}" for value in by.values()))
    for name, one in told["difference"].items():
        say(f"best-of-n - {name}: {one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]")
    say(f"ECE {told['ece']:.3f} over {told['questions']:,} questions: {out}")


def _agents(llm: str | None, expert: str, folds: Path | None, backend: str) -> AgentOf:
    """The agent for a question, one an index and expert: with folds, one that has not seen it."""
    from agentmtl.agent.agent import Agent
    from agentmtl.cli.answering import chat_expert
    from agentmtl.evaluate.held_out import open_folds
    from agentmtl.experts.expert import Expert
    from agentmtl.experts.reader import ReaderExpert
    from agentmtl.trunk.head_network import open_head

    readers = open_folds(folds, lambda path: ReaderExpert(open_head(path, backend))) if folds else None
    one = chat_expert(llm, 256) if llm else None
    made: dict[tuple[Path, int], Agent] = {}

    def agent_of(index: Index, question: str) -> Agent:
        given: Expert | str = readers.of(question) if readers else one or expert
        key = (index.folder, id(given))
        if key not in made:
            made[key] = Agent(index, expert=given, backend=backend)
        return made[key]

    return agent_of
