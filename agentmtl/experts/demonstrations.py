"""The embedded demonstration voter: predicts from labelled examples alone, with no model but the encoder.

Every demonstration z has a weight p(z | x) = softmax(κ · score), with the scores of the k retrieved ones
standardised; the prediction is the marginal p(y | x) = Σ_z p(z | x) · p(y | x, z) (Lewis et al., arXiv
2005.11401, equation 1, with these heads):

    classification    p(y | x, z) = 1 for z's own label
    multiple choice   an option's likeness to the question, and of question and option together to the
                      examples with their right answers
    anything else     p(y | x, z) = 1 for z's own output: the nearest example's is given
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.index.vectors import vectors_of
from agentmtl.retrieval.demonstrations import Selected, Selection, select
from agentmtl.retrieval.hits import Hits
from agentmtl.retrieval.retriever import MAX_K, Retriever, task_filter
from agentmtl.retrieval.voting import STRENGTH, kernel_weights, tally
from agentmtl.schema import Demonstration, Hit
from agentmtl.tasks import Task
from agentmtl.trunk.encoder import Vectors

OPTION_TEMPERATURE = 0.1  # of the likeness of options
UNUSUAL = 0.05  # of a task's own examples that would be abstained from
SAMPLE, FEWEST = 300, 50  # examples looked at; below the second nothing is unusual


@dataclass(frozen=True, slots=True)
class Vote:
    """A prediction. `probabilities` of every output that got a vote, or of every option, the likeliest
    first; `output` is "" where it abstains."""

    input: str
    output: str
    probabilities: Mapping[str, float]
    demonstrations: tuple[Hit, ...]
    abstained: bool

    @property
    def confidence(self) -> float:
        """The probability of the likeliest output, given or not."""
        return next(iter(self.probabilities.values()), 0.0)


@dataclass(frozen=True, slots=True)
class VoterSettings:
    """`threshold`: abstain where the likeliest output has a lower probability; `nearest`: where the best
    example's cosine is lower, as for an input that fits no label."""

    selection: Selection = field(default_factory=Selection)
    strength: float = STRENGTH
    threshold: float = 0.0
    nearest: float = -1.0


class Voter(Protocol):
    """What predicts for one task of an index."""

    def predict(self, inputs: Sequence[str], choices: Sequence[Sequence[str]] | None = None) -> list[Vote]:
        """A prediction for each input; `choices` are the options of each, for multiple choice."""
        ...


class DemonstrationVoter:
    """Predicts for one task from the demonstrations of an index."""

    name = "demonstrations"
    card = "Labels, choices and short outputs, by the nearest labelled examples."

    def __init__(self, retriever: Retriever, task: Task, settings: VoterSettings | None = None) -> None:
        self._retriever = retriever
        self._task = task
        self._settings = settings or VoterSettings()
        self._labels: frozenset[str] | None = None

    @property
    def settings(self) -> VoterSettings:
        """How it selects, weighs and abstains."""
        return self._settings

    def predict(self, inputs: Sequence[str], choices: Sequence[Sequence[str]] | None = None) -> list[Vote]:
        """A prediction for each input; `choices` are the options of each, for multiple choice.

        All are encoded together. Raises UsageError where options are missing, and what retrieval raises.
        """
        k = self._settings.selection.k
        return [votes[k] for votes in self.predict_with(inputs, choices, [k])]

    def predict_with(
        self, inputs: Sequence[str], choices: Sequence[Sequence[str]] | None, ks: Sequence[int]
    ) -> list[dict[int, Vote]]:
        """For each input, the prediction from the best k demonstrations, for every k of `ks`."""
        options = offered(self._task, inputs, choices)
        selection = replace(self._settings.selection, k=max(ks), order="best_first")
        vectors = self._retriever.encode_inputs(inputs, self._task.name) if inputs else ()
        found: list[dict[int, Vote]] = []
        for text, mine, vector in zip(inputs, options, vectors, strict=True):
            chosen = select(self._retriever, text, self._task.name, selection, vector)
            found.append({k: self._vote(text, mine, _first(chosen, k)) for k in ks})
        return found

    def _vote(self, text: str, options: Sequence[str], found: Selected) -> Vote:
        settings = self._settings
        if options:
            examples = [Demonstration.from_unit(hit.unit) for hit in found.hits]
            votes = option_votes(text, options, examples, self._retriever.encode_queries)
        else:
            voting = [hit for hit in found.hits if self._may_vote(hit)]
            weights = kernel_weights([hit.score for hit in voting], settings.strength)
            votes = tally([_output(hit) for hit in voting], weights)
        ordered = dict(sorted(votes.items(), key=lambda item: (-item[1], item[0])))
        best, share = next(iter(ordered.items()), ("", 0.0))
        near = max(found.cosines, default=-1.0) >= settings.nearest
        abstained = not found.hits or share < settings.threshold or not near
        hits = found.hits if settings.selection.order == "best_first" else found.hits[::-1]
        return Vote(text, "" if abstained else best, ordered, hits, abstained)

    def _may_vote(self, hit: Hit) -> bool:
        """Examples of other tasks, where the bank has them, vote for what this task may answer alone."""
        if self._settings.selection.bank == "task" or hit.unit.metadata.get("task") == self._task.name:
            return True
        return self._task.kind == "classification" and _output(hit) in self.labels

    @property
    def labels(self) -> frozenset[str]:
        """What the task may answer: its card's labels, or without any the outputs of its examples."""
        if self._labels is None:
            self._labels = frozenset(self._task.labels) or outputs_of(self._retriever, self._task.name)
        return self._labels


