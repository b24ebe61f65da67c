"""What `agentmtl tune` can search: a recording, recorded traces, the embedded pipeline, an agent."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agentmtl.errors import UsageError

if TYPE_CHECKING:
    from agentmtl.agent.agent import Agent
    from agentmtl.compute.asking import Ask
    from agentmtl.compute.difficulty import ByDifficulty
    from agentmtl.compute.environment import Environment
    from agentmtl.compute.pipeline import Pipeline
    from agentmtl.compute.tuning import Tuned
    from agentmtl.evaluate.datasets import Question
    from agentmtl.experts.expert import Expert
    from agentmtl.retrieval.index import Index
    from agentmtl.schema import Allocation, Answer
    from agentmtl.settings import Settings

EMBEDDED = "embedded"
PILOT = 3  # questions on which what each option of an agent costs is measured first


def opened(
    name: str,
    data: Path | None,
    replay: Path | None,
    indexes: Path,
    limit: int | None,
    seed: int,
    settings: Settings,
) -> Environment:
    """The environment of a pipeline: "embedded", or the TOML file that declares it.

    Raises UsageError for one that is not there, that nothing runs, or that its recording does not match.
    """
    from agentmtl.compute.embedded import PIPELINE, embedded
    from agentmtl.compute.pipeline import load_pipeline
    from agentmtl.compute.recording import read_recording
    from agentmtl.compute.replay import Replay, matching

    pipeline = PIPELINE if name == EMBEDDED else load_pipeline(Path(name))
    if replay is not None:
        return (
            Replay(matching(pipeline, replay), seed) if replay.is_dir() else read_recording(replay, pipeline)
        )
    if name != EMBEDDED and not _is_agents(pipeline):
        raise UsageError(
            f"Nothing runs the stages of {pipeline.name!r} from here.",
            "Give a recording: --replay PATH. From Python: agentmtl.compute.live.Live.",
        )
    if data is None:
        raise UsageError("On which questions?", "Give a set with answers: --data DIR.")
    if name == EMBEDDED:
        return embedded(data, indexes, limit, seed, settings.backend)
    return _asked(pipeline, data, indexes, limit, seed, settings)


def _is_agents(pipeline: Pipeline) -> bool:
    from agentmtl.agent.pipeline import PIPELINE as AGENTS

    return {stage.name for stage in pipeline.stages} <= {stage.name for stage in AGENTS}


def _asked(
    pipeline: Pipeline, data: Path, indexes: Path, limit: int | None, seed: int, settings: Settings
) -> Environment:
    """An agent over the set's own documents, with the experts that the pipeline names."""
    from agentmtl.compute.asking import Asked, piloted
    from agentmtl.evaluate.datasets import answered, read_set
    from agentmtl.evaluate.indexes import index_for

    found = read_set(data)
    questions = answered(found, limit, seed)
    ask = asking(pipeline, index_for(found, indexes, backend=settings.backend), settings)
    return Asked(pipeline, questions, ask, piloted(pipeline, questions[:PILOT], ask))


def asking(pipeline: Pipeline, index: Index, settings: Settings) -> Ask:
    """Asks an agent with the allocation it is given; safe to use from several threads.

    It never refuses: a threshold is for the answers of what was found to be best. Raises UsageError for a
    model that is neither registered nor embedded.
    """
    from agentmtl.agent.agent import Agent

    experts = _experts(pipeline, index, settings)
    agents: dict[str, Agent] = {}
    lock = threading.Lock()

    def ask(question: Question, allocation: Allocation) -> Answer:
        key = repr(sorted(allocation.shares.items()))
        with lock:
            if key not in agents:
                agents[key] = Agent(
                    index, hops=settings.hops, threshold=0.0, allocation=allocation,
                    expert=experts[0] if experts else "auto", experts=experts[1:], backend=settings.backend,
                )  # fmt: skip
        return agents[key].ask(question.question, where=question.where)

    return ask


def _experts(pipeline: Pipeline, index: Index, settings: Settings) -> list[Expert]:
    """Those whom the stages name, opened once."""
    from agentmtl.agent.looking import EMBEDDED as HOPS
    from agentmtl.experts.default import embedded_expert
    from agentmtl.experts.prompting import prompts_in
    from agentmtl.experts.registry import Registry
    from agentmtl.integrations.experts import open_expert
    from agentmtl.retrieval.hops.evidence import EVIDENCE

    own = {stage.name for stage in EVIDENCE[:2]}  # their models are searches and rerankers
    named = [m for stage in pipeline.stages if stage.name not in own for m in stage.models if m]
    entries, encoder = Registry().entries(), index.settings.encoder
    experts: list[Expert] = []
    for name in dict.fromkeys(named):
        if name in ("reader", "sentences"):
            experts.append(embedded_expert(name, encoder, settings.backend))
        elif name in entries:
            experts.append(
                open_expert(
                    entries[name], encoder, settings.backend, prompts_in(settings.prompts), index.tasks
                )
            )
        elif name != HOPS:
            raise UsageError(
                f"No expert is registered as {name!r}.", "Add it: agentmtl experts add, or see experts list."
            )
    return experts


def by_difficulty(
    environment: Environment, tuned: Tuned, average: float, levels: int, settings: Settings
) -> ByDifficulty | None:
    """Allocations by difficulty that cost `average` a query on average, from what a search measured; None,
    and said so, where difficulty cannot be foreseen from the questions.

    Raises UsageError for a recording, whose questions are not known, or too few questions.
    """
    from agentmtl.cli.output import tell
    from agentmtl.compute.asking import Asked
    from agentmtl.compute.difficulty import by_difficulty as found_by
    from agentmtl.compute.live import Live
    from agentmtl.trunk import load_encoder

    if not isinstance(environment, Live | Asked):
        raise UsageError(
            "A recording does not hold its questions.", "Tune live: --data DIR, or leave --average out."
        )
    encoder = load_encoder(settings.encoder, backend=settings.backend)
    vectors = encoder.encode([one.question for one in environment.items], "query")
    leveled = found_by(environment.space, tuned.scores, vectors, average, levels, encoder.identity.space)
    if leveled.difficulty.explained > 0:
        return leveled
    tell(
        "difficulty: guesses from the questions explain nothing of it, so one allocation serves all, within "
        "the average. More questions may change that."
    )
    return None
