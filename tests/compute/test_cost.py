"""Usage as a number of a unit; AgentTTS's unit against hand-worked values."""

from __future__ import annotations

import pytest

from agentmtl.compute.cost import (
    UNITS,
    ModelCost,
    amount,
    as_unit,
    decode_flops,
    parse_models,
    reference_samples,
    samples_for,
)
from agentmtl.errors import UsageError
from agentmtl.schema import Usage


def test_usage_in_every_unit() -> None:
    usage = Usage(calls=3, prompt_tokens=100, output_tokens=20, flops=5e9, seconds=1.5, money=0.25)
    assert [amount(usage, unit) for unit in UNITS] == [5e9, 120, 0.25, 1.5, 3]


def test_usage_is_additive_in_every_unit() -> None:
    a, b = Usage(1, 10, 2, 1e9, 0.5, 0.1), Usage(2, 7, 1, 3e9, 0.25, 0.2)
    assert all(amount(a + b, unit) == pytest.approx(amount(a, unit) + amount(b, unit)) for unit in UNITS)


@pytest.mark.parametrize(
    ("parameters", "samples", "prompt", "output", "expected"),
    [(3e9, 1, 128, 64, 1), (72e9, 1, 2048, 128, 814), (70e9, 1, 256, 64, 114.667)],
)
def test_reference_samples(
    parameters: float, samples: int, prompt: int, output: int, expected: float
) -> None:
    cost = reference_samples(parameters, samples, prompt, output)
    assert cost == pytest.approx(expected, rel=1e-5)
    assert samples_for(cost, parameters, prompt, output) == pytest.approx(samples)


def test_a_prompt_is_read_once_for_all_samples() -> None:
    model = ModelCost(parameters=1e9, prompt_tokens=100, output_tokens=10, usd_in=1, usd_out=3, seconds=0.5)
    assert model.expected(4, "flops") == decode_flops(1e9, 100, 10, 4) == 2e9 * 140
    assert model.expected(4, "tokens") == 140
    assert model.expected(4, "usd") == pytest.approx((100 + 3 * 40) / 1e6)
    assert (model.expected(4, "seconds"), model.expected(4, "calls")) == (2.0, 4.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(UsageError, match="joules"):
        as_unit("joules")
    with pytest.raises(UsageError, match="colour"):
        parse_models({"m": {"colour": 1}})
    with pytest.raises(UsageError, match="parameters = nan"):
        parse_models({"m": {"parameters": float("nan")}})
