"""The options that a query lists, how alike they are, and what a router makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.errors import UsageError
from agentmtl.routing.fitted import FittedRouter, RouterSettings, Rows
from agentmtl.routing.options import FEATURES, likeness, options_of
from agentmtl.trunk import load_encoder

ENCODER = load_encoder("hashing:256")
WORDS = st.lists(st.sampled_from(["lamp", "bridge", "a", "Tarn", "1820"]), min_size=1, max_size=4).map(
    " ".join
)


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("Which?\nA. a lamp\nB. a bridge\nAnswer:", ("a lamp", "a bridge")),
        ("Which?\n(A) a lamp\n(B) a\nbridge\n(C) none", ("a lamp", "a\nbridge", "none")),
        ("A) 1\nB) 2\n\nNow:\nA) 3\nB) 4", ("3", "4")),
        ("A. alone", ()),
        ("(A) x\n(B) y\n(C) z\nA. Let's think.", ("x", "y", "z")),
        ("A. x\nB. y\nA. Smith wrote this.", ("x", "y")),
        ("A. x\n\nB. y\n\nAnswer:", ("x", "y")),
        ("Sum this up.\nA: Hi there\nB: Hello\nA: How are you?\nB: Fine", ()),
        ("A. Introduction\nIt was dark.\n\nThe lamp burned.\nB. Methods\nWe looked.", ()),
        ("A. one kind of mark\nB) and another", ()),
        ("B. without\nC. its first", ()),
        ("Vitamin A. and B. are not at the start", ()),
        ("", ()),
    ],
)
def test_options_are_found(text: str, listed: tuple[str, ...]) -> None:
    assert options_of(text) == listed


@given(st.lists(WORDS, min_size=2, max_size=8), st.sampled_from(["{}. ", "{}) ", "({}) "]))
def test_what_is_listed_is_what_is_found(options: list[str], mark: str) -> None:
    lines = [mark.format(chr(ord("A") + n)) + option for n, option in enumerate(options)]
    assert options_of("What is it?\n" + "\n".join(lines) + "\nAnswer:") == tuple(options)


def test_likeness_is_the_cosine_of_pairs_and_nothing_without_options() -> None:
    text = "Which?\nA. the old bridge\nB. the old lamp\nC. 1820"
    told, none = likeness([text, "Where is the lamp?"], ENCODER)
    rows = ENCODER.encode(["the old bridge", "the old lamp", "1820"], "document").astype(float)
    pairs = [rows[0] @ rows[1], rows[0] @ rows[2], rows[1] @ rows[2]]
    assert told == pytest.approx([1.0, np.mean(pairs), max(pairs), min(pairs)])
    assert none.tolist() == [0.0] * FEATURES and likeness([], ENCODER).shape == (0, FEATURES)


def _rows(count: int) -> Rows:
    """The weak expert fails where options are alike; vectors say nothing."""
    rng = np.random.default_rng(count)
    vectors = rng.normal(size=(count, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = rng.random(count) < 0.5
    texts = tuple(
        f"Which?\nA. the lamp of Tarn {n}\nB. {f'the lamp of Voss {n}' if same else 'nobody'}"
        for n, same in enumerate(alike)
    )
    right = np.stack([rng.random(count) < 0.9, ~alike], axis=1).astype(float)
    return Rows(vectors, texts, right, ("strong", "weak"), likeness(texts, ENCODER))


def test_a_router_learns_where_options_are_alike(tmp_path: Path) -> None:
    fitted = FittedRouter.fit(_rows(300), RouterSettings(10, strength=1.0), ENCODER)
    unseen = _rows(80)
    chances = fitted.probabilities(unseen.vectors, unseen.texts)
    assert np.mean((chances[:, 1] > 0.5) == (unseen.scores[:, 1] > 0.5)) > 0.9
    np.testing.assert_array_equal(fitted.probabilities(unseen.vectors, unseen.texts, unseen.options), chances)
    fitted.save(tmp_path)
    again = FittedRouter.load(tmp_path, ENCODER).probabilities(unseen.vectors, unseen.texts)
    np.testing.assert_allclose(again, chances, atol=1e-4)


def test_a_query_without_options_counts_as_one_of_mean_likeness() -> None:
    """Though none of the rows was of its kind."""
    fitted = FittedRouter.fit(_rows(300), RouterSettings(10, strength=1.0), ENCODER)
    rows = _rows(80)
    assert rows.options is not None
    centre = _rows(300).options.mean(axis=0)  # type: ignore[union-attr]
    bare = fitted.probabilities(rows.vectors, rows.texts, np.zeros_like(rows.options))
    mean = fitted.probabilities(rows.vectors, rows.texts, np.tile(centre, (80, 1)))
    np.testing.assert_allclose(bare, mean, atol=0.02)
    known = fitted.probabilities(rows.vectors, rows.texts)
    assert known[:, 1].min() < bare[:, 1].mean() < known[:, 1].max()


def test_options_that_nobody_can_read_are_an_error_and_not_a_guess() -> None:
    rows = _rows(60)
    seeing = FittedRouter.fit(rows, RouterSettings(10))
    with pytest.raises(UsageError, match="no encoder to read the options"):
        seeing.probabilities(rows.vectors, rows.texts)
    assert seeing.probabilities(rows.vectors[:1], ["Where is the lamp?"]).shape == (1, 2)
    blind = FittedRouter.fit(replace(rows, options=None), RouterSettings(10))  # it never learned of any
    assert blind.probabilities(rows.vectors, rows.texts).shape == (60, 2)
