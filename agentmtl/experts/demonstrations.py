"""The embedded demonstration voter: predicts from labelled examples alone, with no model but the encoder.

Every demonstration z has a weight p(z | x) = softmax(κ · score), with the scores of the k retrieved ones
standardised; the prediction is the marginal p(y | x) = Σ_z p(z | x) · p(y | x, z) (Lewis et al., arXiv
2005.11401, equation 1, with these heads):

    classification    p(y | x, z) = 1 for z's own label
    multiple choice   p(y | x, z) = softmax over the options of their likeness to z's right answer
    anything else     p(y | x, z) = 1 for z's own output: the nearest example's is given
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.retrieval.demonstrations import Selected, Selection, select
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Demonstration, Hit
from agentmtl.tasks import Task

STRENGTH = 0.25  # κ: 0 counts every demonstration the same; `docs/decisions.md` has the numbers
OPTION_TEMPERATURE = 0.1  # of the likeness of options


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


class DemonstrationVoter:
    """Predicts for one task from the demonstrations of an index."""

    name = "demonstrations"
    card = "Labels, choices and short outputs, by the nearest labelled examples."

    def __init__(self, retriever: Retriever, task: Task, settings: VoterSettings | None = None) -> None:
        self._retriever = retriever
        self._task = task
        self._settings = settings or VoterSettings()

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
        options = choices if choices is not None else [()] * len(inputs)
        lacking = self._task.kind == "multiple_choice" and not all(options)
        if len(options) != len(inputs) or lacking:
            raise UsageError(
                f"The task {self._task.name} chooses among options.", 'Give "choices" with each input.'
            )
        selection = replace(self._settings.selection, k=max(ks), order="best_first")
        vectors = self._retriever.encode_queries(inputs) if inputs else ()
        found: list[dict[int, Vote]] = []
        for text, offered, vector in zip(inputs, options, vectors, strict=True):
            chosen = select(self._retriever, text, self._task.name, selection, vector)
            found.append({k: self._vote(text, offered, _first(chosen, k)) for k in ks})
        return found

    def _vote(self, text: str, options: Sequence[str], found: Selected) -> Vote:
        settings = self._settings
        weights = kernel_weights([hit.score for hit in found.hits], settings.strength)
        if options:
            votes = self._options(options, found, weights)
        else:
            votes = tally([str(h.unit.metadata.get("output", "")) for h in found.hits], weights)
        ordered = dict(sorted(votes.items(), key=lambda item: (-item[1], item[0])))
        best, share = next(iter(ordered.items()), ("", 0.0))
        near = max(found.cosines, default=-1.0) >= settings.nearest
        abstained = not found.hits or share < settings.threshold or not near
        hits = found.hits if settings.selection.order == "best_first" else found.hits[::-1]
        return Vote(text, "" if abstained else best, ordered, hits, abstained)

    def _options(self, options: Sequence[str], found: Selected, weights: Sequence[float]) -> dict[str, float]:
        """p(option | x, z) by the likeness of option and z's right answer against z's wrong ones."""
        examples = [Demonstration.from_unit(hit.unit) for hit in found.hits]
        if not examples:
            return dict.fromkeys(options, 1.0 / len(options))
        texts = [*options, *(e.output for e in examples)]
        vectors = self._retriever.encode_queries(texts)
        mine, answers = vectors[: len(options)], vectors[len(options) :]
        likeness = np.exp((mine @ answers.T) / OPTION_TEMPERATURE)  # (options, examples)
        shares = likeness / likeness.sum(axis=0)
        return dict(zip(options, (shares @ np.array(weights)).tolist(), strict=True))


def _first(found: Selected, k: int) -> Selected:
    return Selected(found.hits[:k], found.cosines[:k])


def kernel_weights(scores: Sequence[float], strength: float) -> list[float]:
    """softmax(strength · z), (n,), of the scores standardised over the n demonstrations."""
    if not scores:
        return []
    values = np.array(scores)
    spread = float(values.std()) or 1.0
    scaled = np.exp(strength * (values - values.max()) / spread)
    return list((scaled / scaled.sum()).tolist())


def tally(outputs: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    """The weight of each output."""
    votes: dict[str, float] = {}
    for output, weight in zip(outputs, weights, strict=True):
        votes[output] = votes.get(output, 0.0) + weight
    return votes
