"""The demonstration voter as an expert: a label, a choice or a short output, by labelled examples it cites.

It votes as `experts.demonstrations` does, but from evidence: its `needs` are demonstrations, and the
evidence's passages then are the examples of its task that `voting_evidence` selects.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from agentmtl.errors import UsageError
from agentmtl.experts.demonstrations import VoterSettings, option_votes
from agentmtl.experts.expert import Needs
from agentmtl.experts.quoting import quoted
from agentmtl.retrieval.demonstrations import Selection, select
from agentmtl.retrieval.retriever import Retriever
from agentmtl.retrieval.voting import kernel_weights, tally
from agentmtl.schema import Candidate, Citation, Demonstration, Evidence, Hit
from agentmtl.tasks import Task
from agentmtl.trunk.encoder import Vectors

COSINE = "cosine"  # of input and example, among a hit's channels
SHOWN = 3  # examples cited for an answer, at most
_LETTERS = "ABCDEFGH"
_OPTION = re.compile(r"(?:(?<=\s)|\A)\(?([A-H])[.):]\s+")


class VoterExpert:
    """See the top of this module. Immutable, so safe in several threads.

    `encode`: texts to unit vectors (n, d), with which the options of a multiple choice are compared; they
    stand in the question as "A) … B) …". `threshold` and `nearest` of the settings abstain as they do in
    `agentmtl run`.
    """

    needs: Needs = "demonstrations"

    def __init__(
        self,
        task: Task,
        settings: VoterSettings | None = None,
        *,
        encode: Callable[[Sequence[str]], Vectors] | None = None,
        name: str = "",
        card: str = "",
    ) -> None:
        """Raises UsageError for a multiple choice without `encode`."""
        if task.kind == "multiple_choice" and encode is None:
            raise UsageError(f"The task {task.name} compares options.", "Give the voter the index's encoder.")
        self.task, self._task, self._settings = task.name, task, settings or VoterSettings()
        self._encode = encode
        self.name = name or f"voter:{task.name}"
        self.card = (
            card or f"Answers {task.name} by the nearest labelled examples. {task.instruction}".strip()
        )
        self.threshold = self._settings.threshold

    @property
    def labels(self) -> tuple[str, ...]:
        """What it may answer; () for whatever the examples say."""
        return self._task.labels

    @property
    def selection(self) -> Selection:
        """How its examples are chosen."""
        return self._settings.selection

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """The `n` likeliest outputs, each citing the examples that voted for it; [] without examples, and
        where none is as near as the settings ask for."""
        voting = [hit for hit in evidence.passages or demonstrations if self._may_vote(hit)]
        near = max((hit.channels.get(COSINE, hit.channels.get("dense", 1.0)) for hit in voting), default=-1.0)
        if not voting or near < self._settings.nearest:
            return []
        votes = self._votes(question, voting)
        ranked = sorted(votes.items(), key=lambda item: (-item[1], item[0]))[:n]
        return [self._candidate(output, share, voting) for output, share in ranked if output.strip()]

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` in a worker thread."""
        return await asyncio.to_thread(self.propose, question, evidence, demonstrations, n)

    def _may_vote(self, hit: Hit) -> bool:
        if hit.unit.level != "demonstration":
            return False
        if hit.unit.metadata.get("task") != self.task:
            return self._task.kind == "classification" and _output(hit) in self.labels
        return not self.labels or _output(hit) in self.labels

    def _votes(self, question: str, voting: Sequence[Hit]) -> dict[str, float]:
        if self._task.kind == "multiple_choice" and self._encode is not None:
            options = options_of(question)
            examples = [Demonstration.from_unit(hit.unit) for hit in voting]
            if not options:
                return {}
            return option_votes(question, options, examples, self._encode)
        weights = kernel_weights([hit.score for hit in voting], self._settings.strength)
        return tally([_output(hit) for hit in voting], weights)

    def _candidate(self, output: str, share: float, voting: Sequence[Hit]) -> Candidate:
        """Options are cited by the nearest examples: none has voted for one alone."""
        mine = [hit for hit in voting if _output(hit) == output] or voting
        citations = tuple(
            Citation(
                marker, hit.unit.id, hit.unit.source_id, hit.unit.start, hit.unit.end, hit.text,
                hit.unit.title, hit.unit.file,
            )
            for marker, hit in enumerate(mine[:SHOWN], 1)
        )  # fmt: skip
        marks = "".join(f"[{citation.marker}]" for citation in citations)
        return Candidate(f"{quoted(output)} {marks}", citations, min(1.0, share), self.name)


def voting_evidence(
    retriever: Retriever,
    question: str,
    task: str,
    selection: Selection | None = None,
    where: str | None = None,
) -> Evidence:
    """The examples of a task for a question, best first, as the passages of an evidence; their cosine with
    the question is among their channels. Raises what `Retriever.retrieve` raises."""
    wanted = replace(selection or Selection(), order="best_first")
    found = select(retriever, question, task, wanted, where=where)
    hits = tuple(
        replace(hit, channels={**hit.channels, COSINE: cosine})
        for hit, cosine in zip(found.hits, found.cosines, strict=True)
    )
    return Evidence(question, passages=hits)


def options_of(question: str) -> list[str]:
    """The options "A) … B) …" that stand in a question, without their letters; [] for fewer than two."""
    run: list[re.Match[str]] = []
    for found in _OPTION.finditer(question):
        if found[1] == _LETTERS[len(run) : len(run) + 1]:
            run.append(found)
    ends = [found.start() for found in run[1:]] + [len(question)]
    options = [question[found.end() : end].strip() for found, end in zip(run, ends, strict=False)]
    return options if len(options) > 1 and all(options) else []


def _output(hit: Hit) -> str:
    return str(hit.unit.metadata.get("output", ""))
