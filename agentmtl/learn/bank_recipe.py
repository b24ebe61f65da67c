"""The recipe of the bank: tasks in, a folder of examples and weights out.

Classification tasks are views of their own. Of a multiple choice, and of tasks that generate, a view is made
of pairs, a question with the right option (an input with its output) or with another's, labelled right and
wrong: what teaches how two parts of an input relate. Their questions, the outputs of others as options where
there are none, also teach what says that an option fits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.jsonl import files_hash
from agentmtl.experts.bank import (
    LearnedBank,
    encoded_options,
    readable,
    related,
    related_pairs,
    save_learned,
)
from agentmtl.experts.demonstrations import question_of
from agentmtl.experts.few_shot import BankWeights, Floats, option_features
from agentmtl.ingest.demonstrations import read_demonstrations
from agentmtl.learn.bank import SHOTS, Choices, View, episodes_of, in_turn, learn_choice, search
from agentmtl.retrieval.bank import DemonstrationBank, Entry, build_bank
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task, load_task
from agentmtl.trunk.encoder import Encoder, Vectors

CARD, TRAIN = "card.json", "train.jsonl"
OPTIONS = 4  # of a question made of a task that generates

Encode = Callable[[Sequence[str]], Vectors]
Watch = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BankRecipe:
    """`examples` of a classification task are learned from, `questions` of any other; `kept` of a task
    stay in the bank. `episodes` of each task."""

    examples: int = 300
    questions: int = 100
    kept: int = 300
    episodes: int = 4
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A task that was read: its view, what chooses of it, and its entries of the bank."""

    task: Task
    family: str
    view: View
    choices: Choices | None
    entries: tuple[Entry, ...]
    vectors: Vectors
    meanings: tuple[Vectors, ...]
    facts: dict[str, Any]


def remembering(encode: Encode) -> Encode:
    """The same, but that no text is encoded twice."""
    known: dict[str, Vectors] = {}

    def encoded(texts: Sequence[str]) -> Vectors:
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        if fresh:
            known.update(zip(fresh, encode(fresh), strict=True))
        return np.stack([known[text] for text in texts])

    return encoded


def read_source(folder: Path, encode: Encode, recipe: BankRecipe) -> Source:
    """Raises UsageError for a task with too few examples, IngestError, EncoderError."""
    raw = json.loads((folder / CARD).read_text("utf-8"))
    task = load_task(folder / CARD)
    given = list(read_demonstrations(folder / TRAIN, task.name))
    family = str(raw.get("family") or task.name)
    random = Random(f"bank:{task.name}:{recipe.seed}")
    examples = _chosen(given, task, recipe, random)
    if len(examples) < 2 * SHOTS:
        raise UsageError(f"{folder} has {len(examples)} examples.", f"Give {2 * SHOTS} of a task or more.")
    facts = {
        "sha256": files_hash([folder / TRAIN]), "train": len(examples), "family": family,
        "licence": str(raw.get("licence") or "not stated"),
    }  # fmt: skip
    if task.kind == "classification":
        return _labelled(task, family, examples, encode, recipe, facts)
    questions = [_question(examples, n, random) for n in range(len(examples))]
    return _paired(task, family, questions, encode, random, facts)


def _chosen(
    given: Sequence[Demonstration], task: Task, recipe: BankRecipe, random: Random
) -> list[Demonstration]:
    """Those that are learned from, the labels of a classification taken in turn."""
    if task.kind != "classification":
        return random.sample(given, min(len(given), recipe.questions))
    names = sorted({example.output for example in given})
    rows = in_turn([names.index(example.output) for example in given], recipe.examples, random)
    return [given[row] for row in rows]


def _labelled(
    task: Task,
    family: str,
    examples: Sequence[Demonstration],
    encode: Encode,
    recipe: BankRecipe,
    facts: dict[str, Any],
) -> Source:
    labels = sorted({example.output for example in examples})
    texts = encode([readable(label) for label in labels])
    inputs = tuple(example.input for example in examples)
    vectors = encode(inputs)
    y = np.array([labels.index(example.output) for example in examples])
    view = View(
        task.name, family, inputs, np.asarray(vectors, np.float64), related(inputs, encode), y,
        np.asarray(texts, np.float64),
    )  # fmt: skip
    kept = examples[: recipe.kept]
    entries = tuple(Entry(task.name, example.input, example.output) for example in kept)
    meanings = tuple(texts[label] for label in y[: len(kept)])
    return Source(task, family, view, None, entries, vectors[: len(kept)], meanings, facts)


@dataclass(frozen=True, slots=True)
class _Question:
    text: str
    options: tuple[str, ...]
    right: int


