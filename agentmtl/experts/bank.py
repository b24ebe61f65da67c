"""A voter for tasks with few examples, which other tasks have taught how to read them.

Of what it is made, a folder that `agentmtl train bank` writes:

    card.json                       weights learned over tasks, the trunk, the tasks with licences and hashes
    bank.jsonl, bank.safetensors    examples of these tasks (`agentmtl.retrieval.bank`)

Those examples vote by the marginal over the k nearest, Σ_z p(z | x) · p(y | x, z) (arXiv 2307.00119; Lewis
et al., arXiv 2005.11401, equation 1), with p(z | x) = softmax(cosine / T) and p(y | x, z) = softmax(β · the
cosine of what z's output and y say), so that a label of another task speaks for the labels that are like it.
What they say is weighed against the task's own examples in `agentmtl.experts.few_shot`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import EncoderError, UsageError
from agentmtl.experts.demonstrations import Vote, VoterSettings, examples_of, offered, question_of
from agentmtl.experts.few_shot import (
    RELATIONS,
    BankWeights,
    Floats,
    Ints,
    Points,
    fit_choice,
    hypothesis_weights,
    log_softmax,
    option_features,
    possible,
    predict,
    relations,
)
from agentmtl.retrieval.bank import DemonstrationBank, centred, load_bank, save_bank
from agentmtl.retrieval.demonstrations import select
from agentmtl.retrieval.retriever import Retriever
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task
from agentmtl.trunk.encoder import EncoderIdentity, Vectors
from agentmtl.trunk.heads import shipped_head

CARD, FORMAT = "card.json", 1
SHIPPED = "shipped"  # the name of the bank that comes with the package
FEW = 100  # examples up to which a task is said to have few
NEAREST = 64  # examples of other tasks that vote
TEMPERATURE = 0.1  # T, of cosines
LIKENESS = 5.0  # β
_FLOOR = 1e-6
_PART = re.compile(r"\A[A-Z][\w ]{0,24}: ")

Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True, eq=False)
class LearnedBank:
    """What `agentmtl train bank` makes. `usual`, `spread` (5,): of relations, over tasks."""

    bank: DemonstrationBank
    weights: BankWeights = field(default_factory=BankWeights)
    usual: Floats = field(default_factory=lambda: np.zeros(RELATIONS))
    spread: Floats = field(default_factory=lambda: np.ones(RELATIONS))
    card: Mapping[str, Any] = field(default_factory=dict)

    def check_trunk(self, identity: EncoderIdentity) -> None:
        """Raises EncoderError where it was made with other vectors."""
        made = self.card.get("trunk", "")
        if made != identity.space or self.bank.vectors.shape[-1] not in (0, identity.dimension):
            raise EncoderError(
                f"The bank was made with the trunk {made[:19]}… of {self.bank.vectors.shape[-1]} dimensions, "
                f"not with {identity.name} ({identity.space[:19]}…, {identity.dimension}).",
                f"Make one: agentmtl train bank --encoder {identity.name} --data DIR --out DIR",
            )

    def points(
        self, texts: Sequence[str], vectors: Vectors, encode: Encode, meanings: Vectors | None
    ) -> Points:
        """Inputs (n) with vectors (n, d); `meanings` (labels, d) of the labels, for the bank's votes."""
        votes = None
        if meanings is not None and len(self.bank):
            votes = np.stack(
                [votes_of(self.bank, t, v, meanings) for t, v in zip(texts, vectors, strict=True)]
            )
        relation = related(texts, encode)
        if relation is not None:
            relation = (relation - self.usual) / self.spread
        return Points(np.asarray(vectors, np.float64), relation, votes)


def votes_of(bank: DemonstrationBank, text: str, vector: Vectors, meanings: Vectors) -> Floats:
    """(labels,): log p(y | x) by the bank alone, for an input with vector (d,)."""
    rows, scores = bank.nearest(text, vector, NEAREST)
    if not rows:
        return np.full(len(meanings), -np.log(len(meanings)))
    return marginal(np.array(scores), bank.meanings[bank.of_output[rows]], meanings)


