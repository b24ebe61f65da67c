"""The bank of many tasks: what is found, what is filtered, and that nothing is answered by its own answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import EncoderError
from agentmtl.retrieval.bank import DemonstrationBank, Entry, build_bank, load_bank, save_bank
from agentmtl.retrieval.demonstrations import LEAK, shingles
from agentmtl.trunk.hashing import HashingEncoder

ENCODER = HashingEncoder(64)
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)


def bank_of(inputs: list[str], tasks: tuple[str, ...] = ("a", "b")) -> DemonstrationBank:
    """Each input in the tasks in turn, with outputs yes and no."""
    entries = [Entry(tasks[n % len(tasks)], text, ("yes", "no")[n // 2 % 2]) for n, text in enumerate(inputs)]
    meanings = list(ENCODER.encode([entry.output for entry in entries]))
    return build_bank(entries, ENCODER.encode(inputs), meanings)


def overlap(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


@given(st.lists(texts, min_size=1, max_size=40), st.integers(0, 39), st.integers(1, 12))
def test_nothing_that_says_the_same_is_found_and_nothing_better_is_missed(
    inputs: list[str], at: int, k: int
) -> None:
    """Against all entries, one by one; the query is one of them in other spelling."""
    bank, query = bank_of(inputs), inputs[at % len(inputs)].upper() + " !"
    vector = ENCODER.encode([query])[0]
    rows, scores = bank.nearest(query, vector, k)
    allowed = [n for n, text in enumerate(inputs) if overlap(query, text) < LEAK]
    assert set(rows) <= set(allowed) and len(rows) == min(k, len(allowed))
    assert inputs[at % len(inputs)] not in {inputs[row] for row in rows}
    products = bank.vectors @ vector  # of all rows at once: one by one the last bit of a float32 may differ
    every = sorted((float(products[n]) for n in allowed), reverse=True)
    assert scores == pytest.approx(every[:k])


@given(st.lists(texts, min_size=4, max_size=20), st.floats(0, 3))
def test_the_filter_is_strict_soft_or_none(inputs: list[str], preference: float) -> None:
    bank, vector = bank_of(inputs), ENCODER.encode(["something else"])[0]
    plain, strict, soft = (
        dict(zip(*bank.nearest("something else", vector, 50, "a", how, preference), strict=True))
        for how in ("none", "strict", "prior")
    )
    mine = {n for n, entry in enumerate(bank.entries) if entry.task == "a"}
    assert set(strict) == mine and set(plain) == set(soft) == set(range(len(inputs)))
    for n, score in soft.items():
        assert score == pytest.approx(plain[n] + preference * (n in mine))


def test_what_outputs_of_a_task_have_in_common_says_nothing() -> None:
    shared = np.array([1.0, 0, 0], np.float32)
    said = [shared + np.array([0, way, 0], np.float32) for way in (0.1, -0.1)]
    entries = [Entry("t", f"text {n}", ("up", "down")[n % 2]) for n in range(6)]
    bank = build_bank(entries, ENCODER.encode([e.input for e in entries]), [said[n % 2] for n in range(6)])
    assert len(bank.meanings) == 2  # one for each output
    assert np.allclose(bank.meanings, [[0, 1, 0], [0, -1, 0]], atol=1e-5)


def test_tasks_are_left_out_of_a_bank() -> None:
    bank = bank_of(["one two three", "four five six", "seven eight nine"])
    left = bank.without({"a"})
    assert [entry.task for entry in left.entries] == ["b"] and len(left) == 1
    assert len(bank.without({"a", "b"})) == 0
    assert bank.without({"a", "b"}).nearest("one", ENCODER.encode(["one"])[0], 3) == ([], [])


def test_a_bank_is_kept_in_a_folder(tmp_path: Path) -> None:
    bank = bank_of(["one two three", "four five six", "ü ß 漢"])
    save_bank(bank, tmp_path / "bank")
    read = load_bank(tmp_path / "bank")
    assert read.entries == bank.entries
    assert np.allclose(read.vectors, bank.vectors, atol=1e-3)
    (tmp_path / "bank" / "bank.jsonl").write_text('{"task": "a", "input": "x", "output": "y"}\n')
    with pytest.raises(EncoderError, match="different lengths"):
        load_bank(tmp_path / "bank")
    with pytest.raises(EncoderError, match="cannot be read"):
        load_bank(tmp_path / "nowhere")