def offered(
    task: Task, inputs: Sequence[str], choices: Sequence[Sequence[str]] | None
) -> Sequence[Sequence[str]]:
    """The options of each input, () where there are none. Raises UsageError where they are missing."""
    options = choices if choices is not None else [()] * len(inputs)
    if len(options) != len(inputs) or (task.kind == "multiple_choice" and not all(options)):
        raise UsageError(f"The task {task.name} chooses among options.", 'Give "choices" with each input.')
    return options


def option_votes(
    text: str,
    options: Sequence[str],
    examples: Sequence[Demonstration],
    encode: Callable[[Sequence[str]], Vectors],
) -> dict[str, float]:
    """softmax over the options of: cosine of question and option, plus the mean cosine of question with
    option and example with its answer. No votes without examples. `encode` gives the trunk's unit vectors
    (n, d): a head that finds examples was not made to compare options (`docs/decisions.md`)."""
    if not examples:
        return {}
    question, n = question_of(text, options), len(options)
    together = [f"{question} {option}" for option in options]
    answered = [f"{question_of(e.input, e.choices)} {e.output}" for e in examples]
    vectors = encode([question, *options, *together, *answered])
    alone, whole, known = vectors[1 : n + 1], vectors[n + 1 : 2 * n + 1], vectors[2 * n + 1 :]
    scores = alone @ vectors[0] + (whole @ known.T).mean(axis=1)
    weights = np.exp((scores - scores.max()) / OPTION_TEMPERATURE)
    return dict(zip(options, (weights / weights.sum()).tolist(), strict=True))


def question_of(text: str, options: Sequence[str]) -> str:
    """What stands before the first option, without its label: the question of a multiple choice alone."""
    places = [place for option in options if (place := text.find(option)) > 0]
    head = re.sub(r"\s*\(?\w[.):]\s*\Z", "", text[: min(places)]) if places else text
    return head.strip() or text


def _output(hit: Hit) -> str:
    return str(hit.unit.metadata.get("output", ""))


def outputs_of(retriever: Retriever, task: str) -> frozenset[str]:
    """The outputs of a task's examples (of the first `MAX_K`)."""
    return frozenset(_output(hit) for hit in examples_of(retriever, task))


def examples_of(retriever: Retriever, task: str, most: int = MAX_K) -> Hits:
    """A task's examples, `most` at most, in no particular order."""
    nowhere = np.zeros(retriever.snapshot.settings.encoder.dimension, np.float32)
    return retriever.retrieve(nowhere, level="demonstration", k=most, where=task_filter(None, task))


def usual_nearest(retriever: Retriever, task: str, share: float = UNUSUAL) -> float:
    """The cosine that all but `share` of the task's examples reach with their own nearest neighbour.

    An input whose best example is less like it fits none of them, as far as examples can tell. Taken over
    `SAMPLE` examples, evenly spread; −1 where there are too few to say.
    """
    where = task_filter(None, task)
    known = examples_of(retriever, task)
    addresses = known.addresses[:: max(1, len(known) // SAMPLE)]
    if len(addresses) < FEWEST:
        return -1.0
    segments = retriever.snapshot.segments
    rows = [vectors_of(segments[n].levels["demonstration"].flat)[p] for n, p in addresses]
    found = retriever.retrieve_batch(np.stack(rows), level="demonstration", k=2, where=where)
    return float(np.quantile([float(hits.scores[-1]) for hits in found], share))


def _first(found: Selected, k: int) -> Selected:
    return Selected(found.hits[:k], found.cosines[:k])