def marginal(scores: Floats, said: Vectors, meanings: Vectors) -> Floats:
    """(labels,): log Σ_z softmax(score / T)_z · softmax(β · said_z · meaning)_y."""
    weights = np.exp(log_softmax(scores / TEMPERATURE))
    each = np.exp(log_softmax(np.asarray(LIKENESS * said @ meanings.T, np.float64)))
    return np.asarray(np.log(weights @ each + _FLOOR), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """p of every label or option, the likeliest first; `read` of a classification: how much each way of
    reading the examples counted."""

    probabilities: Mapping[str, float]
    read: Mapping[str, float] = field(default_factory=dict)


class BankVoter:
    """Predicts for a task from a few examples. Immutable, so safe in several threads."""

    def __init__(
        self, learned: LearnedBank, encode: Encode, task: Task, examples: Sequence[Demonstration]
    ) -> None:
        """`encode`: the trunk's. Raises UsageError for a task that is neither a classification nor a multiple
        choice, and where no example has one of the task's labels."""
        self._learned, self._encode, self._task = learned, encode, task
        if task.kind == "multiple_choice":
            self._choice, self._answered = self._choosing([e for e in examples if e.choices])
            return
        self._labels = task.labels or tuple(sorted({example.output for example in examples}))
        shots = [example for example in examples if example.output in self._labels]
        if task.kind != "classification" or not shots:
            raise UsageError(
                f"The bank cannot answer {task.name}.", "It needs labels or options, and examples with them."
            )
        texts = [readable(label) for label in self._labels]
        self._texts = np.asarray(encode(texts), np.float64)
        self._meanings = centred(np.asarray(self._texts, np.float32))
        self._y: Ints = np.array([self._labels.index(example.output) for example in shots])
        inputs = [example.input for example in shots]
        self._shots = learned.points(inputs, encode(inputs), encode, self._meanings)

    def predict(
        self,
        inputs: Sequence[str],
        choices: Sequence[Sequence[str]] = (),
        vectors: Vectors | None = None,
    ) -> list[Judged]:
        """For each input; `choices` are the options of each, for multiple choice; `vectors` (n, d) the
        trunk's of the inputs, where they are known."""
        if self._task.kind == "multiple_choice":
            return [self._chosen(text, options) for text, options in zip(inputs, choices, strict=True)]
        if not inputs:
            return []
        known = self._encode(inputs) if vectors is None else vectors
        points = self._learned.points(inputs, known, self._encode, self._meanings)
        if points.relation is None and self._shots.relation is not None:
            points = Points(points.content, np.zeros((len(inputs), RELATIONS)), points.votes)
        shares = predict(points, self._shots, self._y, self._texts, self._learned.weights)
        read = self.read()
        return [_judged(self._labels, row, read) for row in shares]

    def read(self) -> dict[str, float]:
        """How much each way of reading the examples counts; "bank": the votes of other tasks."""
        if self._task.kind == "multiple_choice":
            return {}
        hypotheses = possible(self._shots)
        shares = hypothesis_weights(self._shots, self._y, self._texts, self._learned.weights, hypotheses)
        found: dict[str, float] = {"bank": 0.0}
        for hypothesis, share in zip(hypotheses, shares.tolist(), strict=True):
            found[hypothesis.reads] = found.get(hypothesis.reads, 0.0) + share
            found["bank"] += share * (hypothesis.votes > 0)
        return found

    # --- options ------------------------------------------------------------------------------------

    def _choosing(self, examples: Sequence[Demonstration]) -> tuple[Floats, Vectors]:
        """The weights of what says how an option fits, and examples with their answers."""
        weights = self._learned.weights
        if not examples:
            raise UsageError(f"The task {self._task.name} has no example.", "Add examples with choices.")
        parts = [encoded_options(self._encode, example.input, example.choices) for example in examples]
        right = [example.choices.index(example.output) for example in examples]
        known = np.stack([together[n] for (_, _, together), n in zip(parts, right, strict=True)])
        others = [np.delete(known, n, axis=0) for n in range(len(known))]
        features = [option_features(*part, other) for part, other in zip(parts, others, strict=True)]
        return fit_choice(features, right, weights.choice, weights.spread), known

    def _chosen(self, text: str, options: Sequence[str]) -> Judged:
        features = option_features(*encoded_options(self._encode, text, options), self._answered)
        return _judged(options, np.exp(log_softmax(features @ self._choice)), {})


def encoded_options(encode: Encode, text: str, options: Sequence[str]) -> tuple[Vectors, Vectors, Vectors]:
    """Vectors of a question (d,), of its options (n, d), and of both together (n, d)."""
    question = question_of(text, options)
    vectors = encode([question, *options, *(f"{question} {option}" for option in options)])
    return vectors[0], vectors[1 : len(options) + 1], vectors[len(options) + 1 :]


def _judged(outputs: Sequence[str], shares: Floats, read: Mapping[str, float]) -> Judged:
    pairs = sorted(zip(outputs, shares.tolist(), strict=True), key=lambda item: (-item[1], item[0]))
    return Judged(dict(pairs), read)


def two_parts(text: str) -> tuple[str, str] | None:
    """What follows the names of an input of two lines, "Premise: …⏎Hypothesis: …"; None for any other."""
    lines = text.strip().split("\n")
    if len(lines) != 2 or not all(_PART.match(line) for line in lines):
        return None
    first, second = (_PART.sub("", line).strip() for line in lines)
    return first, second


def related(texts: Sequence[str], encode: Encode) -> Floats | None:
    """(n, 5): how the two parts of each input relate; None unless every input has two."""
    pairs = [pair for pair in map(two_parts, texts) if pair is not None]
    return related_pairs(pairs, encode) if pairs and len(pairs) == len(texts) else None


def related_pairs(pairs: Sequence[tuple[str, str]], encode: Encode) -> Floats:
    """(n, 5) of pairs of texts."""
    vectors = np.asarray(encode([text for pair in pairs for text in pair]), np.float64)
    return relations(pairs, vectors[::2], vectors[1::2])


def readable(label: str) -> str:
    """A label as a person would say it: "card_arrival", "PlayMusic" in words."""
    return re.sub(r"[_#]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)).strip() or label


# --- from an index ----------------------------------------------------------------------------------


class FewVoter:
    """A voter like `DemonstrationVoter` for a task of an index that has few examples: all of them are read by
    a bank, and those nearest to an input are shown with what is predicted."""

    def __init__(
        self, retriever: Retriever, task: Task, learned: LearnedBank, settings: VoterSettings | None = None
    ) -> None:
        """Raises UsageError as `BankVoter` does, EncoderError for a bank of another trunk."""
        learned.check_trunk(retriever.snapshot.settings.encoder)
        self._retriever, self._task = retriever, task
        self.settings = settings or VoterSettings()
        examples = [Demonstration.from_unit(hit.unit) for hit in examples_of(retriever, task.name)]
        self._voter = BankVoter(learned, retriever.encode_queries, task, examples)

    def predict(self, inputs: Sequence[str], choices: Sequence[Sequence[str]] | None = None) -> list[Vote]:
        """As `DemonstrationVoter.predict`."""
        if not inputs:
            return []
        options = offered(self._task, inputs, choices)
        vectors = self._retriever.encode_inputs(inputs, self._task.name)
        headed = self._retriever.read_by_head(self._task.name)
        judged = self._voter.predict(inputs, options, None if headed else vectors)
        return [self._vote(*one) for one in zip(inputs, vectors, judged, strict=True)]

    def _vote(self, text: str, vector: Vectors, judged: Judged) -> Vote:
        found = select(self._retriever, text, self._task.name, self.settings.selection, vector)
        output, share = next(iter(judged.probabilities.items()))
        near = max(found.cosines, default=-1.0) >= self.settings.nearest
        abstained = share < self.settings.threshold or not near
        return Vote(text, "" if abstained else output, judged.probabilities, found.hits, abstained)


def has_few(retriever: Retriever, task: str) -> bool:
    """Whether a task of an index has so few examples that a bank is to read them."""
    return 0 < len(examples_of(retriever, task, FEW + 1)) <= FEW


# --- the folder -------------------------------------------------------------------------------------


def save_learned(learned: LearnedBank, folder: Path) -> None:
    """Write a bank with what was learned."""
    save_bank(learned.bank, folder)
    told = {
        "format": FORMAT, **learned.card, "weights": asdict(learned.weights),
        "usual": learned.usual.tolist(), "spread": learned.spread.tolist(),
    }  # fmt: skip
    (folder / CARD).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")


def open_bank(name: str) -> LearnedBank:
    """The bank of a folder, or "shipped", the one of the package. Raises UsageError, EncoderError."""
    folder = (shipped_head("bank") if name == SHIPPED else None) or Path(name)
    if not folder.is_dir():
        raise UsageError(
            f"{name!r} is not a bank.", "Make one: agentmtl train bank --data DIR --out heads/bank"
        )
    return load_learned(folder)


def load_learned(folder: Path) -> LearnedBank:
    """Read what `save_learned` writes. Raises EncoderError where it is not that."""
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"it has format {card['format']}, not {FORMAT}")
        weights = {**card["weights"], "choice": tuple(card["weights"]["choice"])}
        usual, spread = (np.array(card[name], np.float64) for name in ("usual", "spread"))
        return LearnedBank(load_bank(folder), BankWeights(**weights), usual, spread, card)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise EncoderError(
            f"The bank {folder} cannot be read: {error}.",
            "Make it again: agentmtl train bank --data DIR --out DIR",
        ) from error
