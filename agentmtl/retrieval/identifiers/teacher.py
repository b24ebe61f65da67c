"""ln P(n | q) of given n-grams by a decoder over the trunk, in one pass a token: their prefixes form a
trie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentmtl.trunk.decoder import Memory

if TYPE_CHECKING:
    import torch

Tokens = tuple[int, ...]

LIKELIEST = -0.1  # ln P(n | q) of a key, at most: its odds stay finite, though no sum holds P below 1


def shares_of(module: Any, counts: NDArray[np.int64], tokens: int, smoothing: float) -> torch.Tensor:
    """(v + 4,) ln of every token's share of a corpus, and what the decoder has for the markers: what is
    common there and rare in the training texts would otherwise seem to be asked for. `counts` (v,) are the
    corpus's, `tokens` their sum."""
    import torch

    shares = np.log((counts + smoothing) / (tokens + smoothing)).astype(np.float32)
    return torch.cat([torch.from_numpy(shares), module.prior[len(counts) :]])


def key_logps(module: Any, memory: Memory, keys: Sequence[Sequence[Tokens]]) -> torch.Tensor:
    """(n,) ln P of every key, those of the first of the memory's queries first. Keys have a token at least.

    A prefix that keys share is read once, and all prefixes of a length together (SEAL rescores each key by a
    pass of its own: arXiv 2204.10628, section 3.3).
    """
    import torch

    device = memory.ids.device
    hidden, past = module.begin(memory)
    before: torch.Tensor | None = None
    totals = torch.zeros(len(keys), 1, device=device)
    parents: list[dict[Tokens, int]] = [{(): 0} for _ in keys]
    found: dict[tuple[int, Tokens], int] = {}
    parts: list[torch.Tensor] = []
    wanted = [set(mine) for mine in keys]
    for length in range(1, max((len(key) for mine in keys for key in mine), default=0) + 1):
        nodes = [sorted({key[:length] for key in mine if len(key) >= length}) for mine in keys]
        rows = [(b, parents[b][node[:-1]]) for b, mine in enumerate(nodes) for node in mine]
        tokens = torch.tensor([node[-1] for mine in nodes for node in mine], device=device)
        where = torch.tensor(rows, device=device)
        logps = totals[where[:, 0], where[:, 1]] + module.scores_at(memory, hidden, where, tokens, before)
        start = sum(map(len, parts))
        parts.append(logps)
        flat = [(b, node) for b, mine in enumerate(nodes) for node in mine]
        found |= {(b, node): start + n for n, (b, node) in enumerate(flat) if node in wanted[b]}
        further = [sorted({key[:length] for key in mine if len(key) > length}) for mine in keys]
        if not any(further):
            break
        places = {place: n for n, place in enumerate(flat)}
        hidden, past, totals, before = _grown(module, memory, past, parents, further, logps, places)
        parents = [{node: n for n, node in enumerate(mine)} for mine in further]
    order = torch.tensor([found[b, key] for b, mine in enumerate(keys) for key in mine], device=device)
    return torch.cat(parts)[order] if parts else torch.zeros(0, device=device)


def _grown(
    module: Any,
    memory: Memory,
    past: Any,
    parents: Sequence[dict[Tokens, int]],
    nodes: Sequence[Sequence[Tokens]],
    logps: torch.Tensor,
    places: dict[tuple[int, Tokens], int],
) -> tuple[torch.Tensor, Any, torch.Tensor, torch.Tensor]:
    """One step for the prefixes that go on: (hidden, past, their ln P (b, p), their last tokens (b, p)),
    padded to the most of a query."""
    import torch

    most = max(map(len, nodes))
    shape = (len(nodes), most)
    tokens, parent, at = (torch.zeros(shape, dtype=torch.long, device=logps.device) for _ in range(3))
    for b, mine in enumerate(nodes):
        n = len(mine)
        if n:
            tokens[b, :n] = torch.tensor([node[-1] for node in mine])
            parent[b, :n] = torch.tensor([parents[b][node[:-1]] for node in mine])
            at[b, :n] = torch.tensor([places[b, node] for node in mine])
    single = past[0][0].shape[1] == 1
    hidden, grown = module.step(memory, tokens, past, None if single else parent)
    return hidden, grown, logps[at], tokens
