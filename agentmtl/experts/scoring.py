"""Language models as judges of text: the log-probability of a continuation after a prompt.

A server (`ChatVLLM`) and an engine in this process (`LocalVLLM`) both score, so what learns from scores need
not know which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from agentmtl.errors import ModelError, UsageError

Pair: TypeAlias = tuple[str, str]  # (prompt, continuation)


@dataclass(frozen=True, slots=True)
class Score:
    """The natural log-probability of a continuation: `logprob`, summed over its `tokens` tokens."""

    logprob: float
    tokens: int

    @property
    def mean(self) -> float:
        """For a token: continuations of different lengths compare by it."""
        return self.logprob / self.tokens


@runtime_checkable
class Scorer(Protocol):
    """Must be safe to call from several threads."""

    def score(self, prompt: str, continuations: Sequence[str]) -> list[Score]:
        """A score for each continuation of one prompt, as plain text: no chat template is put around it.

        Raises UsageError for an empty continuation, ModelError where the model fails.
        """
        ...

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Score]:
        """The same for pairs, together."""
        ...


@dataclass(frozen=True, slots=True)
class TokenScores:
    """A text as a model read it: its token ids, and the log-probability of each after those before it, for
    the first None."""

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]


def texts_to_score(pairs: Sequence[Pair]) -> list[str]:
    """What has to be read for pairs: every prompt, alone and with its continuations, each text once.

    Raises UsageError for an empty prompt or continuation.
    """
    for prompt, continuation in pairs:
        if not prompt or not continuation:
            raise UsageError("A score needs a prompt and a continuation.", "Leave empty texts out.")
    return list(dict.fromkeys(text for p, c in pairs for text in (p, p + c)))


def score_of(prompt: TokenScores, whole: TokenScores) -> Score:
    """The score of a continuation, from its prompt read alone and both read together.

    Counted are the tokens of the whole from the first that the prompt alone does not have, so that one which
    reaches over the border counts. Raises ModelError where none has a probability.
    """
    first = next(
        (at for at, ids in enumerate(zip(prompt.ids, whole.ids, strict=False)) if ids[0] != ids[1]),
        min(len(prompt.ids), len(whole.ids)),
    )
    values = [value for value in whole.logprobs[first:] if value is not None]
    if not values:
        raise ModelError("The model gave no log-probability of a continuation.", "Give a longer prompt.")
    return Score(sum(values), len(values))
