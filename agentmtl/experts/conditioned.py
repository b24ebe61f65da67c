"""A language model that reads an input after one labelled example at a time, and what all readings say.

    p(y | x) = Σ_z p(z | x) · p(y | x, z)     (arXiv 2307.00119; Lewis et al., arXiv 2005.11401, equation 1)

over the k nearest examples z, of the task and, with a bank, of other tasks: p(z | x) = softmax(cosine / T),
the task's own having `PREFERENCE` more than their cosine, and p(y | x, z) the share of y among the labels, or
options, by the mean log-probability of its tokens after

    INSTRUCTION ⏎⏎ Input: x_z ⏎ Output: y_z ⏎⏎ Input: x ⏎ Output:

A prompt holds one example, so that it stays short and no order of examples decides. Texts stand on one line
each, without the tags of chat templates, so that none can pose as more examples; the model is only asked for
probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.experts.bank import TEMPERATURE, LearnedBank, readable
from agentmtl.experts.demonstrations import Vote, VoterSettings, offered, outputs_of
from agentmtl.experts.few_shot import Floats, log_softmax
from agentmtl.experts.quoting import untagged
from agentmtl.experts.scoring import Pair, Scorer
from agentmtl.retrieval.bank import PREFERENCE
from agentmtl.retrieval.demonstrations import Selected, select
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Hit
from agentmtl.tasks import Task
from agentmtl.trunk.encoder import Vectors


@dataclass(frozen=True, slots=True)
class Shown:
    """An example as it is shown, and its likeness to the input. `hit`: where it stands in the index; None for
    one of the bank."""

    input: str
    output: str
    score: float
    hit: Hit | None = None


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
        self._retriever, self._task, self._model = retriever, task, model
        self._bank = learned.bank.without({task.name}) if learned is not None else None
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
        shown, nearest = zip(*self._examples(inputs), strict=True)
        answers = [tuple(dict.fromkeys(mine)) or self._labels for mine in options]
        pairs = [self._pairs(*one) for one in zip(inputs, shown, answers, strict=True)]
        scores = iter(
            self._model.score_pairs([pair for mine in pairs for pair in mine]) if any(pairs) else ()
        )
        means = [[next(scores).mean for _ in mine] for mine in pairs]
        return [self._vote(*one) for one in zip(inputs, shown, nearest, answers, means, strict=True)]

    @property
    def _apart(self) -> bool:
        """Whether the task's own examples have other vectors than a bank's."""
        return self._bank is not None and self._retriever.read_by_head(self._task.name)

    def _examples(self, inputs: Sequence[str]) -> list[tuple[list[Shown], float]]:
        """For each input the k nearest of the task's own examples and of the bank's, and the cosine of the
        nearest own one, −1 without any."""
        own = self._retriever.encode_inputs(inputs, self._task.name)
        trunk = self._retriever.encode_queries(inputs) if self._apart else own
        selection = replace(self.settings.selection, order="best_first")
        found = []
        for text, vector, plain in zip(inputs, own, trunk, strict=True):
            near = select(self._retriever, text, self._task.name, selection, vector)
            shown = sorted(self._own(near, plain) + self._others(text, plain), key=lambda one: -one.score)
            found.append((shown[: selection.k], max(near.cosines, default=-1.0)))
        return found

    def _own(self, near: Selected, plain: Vectors) -> list[Shown]:
        """Of the index. Beside a bank's they are compared as those are, by the trunk's vectors (d,)."""
        cosines = list(near.cosines)
        if self._apart and near.hits:
            cosines = (self._retriever.encode_queries([hit.text for hit in near.hits]) @ plain).tolist()
        return [
            Shown(hit.text, str(hit.unit.metadata.get("output", "")), cosine + PREFERENCE, hit)
            for hit, cosine in zip(near.hits, cosines, strict=True)
        ]

    def _others(self, text: str, plain: Vectors) -> list[Shown]:
        if self._bank is None or not len(self._bank):
            return []
        rows, scores = self._bank.nearest(text, plain, self.settings.selection.k)
        entries = [self._bank.entries[row] for row in rows]
        return [Shown(e.input, e.output, score) for e, score in zip(entries, scores, strict=True)]

    def _pairs(self, text: str, examples: Sequence[Shown], outputs: Sequence[str]) -> list[Pair]:
        """A prompt and a continuation for every example and every output, in that order."""
        head = f"{self._task.instruction}\n\n" if self._task.instruction else ""
        found = list[Pair]()
        for one in examples:
            before = f"Input: {untagged(one.input)}\nOutput: {self._said(one.output)}\n\n"
            prompt = f"{head}{before}Input: {untagged(text)}\nOutput:"
            found += [(prompt, f" {self._said(output)}") for output in outputs]
        return found

    def _said(self, output: str) -> str:
        """A label in words; an option as it is."""
        return untagged(readable(output) if self._task.kind == "classification" else output)

    def _vote(
        self,
        text: str,
        examples: Sequence[Shown],
        nearest: float,
        outputs: Sequence[str],
        means: Sequence[float],
    ) -> Vote:
        shares = _marginal(examples, len(outputs), means)
        pairs = zip(outputs, shares.tolist(), strict=True) if len(shares) else ()
        ordered = dict(sorted(pairs, key=lambda item: (-item[1], item[0])))
        best, share = next(iter(ordered.items()), ("", 0.0))
        hits = tuple(one.hit for one in examples if one.hit is not None)
        abstained = not ordered or share < self.settings.threshold or nearest < self.settings.nearest
        return Vote(text, "" if abstained else best, ordered, hits, abstained)


def _marginal(examples: Sequence[Shown], outputs: int, means: Sequence[float]) -> Floats:
    """(outputs,): Σ_z softmax(score / T)_z · softmax over outputs of the mean log-probabilities (examples ×
    outputs); () where there are no examples or no outputs."""
    if not examples or not outputs:
        return np.empty(0)
    weights = np.exp(log_softmax(np.array([one.score for one in examples]) / TEMPERATURE))
    each = np.exp(log_softmax(np.array(means).reshape(len(examples), outputs)))
    return np.asarray(weights @ each, np.float64)
