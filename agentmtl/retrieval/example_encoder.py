"""Which encoder reads a task's examples: a head that was trained to find examples, or the trunk.

A head gains much on tasks like those that it was trained on, and on some others it loses
(`docs/decisions.md`). The examples themselves tell: each is predicted from its eight nearest among the
others, by the vectors of either. The head is taken where it predicts better by `SURE` standard errors of the
paired difference, and so hardly ever does worse than the trunk (a margin of standard errors, as in the rule
of one of Breiman et al., Classification and Regression Trees, 1984).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Literal, TypeAlias

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.index.batch import encode_checked
from agentmtl.index.instructions import EXAMPLES, HEAD, TRUNK, Cards
from agentmtl.index.tokens import words
from agentmtl.retrieval.voting import VOTERS, voted
from agentmtl.schema import Demonstration, Document
from agentmtl.tasks import Task, under
from agentmtl.trunk.encoder import Encoder, EncoderIdentity, Vectors

By: TypeAlias = Literal["auto", "head", "trunk"]
Examples: TypeAlias = Sequence[tuple[str, str]]  # inputs and outputs

ASKED, FEWEST = 1_000, 30  # examples that are asked, drawn from all; with fewer the trunk reads them
SURE = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class Judged:
    """Who reads a task's examples; `head` and `trunk` the shares of `asked` examples that either predicts
    from the others (of outputs that are no labels their words' F1), 0 where none was asked. `chosen`: a
    person said so."""

    by: Literal["head", "trunk"]
    chosen: bool = False
    asked: int = 0
    head: float = 0.0
    trunk: float = 0.0


def settle(
    task: Task, demonstrations: Iterable[Demonstration], encoder: Encoder, known: Cards, by: By = "auto"
) -> tuple[dict[str, Any], Iterable[Demonstration]]:
    """The card for an index to keep, and the examples again. Nobody is asked about a task that is `known`:
    its examples have settled it. Raises UsageError as `check_reader` does, and where an example is of
    another task; EncoderError."""
    check_reader(by, encoder.identity)
    demonstrations = _of_task(task, demonstrations)
    if not encoder.identity.demonstrations or (by == "auto" and task.name in known):
        return task.to_json(), demonstrations
    if by != "auto":
        return {**task.to_json(), EXAMPLES: asdict(Judged(by, chosen=True))}, demonstrations
    examples = list(demonstrations)
    judged = judge(task, [(one.input, one.output) for one in examples], encoder)
    return {**task.to_json(), EXAMPLES: asdict(judged)}, examples


def _of_task(task: Task, demonstrations: Iterable[Demonstration]) -> Iterator[Demonstration]:
    for one in demonstrations:
        if one.task != task.name:
            raise UsageError(
                f"An example of {one.task} was given as one of {task.name}.", "Add it under its own card."
            )
        yield one


def check_reader(by: str, identity: EncoderIdentity) -> None:
    """Raises UsageError for a `by` that is none, or asks for a head that the encoder lacks."""
    if by not in ("auto", HEAD, TRUNK):
        raise UsageError(f"Nothing is called {by!r} that reads examples.", "Choose auto, head or trunk.")
    if by == HEAD and not identity.demonstrations:
        raise UsageError(
            "The index's encoder has no head for examples.",
            "Build the index with one: --encoder default+demonstrations",
        )


def settle_again(
    cards: Cards, documents: Iterable[Document], encoder: Encoder, by: By | None = None
) -> Cards:
    """The cards of an index whose examples are encoded anew. `by` None: what a person chose, and of other
    tasks the better. Raises UsageError as `check_reader` does; EncoderError."""
    check_reader(by or "auto", encoder.identity)
    plain = {name: {key: v for key, v in card.items() if key != EXAMPLES} for name, card in cards.items()}
    if not encoder.identity.demonstrations:
        return plain
    held: dict[str, list[tuple[str, str]]] = {name: [] for name in cards}
    for document in documents:
        name = str(document.metadata.get("task", ""))
        if document.is_demonstration and name in held:
            held[name].append((document.text, str(document.metadata.get("output", ""))))
    found = {}
    for name, card in plain.items():
        before = cards[name].get(EXAMPLES, {})
        wanted = by or (before["by"] if before.get("chosen") else "auto")
        chosen = Judged(wanted, chosen=True) if wanted != "auto" else None
        judged = chosen or judge(Task.from_json(card), held[name], encoder)
        found[name] = {**card, EXAMPLES: asdict(judged)}
    return found


def judge(task: Task, examples: Examples, encoder: Encoder) -> Judged:
    """By at most `ASKED` of a task's examples. Options of multiple choice are compared by the trunk whoever
    finds their examples, so nobody is asked there, and the trunk reads them. Raises EncoderError."""
    drawn = list(dict.fromkeys(examples))  # the same example twice would predict itself
    if len(drawn) > ASKED:
        drawn = Random(f"examples:{task.name}").sample(drawn, ASKED)
    if len(drawn) < FEWEST or task.kind == "multiple_choice":
        return Judged("trunk")
    inputs, outputs = [text for text, _ in drawn], [output for _, output in drawn]
    told = [under(task.instruction, text) if encoder.identity.instructs else text for text in inputs]
    by_head = encode_checked(encoder, told, "demonstration")
    return compared(by_head, encode_checked(encoder, inputs), outputs, task.kind == "classification")


def compared(head: Vectors, trunk: Vectors, outputs: Sequence[str], exact: bool) -> Judged:
    """By the unit vectors (n, d) of the same examples of either, and their outputs; `exact`: labels."""
    heads, trunks = np.array(left_out(head, outputs, exact)), np.array(left_out(trunk, outputs, exact))
    gains = heads - trunks
    sure = float(gains.mean()) > SURE * float(gains.std()) / len(gains) ** 0.5
    means = round(float(heads.mean()), 4), round(float(trunks.mean()), 4)
    return Judged("head" if sure else "trunk", False, len(gains), *means)


def left_out(vectors: Vectors, outputs: Sequence[str], exact: bool) -> list[float]:
    """How well each example's output is predicted from the others by their cosines; `vectors` (n, d) of unit
    length, n ≥ 2. Whether it is the same, or not `exact` the F1 of its words."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    said = voted(scores, outputs, min(VOTERS, len(outputs) - 1))
    return [float(a == b) if exact else overlap(a, b) for a, b in zip(said, outputs, strict=True)]


def overlap(said: str, wanted: str) -> float:
    """F1 of the words of two texts."""
    given, asked = words(said), words(wanted)
    if not given and not asked:
        return float(said == wanted)
    common = sum((Counter(given) & Counter(asked)).values())
    return 2 * common / (len(given) + len(asked))