def _question(examples: Sequence[Demonstration], at: int, random: Random) -> _Question:
    """Of a multiple choice; else of an output among others'."""
    example = examples[at]
    if example.choices:
        return _Question(example.input, example.choices, example.choices.index(example.output))
    others = [other.output for other in examples if other.output != example.output]
    options = [*random.sample(others, min(OPTIONS - 1, len(others))), example.output]
    random.shuffle(options)
    return _Question(example.input, tuple(options), options.index(example.output))


def _paired(
    task: Task,
    family: str,
    questions: Sequence[_Question],
    encode: Encode,
    random: Random,
    facts: dict[str, Any],
) -> Source:
    parts = [encoded_options(encode, one.text, one.options) for one in questions]
    right = [one.right for one in questions]
    known = np.stack([together[n] for (_, _, together), n in zip(parts, right, strict=True)])
    features = []
    for n, part in enumerate(parts):
        others = random.sample([other for other in range(len(parts)) if other != n], SHOTS)
        features.append(option_features(*part, known[others]))
    wrong = [random.choice([n for n in range(len(one.options)) if n != one.right]) for one in questions]
    asked = [question_of(one.text, one.options) for one in questions]
    pairs = [(asked[n], one.options[one.right]) for n, one in enumerate(questions)]
    pairs += [(asked[n], one.options[wrong[n]]) for n, one in enumerate(questions)]
    told = [f"{a} {b}" for a, b in pairs]
    y = np.repeat([0, 1], len(questions))
    view = View(
        task.name, family, tuple(told), np.asarray(encode(told), np.float64), related_pairs(pairs, encode), y,
        np.asarray(encode(["right", "wrong"]), np.float64),
    )  # fmt: skip
    nothing = np.empty((0, view.content.shape[1]), np.float32)
    return Source(
        task, family, view, Choices(task.name, tuple(features), tuple(right)), (), nothing, (), facts
    )


# --- learning ---------------------------------------------------------------------------------------


def learn_bank(
    sources: Sequence[Source], recipe: BankRecipe, card: dict[str, Any], watch: Watch
) -> LearnedBank:
    """The weights of all sources, with their entries. Raises UsageError for fewer than two tasks."""
    if len(sources) < 2:
        raise UsageError("A bank is learned over tasks.", "Give two tasks or more with --data.")
    related = [one.view.relation for one in sources if one.view.relation is not None]
    usual = np.mean([r.mean(axis=0) for r in related], axis=0) if related else np.zeros(5)
    spread = np.mean([r.std(axis=0) for r in related], axis=0) + 1e-6 if related else np.ones(5)
    bank = bank_of(sources)
    episodes = []
    for n, one in enumerate(sources):
        like = {other.task.name for other in sources if other.family == one.family}
        episodes += episodes_of(_standard(one.view, usual, spread), bank, like, recipe.episodes, recipe.seed)
        watch(n + 1, len(sources), f"episodes of {one.task.name}")
    weights, lowest = search(episodes, BankWeights(), watch)
    choices = [one.choices for one in sources if one.choices is not None]
    weights = learn_choice(choices, weights, recipe.seed)
    told = {
        **card, "recipe": asdict(recipe), "data": {one.task.name: one.facts for one in sources},
        "metrics": {"nats an answer, over episodes": round(lowest, 4), "episodes": len(episodes)},
    }  # fmt: skip
    return LearnedBank(bank, weights, usual, spread, told)


def bank_of(sources: Sequence[Source]) -> DemonstrationBank:
    """All entries in one bank."""
    entries = [entry for one in sources for entry in one.entries]
    vectors = np.concatenate([one.vectors for one in sources])
    return build_bank(entries, vectors, [meaning for one in sources for meaning in one.meanings])


def _standard(view: View, usual: Floats, spread: Floats) -> View:
    if view.relation is None:
        return view
    return replace(view, relation=(view.relation - usual) / spread)


def train_bank(
    encoder: Encoder,
    folders: Sequence[Path],
    out: Path,
    recipe: BankRecipe,
    command: str,
    watch: Watch,
    leave_out: Collection[str] = (),
) -> LearnedBank:
    """Learn over the tasks of `folders`, but those of the families `leave_out`, and write the folder `out`.

    Raises what `read_source` and `learn_bank` raise.
    """
    encode, sources = remembering(encoder.encode), list[Source]()
    for n, folder in enumerate(folders):
        raw = json.loads((folder / CARD).read_text("utf-8"))
        if raw.get("family") not in leave_out:
            sources.append(read_source(folder, encode, recipe))
        watch(n + 1, len(folders), f"read {folder.name}")
    card = {
        "trunk": encoder.identity.space, "trunk_name": encoder.identity.name, "command": command,
        "seed": recipe.seed,
    }  # fmt: skip
    learned = learn_bank(sources, recipe, card, watch)
    save_learned(learned, out)
    return learned
