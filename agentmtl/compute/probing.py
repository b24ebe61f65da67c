"""Samples that are ended before their end: once what they would answer has settled.

A model that thinks aloud can be asked in between what it would answer now. `Settled` ends a sample when that
many probes in a row gave the same answer, which is then its vote. Its tokens are those up to that probe, and
those of the probes themselves.

    probed = read_probed(Path("qwen3-4b-aime24.json"), Path("qwen3-4b-aime24.probes.json"))
    answers, tokens = Settled(agree=6).apply(probed)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.compute.replay import Traces, number, numbered, read_told
from agentmtl.compute.votes import BLANK
from agentmtl.errors import UsageError

Ints = NDArray[np.int64]
PROBE = 20  # tokens that a probe writes: the recordings do not say
_HINT = "Give a recording of traces and the probes of the same traces."


@dataclass(frozen=True, slots=True, eq=False)
class Probed:
    """Traces with what each would have answered every `interval` tokens: `probes[question][trace]` are
    numbers as in the traces."""

    traces: Traces
    probes: tuple[tuple[Ints, ...], ...]
    interval: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Ends a sample after `agree` probes in a row of one answer (0: never, and nothing is probed); `each`:
    the tokens of a probe."""

    agree: int = 0
    each: int = PROBE

    def apply(self, probed: Probed) -> tuple[Ints, Ints]:
        """(questions, traces) answers and tokens."""
        answers, tokens = probed.traces.answers.copy(), probed.traces.tokens.copy()
        if not self.agree:
            return answers, tokens
        for question, traces in enumerate(probed.probes):
            for trace, said in enumerate(traces):
                last = settled(said, self.agree)
                if last is not None:
                    tokens[question, trace] = min(last * probed.interval, tokens[question, trace])
                    answers[question, trace] = said[last - 1]
                tokens[question, trace] += self.each * len(said[:last])
        return answers, tokens


def settled(said: Ints, agree: int) -> int | None:
    """After how many probes the last `agree` of them gave one answer; None: never."""
    run = 0
    for place, answer in enumerate(said.tolist(), 1):
        run = 0 if answer == BLANK else run + 1 if place > 1 and answer == said[place - 2] else 1
        if run >= agree:
            return place
    return None


def read_probed(traces: Path, probes: Path) -> Probed:
    """Raises UsageError for a file that is not there, is no such recording, or of other traces."""
    told, asked = read_told(traces), read_told(probes)
    try:
        if len(told["questions"]) != len(asked["questions"]):
            raise UsageError(f"{probes} is of other questions than {traces}.", _HINT)
        pairs = list(zip(told["questions"], asked["questions"], strict=True))
        read = [_question(one, two, probes) for one, two in pairs]
        answers, tokens = (np.array([part[n] for part in read], np.int64) for n in (0, 1))
        made = Traces(str(told["model"]), str(told["set"]), answers, tokens)
        return Probed(made, tuple(part[2] for part in read), int(asked["interval_tokens"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"{probes} does not go with {traces}: {error!r}.", _HINT) from None


def _question(
    told: dict[str, Any], asked: dict[str, Any], path: Path
) -> tuple[list[int], list[int], tuple[Ints, ...]]:
    """Answers, tokens and probes of one question's traces."""
    answers, tokens, numbers = numbered(told["gold"], told["traces"])
    named = np.array([number(numbers, answer) for answer in asked["answers"]], np.int64)
    probes = tuple(named[np.array(one, np.int64)] for one in asked["probes"])
    if len(probes) != len(answers):
        raise UsageError(f"{path} has {len(probes)} traces for {len(answers)}.", _HINT)
    return answers, tokens, probes
