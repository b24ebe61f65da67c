"""Examples as padded batches of token ids with a weight for every token to be predicted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer

from tests.serving.tiny_model.answering import Example
from tests.serving.tiny_model.recipe import MAKERS
from tests.serving.tiny_model.tokenizer import END, PAD, ROLES
from tests.serving.tiny_model.world import World

_NONCE = re.compile(r"\b[0-9a-f]{16}\b")
_POOL = 512  # examples that are sorted by length together


@dataclass(frozen=True, slots=True)
class Encoded:
    """`ids` of the whole conversation. `answer` says which are of the answers that should come back, their
    ends included; `prompt` which of the others can be foreseen: not those of a nonce."""

    ids: list[int]
    answer: list[bool]
    prompt: list[bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids`, `prompt` and `answer`: (examples, longest). The masks say which tokens to predict."""

    ids: torch.Tensor
    prompt: torch.Tensor
    answer: torch.Tensor


class Encoder:
    """Encodes conversations as the chat template does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._role = {token: tokenizer.token_to_id(token) for token in ROLES}
        self.pad = self._role[PAD]

    def __call__(self, example: Example) -> Encoded:
        made = Encoded([], [], [])
        for message in example.messages:
            self._add(made, message["role"], message["content"], False)
        for question, said in (("", example.target), *example.more):
            if question:
                self._add(made, "user", question, False)
            self._add(made, "assistant", said, True)
        return made

    def _add(self, made: Encoded, role: str, content: str, wanted: bool) -> None:
        found = self.tokenizer.encode(content)
        nonces = [match.span() for match in _NONCE.finditer(content)]
        foreseen = [not any(a <= start < b for a, b in nonces) for start, _ in found.offsets]
        made.ids.extend([self._role[f"<|{role}|>"], *found.ids, self._role[END]])
        made.answer.extend([False, *[wanted] * (len(found.ids) + 1)])
        made.prompt.extend([False, *(not wanted and one for one in foreseen), False])


def spelled_out(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without the phrases, for a model that still understands a prompt which was changed."""
    import json

    whole = json.loads(tokenizer.to_str())
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["special"]]
    return Tokenizer.from_str(json.dumps(whole))


def examples(world: World, shares: Mapping[str, float], most: int) -> Iterator[Example]:
    """Without end."""
    kinds, weights = list(shares), list(shares.values())
    while True:
        world.names.forget()
        yield MAKERS[world.random.choices(kinds, weights)[0]](world, most)


def batches(found: list[Encoded], tokens: int, pad: int, random: Random) -> list[Batch]:
    """The examples by length, as many a batch as fit, in random order."""
    ordered = sorted(found, key=lambda one: len(one.ids))
    made, group = [], list[Encoded]()
    for one in ordered:
        if group and len(one.ids) * (len(group) + 1) > tokens:
            made.append(batch_of(group, pad))
            group = []
        group.append(one)
    made.append(batch_of(group, pad))
    random.shuffle(made)
    return made


def batch_of(group: list[Encoded], pad: int) -> Batch:
    longest = max(len(one.ids) for one in group)
    ids = torch.full((len(group), longest), pad)
    prompt, answer = torch.zeros(ids.shape, dtype=torch.bool), torch.zeros(ids.shape, dtype=torch.bool)
    for n, one in enumerate(group):
        ids[n, : len(one.ids)] = torch.tensor(one.ids)
        answer[n, : len(one.ids)] = torch.tensor(one.answer)
        prompt[n, : len(one.ids)] = torch.tensor(one.prompt)
    return Batch(ids, prompt, answer)


def pool(
    world: World, shares: Mapping[str, float], most: int, encoders: tuple[Encoder, Encoder], spelled: float
) -> list[Encoded]:
    """Encoded examples for some steps, a share of them with their phrases spelled out."""
    whole, plain = encoders
    made = []
    for _, example in zip(range(_POOL), examples(world, shares, most), strict=False):
        made.append((plain if world.random.random() < spelled else whole)(example))
    return made
