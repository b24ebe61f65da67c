"""A language model that reads an input after one labelled example at a time, and what all readings say.

    p(y | x) = Σ_z p(z | x) · p(y | x, z)     (arXiv 2307.00119; Lewis et al., arXiv 2005.11401, equation 1)

over the k nearest examples z, of the task and, with a bank, of other tasks: p(z | x) = softmax(cosine / T),
and p(y | x, z) the share of y among the labels, or options, by the mean log-probability of its tokens after

    INSTRUCTION ⏎⏎ Input: x_z ⏎ Output: y_z ⏎⏎ Input: x ⏎ Output:

A prompt holds one example, so that it stays short and no order of examples decides. The model is only asked
for probabilities: what an example says cannot make it write anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.experts.bank import TEMPERATURE, LearnedBank, readable
from agentmtl.experts.demonstrations import Vote, VoterSettings, offered, outputs_of
from agentmtl.experts.few_shot import Floats, log_softmax
from agentmtl.experts.scoring import Pair, Scorer
from agentmtl.retrieval.bank import PREFERENCE
from agentmtl.retrieval.demonstrations import Selected, select
from agentmtl.retrieval.retriever import Retriever
from agentmtl.tasks import Task
from agentmtl.trunk.encoder import Vectors


@dataclass(frozen=True, slots=True)
class Shown:
    """An example as it is shown, and its likeness to the input."""

    input: str
    output: str
    score: float


class ConditionedReader:
    """Predicts for one task of an index as `DemonstrationVoter` does, with a language model. It is not
    trained: a task works from its first examples. As safe in several threads as the model is."""

    def __init__(
        self,
        retriever: Retriever,
        task: Task,
        model: Scorer,
        learned: LearnedBank | None = None,
        settings: VoterSettings | None = None,
    ) -> None:
        """`learned`: a bank of other tasks, whose examples are shown where their cosine is higher, by
        `PREFERENCE`, than that of the task's own. Raises UsageError for a task that has neither labels nor
        options, EncoderError for a bank of another trunk."""
        if task.kind not in ("classification", "multiple_choice"):
            raise UsageError(
                f"The task {task.name} has no labels or options to weigh.", "Leave --llm out for it."
            )
        if learned is not None:
            learned.check_trunk(retriever.snapshot.settings.encoder)
        self._retriever, self._task, self._model, self._learned = retriever, task, model, learned
        self.settings = settings or VoterSettings()
        self._labels = task.labels or tuple(sorted(outputs_of(retriever, task.name)))

    def predict(self, inputs: Sequence[str], choices: Sequence[Sequence[str]] | None = None) -> list[Vote]:
        """As `DemonstrationVoter.predict`; k examples × labels readings an input, scored together.

        Raises UsageError where options are missing, ModelError where the model fails, and what retrieval
        raises.
        """
        options = offered(self._task, inputs, choices)
        if not inputs:
            return []
        own = self._retriever.encode_inputs(inputs, self._task.name)
        trunk = self._retriever.encode_queries(inputs) if self._learned is not None else own
        found = [
            select(self._retriever, text, self._task.name, self.settings.selection, vector)
            for text, vector in zip(inputs, own, strict=True)
        ]
        shown = [self._shown(*one) for one in zip(inputs, found, trunk, strict=True)]
        answers = [tuple(mine) or self._labels for mine in options]
        pairs = [self._pairs(*one) for one in zip(inputs, shown, answers, strict=True)]
        scores = iter(
            self._model.score_pairs([pair for mine in pairs for pair in mine]) if any(pairs) else ()
        )
        means = [[next(scores).mean for _ in mine] for mine in pairs]
        return [
            self._vote(text, selected, outputs, _marginal(examples, len(outputs), read))
            for text, selected, examples, outputs, read in zip(
                inputs, found, shown, answers, means, strict=True
            )
        ]

    def _shown(self, text: str, found: Selected, vector: Vectors) -> list[Shown]:
        """The k nearest of the task's own examples and of the bank's."""
        k = self.settings.selection.k
        own = [
            Shown(hit.text, str(hit.unit.metadata.get("output", "")), cosine + PREFERENCE)
            for hit, cosine in zip(found.hits, found.cosines, strict=True)
        ]
        others = list[Shown]()
        if self._learned is not None and len(self._learned.bank):
            bank = self._learned.bank.without({self._task.name})
            rows, scores = bank.nearest(text, vector, k)
            others = [
                Shown(bank.entries[row].input, bank.entries[row].output, score)
                for row, score in zip(rows, scores, strict=True)
            ]
        return sorted(own + others, key=lambda one: -one.score)[:k]

    def _pairs(self, text: str, examples: Sequence[Shown], outputs: Sequence[str]) -> list[Pair]:
        """A prompt and a continuation for every example and every output, in that order."""
        head = f"{self._task.instruction}\n\n" if self._task.instruction else ""
        found = list[Pair]()
        for one in examples:
            before = f"Input: {one.input}\nOutput: {readable(one.output)}\n\n"
            prompt = f"{head}{before}Input: {text}\nOutput:"
            found += [(prompt, f" {readable(output)}") for output in outputs]
        return found

    def _vote(self, text: str, found: Selected, outputs: Sequence[str], shares: Floats) -> Vote:
        pairs = zip(outputs, shares.tolist(), strict=True) if len(shares) else ()
        ordered = dict(sorted(pairs, key=lambda item: (-item[1], item[0])))
        best, share = next(iter(ordered.items()), ("", 0.0))
        near = max(found.cosines, default=-1.0) >= self.settings.nearest
        abstained = not ordered or share < self.settings.threshold or not near
        return Vote(text, "" if abstained else best, ordered, found.hits, abstained)


def _marginal(examples: Sequence[Shown], outputs: int, means: Sequence[float]) -> Floats:
    """(outputs,): Σ_z softmax(score / T)_z · softmax over outputs of the mean log-probabilities (examples ×
    outputs); () without examples."""
    if not examples:
        return np.empty(0)
    weights = np.exp(log_softmax(np.array([one.score for one in examples]) / TEMPERATURE))
    each = np.exp(log_softmax(np.array(means).reshape(len(examples), outputs)))
    return np.asarray(weights @ each, np.float64)
