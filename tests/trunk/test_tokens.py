"""Packing: every text once, budgets kept, little padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.trunk.tokens import pack

token_lists = st.lists(st.lists(st.integers(1, 9), max_size=30), max_size=40)


@given(token_lists, st.integers(0, 100), st.integers(1, 8))
def test_packing_loses_nothing_and_keeps_the_budget(
    tokens: list[list[int]], budget: int, multiple: int
) -> None:
    seen: list[int] = []
    for batch in pack(tokens, budget, pad_id=0, multiple=multiple):
        assert batch.ids.shape == batch.mask.shape == (len(batch.rows), batch.ids.shape[1])
        assert batch.ids.size <= budget or len(batch.rows) == 1
        assert batch.ids.shape[1] % multiple == 0 or batch.ids.shape[1] == 1
        for row, ids, mask in zip(batch.rows, batch.ids, batch.mask, strict=True):
            assert ids[mask == 1].tolist() == tokens[row]
            assert not ids[mask == 0].any()
            assert (np.diff(mask) <= 0).all()  # padding only at the end
        seen.extend(batch.rows.tolist())
    assert sorted(seen) == list(range(len(tokens)))
    lengths = [len(tokens[row]) for row in seen]
    assert lengths == sorted(lengths, reverse=True)
