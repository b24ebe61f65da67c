"""A small decoder over the frozen trunk: what n-grams will the wanted text hold, given the query.

The trunk reads the query once. The decoder attends to its token states and to the query's own word vectors,
and says token by token which n-gram follows. Words go in and come out as the trunk's word vectors, which stay
as they are, so that a word never seen in training has a place too:

    ln P(t | n-gram so far, query) ≈ ln P(t) + e_t · W h                       t is not in the query
                                   ≈ ln P₀(t) + e_t · W h + copy_t(h)          t is

with ln P(t) a word's share of the corpus, and P₀ what the query says without a decoder: of a first token its
share of the query's tokens, of a later one how often it follows the one before there (where it does not,
P). So an untrained decoder reads the query's n-grams nearly as `QueryNgrams` does (special tokens count as
the query's here), and learns to depart from that.
The sum over the vocabulary is kept near 1 in training (Devlin et al., ACL 2014, section 2.2: self-normalised
models), so that a token's score needs no other token's.

The task (which level of unit is looked for) is told by a prompt: the trunk's states of "Find the relevant
sentence:" (discrete), learned vectors of each level (soft), or both (hybrid; UGR, arXiv 2304.14856).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agentmtl.schema import Level

if TYPE_CHECKING:
    import torch

Prompts: TypeAlias = Literal["discrete", "soft", "hybrid"]
PROMPTS: tuple[Prompts, ...] = ("discrete", "soft", "hybrid")
ASKED: tuple[Level, ...] = ("document", "passage", "sentence", "entity")
PROMPT = "Find the relevant {level}:"
MARKED = 4  # ids after the vocabulary: a title begins, ends, a document ends (as in streams), a key begins

Floats = NDArray[np.float32]
_TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """`width` of the decoder's vectors, `inner` of its feed-forward layers, `longest` tokens of a key, `soft`
    learned vectors a level."""

    width: int = 256
    heads: int = 4
    layers: int = 2
    inner: int = 512
    longest: int = 6
    soft: int = 6
    prompts: Prompts = "hybrid"


@dataclass(frozen=True, slots=True)
class Read:
    """Texts as the trunk reads them: `states` (n, m, d), `ids` and `mask` (n, m)."""

    states: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder attends to, of b queries: keys and values of each layer (b, heads, m, w), the mask
    (b, m), and for copying the query tokens' vectors (b, j, width), `ids` and `asked` (b, j), whether a place
    is a token; `same` (b, j, j): whether two places are the same one; `copied` (b, j): whether a place is its
    first. `prior` (v + 4,): ln of tokens' shares of the corpus that n-grams are of."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    mask: torch.Tensor
    vectors: torch.Tensor
    ids: torch.Tensor
    asked: torch.Tensor
    same: torch.Tensor
    copied: torch.Tensor
    prior: torch.Tensor


Past: TypeAlias = Any  # keys and values (b, p, tokens so far, heads, w) of each layer


def decoder_module(words: Floats, prior: Floats, prompts: Read, shape: DecoderShape, seed: int = 0) -> Any:
    """A fresh decoder. `words` (v, d): the trunk's word vectors. `prior` (v + 4,): ln of each token's share
    of the training texts. `prompts`: the four levels' prompts as the trunk reads them, in the order of
    `ASKED`.
    """
    import torch

    torch.manual_seed(seed)
    size, wide = words.shape[1], shape.width
    head = wide // shape.heads

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(wide) for _ in range(3))
            self.own = torch.nn.Linear(wide, 3 * wide)
            self.own_out = torch.nn.Linear(wide, wide)
            self.across = torch.nn.Linear(wide, wide)
            self.memory = torch.nn.Linear(wide, 2 * wide)
            self.across_out = torch.nn.Linear(wide, wide)
            self.inner = torch.nn.Linear(wide, shape.inner)
            self.inner_out = torch.nn.Linear(shape.inner, wide)
            self.drop = torch.nn.Dropout(0.1)

        def remember(self, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            both = self.memory(memory).view(*memory.shape[:2], 2, shape.heads, head)
            return both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2)

        def forward(
            self, x: torch.Tensor, past: Any, held: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor
        ) -> tuple[torch.Tensor, Any]:
            query, key, value = self.own(self.norms[0](x)).view(*x.shape[:2], 3, shape.heads, head).unbind(2)
            keys, values = key[:, :, None], value[:, :, None]
            if past is not None:
                keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
            shares = torch.einsum("bphd,bplhd->bphl", query, keys).mul(head**-0.5).softmax(-1)
            own = torch.einsum("bphl,bplhd->bphd", shares, values).flatten(2)
            x = x + self.drop(self.own_out(own))
            asked = self.across(self.norms[1](x)).view(*x.shape[:2], shape.heads, head).transpose(1, 2)
            found = torch.nn.functional.scaled_dot_product_attention(
                asked, held[0], held[1], attn_mask=mask[:, None, None]
            )
            x = x + self.drop(self.across_out(found.transpose(1, 2).flatten(2)))
            inner = torch.nn.functional.gelu(self.inner(self.norms[2](x)))
            return x + self.drop(self.inner_out(inner)), (keys, values)

    class Decoder(torch.nn.Module):
        words: torch.Tensor
        prior: torch.Tensor
        prompt_states: torch.Tensor
        prompt_ids: torch.Tensor
        prompt_mask: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.shape = shape
            self.vocabulary = len(words)
            for name, tensor in (
                ("words", torch.from_numpy(words)), ("prior", torch.from_numpy(prior)),
                ("prompt_states", prompts.states), ("prompt_ids", prompts.ids),
                ("prompt_mask", prompts.mask),
            ):  # fmt: skip
                self.register_buffer(name, tensor, persistent=False)
            self.markers = torch.nn.Parameter(torch.randn(MARKED, size) * float(words.std()))
            self.into = torch.nn.Linear(size, wide)
            self.places = torch.nn.Parameter(torch.randn(shape.longest + 2, wide) * 0.02)
            self.of_states = torch.nn.Linear(size, wide)
            self.of_words = torch.nn.Linear(size, wide)
            self.norm = torch.nn.LayerNorm(wide)
            self.soft = torch.nn.Parameter(torch.randn(len(ASKED), shape.soft, wide))
            self.blocks = torch.nn.ModuleList(Block() for _ in range(shape.layers))
            self.last = torch.nn.LayerNorm(wide)
            self.out = torch.nn.Linear(wide, size)
            self.copy = torch.nn.Linear(wide, wide)
            self.copied = torch.nn.Linear(wide, wide)
            self.copy_most = torch.nn.Linear(wide, 1)
            self.drop = torch.nn.Dropout(0.1)
            for layer in (self.copy, self.copy_most):
                torch.nn.init.zeros_(layer.weight)
                torch.nn.init.zeros_(layer.bias)

        def embed(self, ids: torch.Tensor) -> torch.Tensor:
            """(…, d): word vectors, and the markers' own."""
            known = self.words[ids.clamp(max=self.vocabulary - 1)]
            marked = ids >= self.vocabulary
            if not bool(marked.any()):
                return known
            own = self.markers[(ids - self.vocabulary).clamp(min=0)]
            return torch.where(marked[..., None], own, known)

        def remember(self, read: Read, levels: torch.Tensor, prior: torch.Tensor | None = None) -> Memory:
            """What is attended to for queries as the trunk reads them, each for a level (b,). `prior`: of the
            corpus; None: of the training texts."""
            vectors = self._vectors(read.states, read.ids)
            parts, masks = [vectors], [read.mask.bool()]
            if shape.prompts != "soft":
                parts.append(self._vectors(self.prompt_states[levels], self.prompt_ids[levels]))
                masks.append(self.prompt_mask[levels].bool())
            if shape.prompts != "discrete":
                parts.append(self.soft[levels])
                masks.append(torch.ones(parts[-1].shape[:2], dtype=torch.bool, device=levels.device))
            every, mask = torch.cat(parts, 1), torch.cat(masks, 1)
            blocks: list[Any] = list(self.blocks)
            held = tuple(block.remember(every) for block in blocks)
            asked = read.mask.bool()
            same = (read.ids[:, :, None] == read.ids[:, None]) & asked[:, :, None] & asked[:, None]
            copied = asked & ~same.tril(-1).any(-1)
            shares = self.prior if prior is None else prior
            return Memory(held, mask, self.copied(vectors), read.ids, asked, same, copied, shares)

        def _vectors(self, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.norm(
                self.of_states(self.drop(states)) + self.of_words(self.embed(ids))
            )
            return found

        def step(
            self, memory: Memory, tokens: torch.Tensor, past: Past = None, parents: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, Past]:
            """One token further: (hidden (b, p, width), the past with it). `tokens` (b, p); `parents` (b, p)
            are the rows of the past that each goes on from; None: the only one there is."""
            length = 0 if past is None else past[0][0].shape[2]
            x = self.into(self.embed(tokens)) + self.places[length]
            kept = []
            for n, block in enumerate(self.blocks):
                before = None if past is None else tuple(_chosen(part, tokens, parents) for part in past[n])
                x, now = block(x, before, memory.layers[n], memory.mask)
                kept.append(now)
            return self.last(x), kept

        def begin(self, memory: Memory) -> tuple[torch.Tensor, Past]:
            """The step before a key's first token: (hidden (b, 1, width), past)."""
            start = torch.full((len(memory.ids), 1), self.vocabulary + MARKED - 1, device=memory.ids.device)
            return self.step(memory, start)

        def scores(
            self,
            memory: Memory,
            hidden: torch.Tensor,
            before: torch.Tensor | None = None,
            subset: torch.Tensor | None = None,
        ) -> Any:
            """ln P of every token next, (b, p, v + 4); of a `subset` (s,) of ids (b, p, s). `before` (b, p):
            the token before; None: there is none."""
            given = self.out(hidden)
            bonus = self._bonus(memory, hidden, before)
            if subset is not None:
                same = (memory.ids[:, :, None] == subset) & memory.copied[:, :, None]
                logits = given @ self.embed(subset).T + memory.prior[subset]
                return logits + torch.einsum("bpj,bjs->bps", bonus, same.to(bonus.dtype))
            logits = torch.cat([given @ self.words.T, given @ self.markers.T], -1) + memory.prior
            places = memory.ids[:, None].expand(-1, hidden.shape[1], -1)
            return logits.scatter_add(-1, places, bonus * memory.copied[:, None])

        def scores_at(
            self,
            memory: Memory,
            hidden: torch.Tensor,
            rows: torch.Tensor,
            tokens: torch.Tensor,
            before: torch.Tensor | None = None,
        ) -> torch.Tensor:
            """ln P of single tokens next, (k,): `rows` (k, 2) query and prefix, `tokens` (k,) ids, `before`
            (b, p)."""
            query, prefix = rows[:, 0], rows[:, 1]
            given = self.out(hidden)[query, prefix]
            bonus = self._bonus(memory, hidden, before)[query, prefix]
            same = (memory.ids[query] == tokens[:, None]) & memory.copied[query]
            found: torch.Tensor = (given * self.embed(tokens)).sum(-1) + memory.prior[tokens]
            return found + (bonus * same.to(bonus.dtype)).sum(-1)

        def _bonus(self, memory: Memory, hidden: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
            """(b, p, j): what a token's likelihood gains by being in the query."""
            alike = self.copy(hidden) @ memory.vectors.transpose(1, 2) * wide**-0.5
            gained: torch.Tensor = alike + self.copy_most(hidden) + _said(memory, before)
            return gained

    def _said(memory: Memory, before: torch.Tensor | None) -> torch.Tensor:
        """(b, p, j): ln (P₀ / P) of the query's tokens; 0 of one that never follows `before` (b, p) there."""
        ids, asked, same = memory.ids, memory.asked, memory.same.float()
        if before is None:
            shares = (same.sum(-1) / asked.sum(-1, keepdim=True))[:, None]
        else:
            here = ((before[:, :, None] == ids[:, None]) & asked[:, None]).float()
            follows = torch.cat([same[:, 1:], torch.zeros_like(same[:, :1])], 1)
            shares = here @ follows / here.sum(-1, keepdim=True).clamp(min=1)
        likely = shares.clamp(min=_TINY).log() - memory.prior[ids][:, None]
        return torch.where(shares > 0, likely, torch.zeros_like(likely))

    def _chosen(past: torch.Tensor, tokens: torch.Tensor, parents: torch.Tensor | None) -> torch.Tensor:
        if parents is None:
            return past.expand(-1, tokens.shape[1], -1, -1, -1)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        return past[rows, parents]

    module = Decoder()
    with torch.no_grad():
        module.out.weight.mul_(0.1)
        module.out.bias.zero_()
    return module


def padded(read: Sequence[tuple[Floats, NDArray[np.int64]]]) -> Read:
    """(states (m, d), ids (m,)) of texts side by side."""
    import torch

    longest = max(len(ids) for _, ids in read)
    states = np.zeros((len(read), longest, read[0][0].shape[1]), np.float32)
    ids, mask = np.zeros((len(read), longest), np.int64), np.zeros((len(read), longest), np.bool_)
    for row, (mine, tokens) in enumerate(read):
        states[row, : len(tokens)], ids[row, : len(tokens)], mask[row, : len(tokens)] = mine, tokens, True
    return Read(torch.from_numpy(states), torch.from_numpy(ids), torch.from_numpy(mask))
