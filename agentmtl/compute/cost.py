"""What a run costs, in one unit: measured usage turned into a number, and formulas for what was not measured.

A unit is additive over stages. That of AgentTTS (arXiv 2508.00890: samples of a reference model) is not: it
takes the reference prompt off once a stage, and is negative for a small one. It is here to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeAlias, get_args

from agentmtl.errors import UsageError
from agentmtl.schema import Usage

Unit: TypeAlias = Literal["flops", "tokens", "usd", "seconds", "calls"]
UNITS: tuple[Unit, ...] = get_args(Unit)

REFERENCE_PARAMETERS = 3e9  # of AgentTTS's reference model, with its prompt and output in tokens
REFERENCE_PROMPT = 128.0
REFERENCE_OUTPUT = 64.0


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What is known of a model before it runs: active `parameters`, usual `prompt_tokens` and
    `output_tokens` of a call, prices in usd a million tokens, `seconds` of a call."""

    parameters: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    usd_in: float = 0.0
    usd_out: float = 0.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise UsageError(f"A model cannot have {name} = {value}.", "Give a number of 0 or more.")

    def expected(self, samples: int, unit: Unit) -> float:
        """Of `samples` outputs of one prompt, which is read once."""
        read, written = self.prompt_tokens, samples * self.output_tokens
        if unit == "flops":
            return decode_flops(self.parameters, self.prompt_tokens, self.output_tokens, samples)
        if unit == "tokens":
            return read + written
        if unit == "usd":
            return (read * self.usd_in + written * self.usd_out) / 1e6
        return self.seconds * samples if unit == "seconds" else float(samples)


def amount(usage: Usage, unit: Unit) -> float:
    """Measured usage as a number of the unit."""
    if unit == "tokens":
        return float(usage.prompt_tokens + usage.output_tokens)
    return float(usage.money if unit == "usd" else getattr(usage, unit))


def as_unit(name: str) -> Unit:
    """The unit of that name. Raises UsageError where there is none."""
    if name not in UNITS:
        raise UsageError(f"{name!r} is no unit of cost.", f"Use one of: {', '.join(UNITS)}.")
    return name


def decode_flops(parameters: float, prompt: float, output: float, samples: float = 1) -> float:
    """2 FLOPs a parameter and token: the prompt once, every sample's output."""
    return 2 * parameters * (prompt + samples * output)


def reference_samples(parameters: float, samples: float, prompt: float, output: float) -> float:
    """A stage's cost in samples of AgentTTS's reference model (its appendix on budgets)."""
    size = parameters / REFERENCE_PARAMETERS
    return (size * (prompt + samples * output) - REFERENCE_PROMPT) / REFERENCE_OUTPUT


def samples_for(budget: float, parameters: float, prompt: float, output: float) -> float:
    """How many samples that many reference samples buy: the inverse of `reference_samples`."""
    size = parameters / REFERENCE_PARAMETERS
    return ((budget * REFERENCE_OUTPUT + REFERENCE_PROMPT) / size - prompt) / output


def parse_models(table: Mapping[str, Mapping[str, float]]) -> dict[str, ModelCost]:
    """The [models.NAME] tables of a pipeline file. Raises UsageError for an unknown key or a bad number."""
    made = {}
    for name, values in table.items():
        unknown = set(values) - set(ModelCost.__slots__)
        if unknown:
            known = ", ".join(ModelCost.__slots__)
            raise UsageError(
                f"Model {name} has unknown keys: {', '.join(sorted(unknown))}.", f"Known: {known}."
            )
        made[name] = ModelCost(**{key: float(value) for key, value in values.items()})
    return made
